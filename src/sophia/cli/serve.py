"""`sophia serve`: compose, listen, say where, and stop cleanly."""

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import typer
import uvicorn

from sophia.adapters.telemetry import logs
from sophia.cli.settings import load
from sophia.compose import Sophia, compose, data_folder, new_key, settle_memory, write_secret
from sophia.config import ConfigError, Settings
from sophia.http.asgi import App
from sophia.http.native import protocol_class
from sophia.http.routes import Router

log = logging.getLogger("sophia")

_OURSELVES = ("127.0.0.1", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
_HELLO = "Say hello in one sentence."
_ASKED = f'{{"model":"sophia/auto","messages":[{{"role":"user","content":"{_HELLO}"}}]}}'


def run(config: Path | None, overrides: Mapping[tuple[str, ...], object]) -> None:
    """Serve until a signal comes. Exits with 2 when the settings are wrong."""
    settings = load(config, overrides)
    logs.configure(settings.telemetry.log_level, settings.telemetry.log_format)
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


class _Server(uvicorn.Server):
    """Says that it is not ready any more as soon as it is told to stop."""

    def __init__(self, config: uvicorn.Config, sophia: Sophia) -> None:
        super().__init__(config)
        sophia.front.ready = self._reason

    def _reason(self) -> str:
        if self.should_exit:
            return "Sophia is shutting down."
        return "" if self.started else "Sophia is starting."


async def _serve(settings: Settings) -> None:
    sophia = await compose(settings, os.environ)
    try:
        first_key = await _first_start(sophia, settings)
        router = Router()
        server = _Server(
            uvicorn.Config(
                App(sophia.front, router),
                host=settings.server.host,
                port=settings.server.port,
                http=protocol_class(sophia.front, router),
                loop="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=int(settings.server.drain_s),
            ),
            sophia,
        )
        settle_memory()
        welcome = asyncio.create_task(_welcome(server, settings, sophia, first_key))
        await server.serve()
        welcome.cancel()
        if not server.started:
            raise ConfigError(
                f"cannot listen on {settings.server.host}:{settings.server.port}; "
                "is it taken? `sophia serve --port N` takes another"
            )
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
    server: uvicorn.Server, settings: Settings, sophia: Sophia, first_key: str | None
) -> None:
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
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
