"""Skip the examples where the environments of their clients are missing."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip these tests unless they are selected: they need the environments that `run` creates."""
    if "clients" in str(config.option.markexpr):
        return
    for item in items:
        if item.get_closest_marker("clients"):
            item.add_marker(pytest.mark.skip(reason="make test-clients runs these"))
