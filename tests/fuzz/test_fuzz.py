"""The kept seeds break no promise, nor does a short run of mutations of them."""

import logging
from pathlib import Path

import pytest
from targets import TARGETS, run_target

from fuzz import NAMES, SEEDS, fuzz_at_random

INPUTS = sorted(path for name in NAMES for path in (SEEDS / name).iterdir())


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_kept_input_breaks_no_promise(path: Path) -> None:
    """Each input that once broke something is among the seeds."""
    run_target(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_a_moment_of_fuzzing_finds_nothing(name: str) -> None:
    """No mutation of a seed gets anything but a promised outcome out of a reader."""
    logging.disable(logging.CRITICAL)
    try:
        executions, crashes = fuzz_at_random(name, 0.5, seed=7)
    finally:
        logging.disable(logging.NOTSET)
    assert executions and not crashes


def test_every_target_has_seeds() -> None:
    assert set(TARGETS) == set(NAMES)
