"""A short run of the HTTP/1.1 fuzzer."""

import subprocess
import sys
from pathlib import Path


def test_two_seconds_of_fuzzing_find_nothing() -> None:
    """No stream of bytes gets anything but a promised outcome out of the client."""
    script = Path(__file__).with_name("fuzz_http1.py")
    done = subprocess.run(
        [sys.executable, str(script), "--seconds", "2", "--seed", "7"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.endswith(" executions, 0 crashes\n")
