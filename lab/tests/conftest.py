"""Fixtures of the lab's tests; fixtures of a running Sophia are in `tests/`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "cli")]

from terminal import Ran, Run, clean_environment  # noqa: E402 # found through the line above

settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a module in an empty folder; keywords set variables."""

    def run_module(module: str, *arguments: str, **variables: str) -> Ran:
        paths = os.pathsep.join((str(ROOT), str(ROOT / "src")))
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=clean_environment() | {"PYTHONPATH": paths} | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run_module
