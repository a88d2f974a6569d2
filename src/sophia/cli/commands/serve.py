"""`sophia serve`: compose, listen, print the address, and stop cleanly."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from sophia.cli.config_file import load_command_settings
from sophia.cli.options import ConfigFile, DataDir
from sophia.compose.keys import create_key, write_secret
from sophia.compose.root import Sophia, compose, freeze_startup_objects, setup_logging
from sophia.config import SANDBOX_FOLDER, Settings
from sophia.core.errors import ConfigError
from sophia.http.server import Server

_LOCAL_HOSTS = ("127.0.0.1", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
_SAMPLE_BODY = (
    '{"model":"sophia/auto","messages":[{"role":"user","content":"Say hello in one sentence."}]}'
)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Serve the API until a signal comes."""
    settings = load_command_settings(config, data_dir, host, port, serving=True)
    setup_logging(settings)
    try:
        import uvloop
    except ImportError:
        runner = asyncio.run
    else:
        runner = uvloop.run
    try:
        runner(_serve(settings))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _serve(settings: Settings) -> None:
    sophia = await compose(settings, os.environ)
    try:
        listen = settings.server
        server = Server(sophia.app, listen.host, listen.port, listen.drain_s)
        try:
            address = server.bind()
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {listen.host}:{listen.port}: {error.strerror or error}; "
                "`sophia serve --port N` takes another"
            ) from None
        first_key = await _create_first_keys(sophia, settings)
        freeze_startup_objects()
        welcome = asyncio.create_task(_print_welcome(server, settings, sophia, first_key))
        await server.serve(sockets=[address])
        welcome.cancel()
    finally:
        await sophia.close()


async def _create_first_keys(sophia: Sophia, settings: Settings) -> str | None:
    """Create the first keys of a new data folder; return the inference key, which is shown once."""
    if await sophia.store.keys():
        return None
    data = Path(settings.data_dir)
    token, row = create_key(data, "first")
    admin, admin_row = create_key(data, "admin", "admin")
    await sophia.store.add_key(row)
    await sophia.store.add_key(admin_row)
    write_secret(data / "admin.key", admin.encode() + b"\n")
    sophia.app.key_ring.replace(await sophia.store.keys())
    return token


async def _print_welcome(
    server: Server, settings: Settings, sophia: Sophia, first_key: str | None
) -> None:
    port = await server.wait_until_listening()
    host = settings.server.host
    base = f"http://{'localhost' if host in _LOCAL_HOSTS else host}:{port}/v1"
    lines = [f"Sophia serves {base}   (model: sophia/auto)"]
    if sophia.connections.sandbox is not None:
        lines.append(
            "No OPENROUTER_API_KEY is set: answers come from the sandbox, no real model is asked. "
            f"Its keys, ledger and lessons stay in {settings.data_dir}."
        )
    if first_key is not None:
        lines += [
            f"Your first key, shown this once: {first_key}",
            f"The admin key is in {Path(settings.data_dir) / 'admin.key'}",
        ]
        if (left := Path(settings.data_dir) / SANDBOX_FOLDER).exists():
            lines.append(f"What the sandbox left stays apart in {left}; its keys do not work here.")
    # Double quotes, so that the shell fills the variable in.
    key = first_key or "$SOPHIA_API_KEY"
    lines += [
        "Try it:",
        f'  curl -s {base}/chat/completions -H "Authorization: Bearer {key}" '
        f"-H 'Content-Type: application/json' -d '{_SAMPLE_BODY}'",
    ]
    if first_key is None:
        lines.append("Another key: sophia keys create --name NAME")
    typer.echo("\n".join(lines))
