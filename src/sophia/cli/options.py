"""Parts of command declarations: common options, and a decorator for coroutine functions."""

import time
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Settings file; default: sophia.yaml if it exists.")
]
DataDir = Annotated[
    str | None, typer.Option("--data-dir", help="Folder for the ledger, keys and catalogue.")
]
BaseUrl = Annotated[
    str, typer.Option("--base-url", envvar="SOPHIA_BASE_URL", help="A running Sophia.")
]
Key = Annotated[str | None, typer.Option("--key", envvar="SOPHIA_API_KEY", help="Inference key.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

DEFAULT_BASE_URL = "http://127.0.0.1:8080/v1"

_P = ParamSpec("_P")


def wrap_async_command(command: Callable[_P, Coroutine[Any, Any, None]]) -> Callable[_P, None]:
    """Return a command that runs a coroutine function to its end."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        import asyncio  # some commands do without

        asyncio.run(command(*args, **kwargs))

    return run


def days_ago_ms(days: float) -> int:
    """Return the time `days` ago, in milliseconds since 1970."""
    return int((time.time() - days * 86_400) * 1000)
