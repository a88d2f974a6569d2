"""The command line, in this process or in one of its own, against a Sophia that serves."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from terminal import SOPHIA, Ran, Run, Served, clean_environment, serving
from typer.testing import CliRunner

from sophia.cli.main import app


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A Sophia on a free port whose sandbox never waits."""
    data = tmp_path_factory.mktemp("served")
    quick = {"SOPHIA_SANDBOX_SPEED": "0", "SOPHIA_SANDBOX_LOCAL_MODEL": "false"}
    command = ("sophia", "serve", "--port", "0", "--data-dir", str(data))
    with serving(*command, folder=data, **quick) as printed:
        base_url = key = ""
        for line in printed:
            if line.startswith("Sophia serves"):
                base_url = line.split()[2].replace("localhost", "127.0.0.1")
            if "sk-sph-" in line:
                key = line.split()[-1]
                break
        yield Served(base_url, key, data)


def runner(folder: Path) -> Run:
    """Return a function that runs `sophia` here, which spares the start of an interpreter.

    Its arguments are those of the command; keywords set variables.
    """

    def runs(*arguments: str, **variables: str) -> Ran:
        environment = clean_environment() | variables
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            for name in os.environ.keys() - environment.keys():
                patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
            done = CliRunner().invoke(app, arguments)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Ran(done.exit_code, done.stdout, done.stderr)

    return runs


def process_runner(folder: Path) -> Run:
    """Return the same function, with a process for each run."""

    def runs(*arguments: str, **variables: str) -> Ran:
        done = subprocess.run(
            [*SOPHIA, *arguments],
            env=clean_environment() | variables,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return runs


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `sophia` in an empty folder."""
    return runner(tmp_path)


@pytest.fixture
def run_process(tmp_path: Path) -> Run:
    """Run `sophia` as a shell does, with a cold start."""
    return process_runner(tmp_path)


@pytest.fixture(scope="session")
def run_session(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run `sophia` for fixtures of the whole session."""
    return process_runner(tmp_path_factory.mktemp("session"))
