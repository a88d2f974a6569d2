"""The committed reference is what the code says: nothing is undocumented, nothing is out of date."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_reference_matches_the_code() -> None:
    """Every setting, route, header, error, command, metric and port is described; `make docs`."""
    command = [sys.executable, "scripts/build_reference.py", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
