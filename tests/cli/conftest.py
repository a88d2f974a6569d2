"""The real command line in processes of its own, against a Sophia that really serves."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from terminal import SOPHIA, Ran, Run, Served, clean_environment


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A Sophia on a free port whose sandbox never waits."""
    data = tmp_path_factory.mktemp("served")
    quick = {"SOPHIA_SANDBOX_SPEED": "0", "SOPHIA_SANDBOX_LOCAL_MODEL": "false"}
    process = subprocess.Popen(
        [*SOPHIA, "serve", "--port", "0", "--data-dir", str(data)],
        env=clean_environment() | quick,
        cwd=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        base_url = key = ""
        for line in process.stdout:
            if line.startswith("Sophia serves"):
                base_url = line.split()[2].replace("localhost", "127.0.0.1")
            if line.startswith("Your first key"):
                key = line.split()[-1]
                break
        yield Served(base_url, key, data)
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `sophia` with these arguments in an empty folder; keywords set variables."""

    def runs(*arguments: str, **variables: str) -> Ran:
        done = subprocess.run(
            [*SOPHIA, *arguments],
            env=clean_environment() | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return runs
