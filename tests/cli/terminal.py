"""What a run of the command line is, and what it is run with."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOPHIA = [sys.executable, "-m", "sophia"]


@dataclass(frozen=True)
class Served:
    """A running Sophia with its sandbox: where it is, a key, and its data folder."""

    base_url: str
    key: str
    data: Path


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def clean_environment() -> dict[str, str]:
    """Return this process' environment without anything that Sophia reads."""
    read = ("SOPHIA_", "OPENROUTER_", "OTEL_", "FALLBACK_MODELS", "MODEL_CACHE_SIZE", "COLUMNS")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(read) and not name.lower().endswith("_proxy")
    } | {"PYTHONWARNINGS": "error::ResourceWarning"}


@contextmanager
def serving(*command: str, folder: Path, **environment: str) -> Iterator[Iterator[str]]:
    """Run a server of this package and give the lines that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=clean_environment() | {"SOPHIA_SERVER_LINGER_S": "0"} | environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield iter(process.stdout)
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
