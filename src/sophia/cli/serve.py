"""`sophia serve`: compose, listen, say where, and stop cleanly."""

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import typer

from sophia.cli.settings import load
from sophia.compose import (
    Sophia,
    compose,
    data_folder,
    new_key,
    settle_memory,
    start_logs,
    write_secret,
)
from sophia.config import ConfigError, Settings
from sophia.http.server import Server

log = logging.getLogger("sophia")

_OURSELVES = ("127.0.0.1", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
_HELLO = "Say hello in one sentence."
_ASKED = f'{{"model":"sophia/auto","messages":[{{"role":"user","content":"{_HELLO}"}}]}}'


def run(config: Path | None, overrides: Mapping[tuple[str, ...], object]) -> None:
    """Serve until a signal comes. Exits with 2 when the settings are wrong."""
    settings = load(config, overrides)
    start_logs(settings)
    try:
        import uvloop
    except ImportError:
        runner = asyncio.run
    else:
        runner = uvloop.run
    try:
        runner(_serve(settings))
    except ConfigError as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _serve(settings: Settings) -> None:
    sophia = await compose(settings, os.environ)
    try:
        listen = settings.server
        server = Server(sophia.front, listen.host, listen.port, listen.drain_s)
        try:
            address = server.bind()
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {listen.host}:{listen.port}: {error.strerror or error}; "
                "`sophia serve --port N` takes another"
            ) from None
        first_key = await _first_start(sophia, settings)
        settle_memory()
        welcome = asyncio.create_task(_welcome(server, settings, sophia, first_key))
        await server.serve(sockets=[address])
        welcome.cancel()
    finally:
        await sophia.close()


async def _first_start(sophia: Sophia, settings: Settings) -> str | None:
    """Make the first keys of a new data folder; return the inference key, which is shown once."""
    if await sophia.store.keys():
        return None
    data = data_folder(settings)
    token, row = new_key(data, "first")
    admin, admin_row = new_key(data, "admin", "admin")
    await sophia.store.add_key(row)
    await sophia.store.add_key(admin_row)
    write_secret(data / "admin.key", admin.encode() + b"\n")
    sophia.front.keys.replace(await sophia.store.keys())
    return token


async def _welcome(
    server: Server, settings: Settings, sophia: Sophia, first_key: str | None
) -> None:
    port = await server.listening()
    host = settings.server.host
    base = f"http://{'localhost' if host in _OURSELVES else host}:{port}/v1"
    lines = [f"Sophia serves {base}   (model: sophia/auto)"]
    if sophia.sandbox is not None:
        lines.append(
            "No OPENROUTER_API_KEY is set: answers come from the sandbox, no real model is asked."
        )
    if first_key is not None:
        lines += [
            f"Your first key, shown this once: {first_key}",
            f"The admin key is in {data_folder(settings) / 'admin.key'}",
        ]
    # Double quotes, so that the shell fills the variable in.
    key = first_key or "$SOPHIA_API_KEY"
    lines += [
        "Try it:",
        f'  curl -s {base}/chat/completions -H "Authorization: Bearer {key}" '
        f"-H 'Content-Type: application/json' -d '{_ASKED}'",
    ]
    if first_key is None:
        lines.append("Another key: sophia keys create --name NAME")
    typer.echo("\n".join(lines))
