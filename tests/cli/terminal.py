"""What a run of the command line is, and what it is run with."""

import os
import sys
from collections.abc import Callable
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
