"""Skip the slow tests of this folder unless they are selected."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests that install packages; the others only read files."""
    if "packaging" in str(config.option.markexpr):
        return
    for item in items:
        if item.get_closest_marker("packaging"):
            item.add_marker(pytest.mark.skip(reason="make test-packaging runs these"))
