"""`sophia serve`: compose, listen, print the address, and stop cleanly."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from sophia.cli.config_file import load_command_settings
from sophia.cli.options import ConfigFile, DataDir
from sophia.cli.supervisor import (
    ALIVE,
    ALIVE_SECONDS,
    LEAVE,
    READY,
    Supervisor,
    list_worker_command,
    take_listener,
)
from sophia.cli.terminal import build_console, exit_with_error
from sophia.compose.keys import create_key, ensure_data_folder, lock_for_serving, write_secret
from sophia.compose.offline import open_store
from sophia.compose.root import Sophia, compose, setup_logging, shorten_pauses
from sophia.compose.upstreams import SANDBOX_VARIABLE, Connections, open_connections
from sophia.config import SANDBOX_FOLDER, Settings
from sophia.core.errors import ConfigError
from sophia.core.failures import UpstreamFailure
from sophia.core.ports import Store
from sophia.http.server import Server, bind_listener

_KEY_CHECK_S = 3.0
_STOP_MARGIN_S = 15.0
"""Time beyond the drain that a worker gets to write everything."""
_EXIT_LOST = 75
"""The exit code of a temporary failure, after which a program is started again."""
_LOCAL_HOSTS = ("127.0.0.1", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
_SAMPLE_BODY = (
    '{"model":"sophia/auto","messages":[{"role":"user","content":"Say hello in one sentence."}]}'
)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="PostgreSQL database instead of SQLite's file."),
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    workers: Annotated[
        str | None, typer.Option(help="Processes that serve: a number, or auto for one per core.")
    ] = None,
) -> None:
    """Serve the API until a signal comes."""
    settings = load_command_settings(
        config, data_dir, host, port, store=store, serving=True, workers=workers
    )
    setup_logging(settings)
    try:
        import uvloop
    except ImportError:
        runner = asyncio.run
    else:
        runner = uvloop.run
    listener = take_listener(os.environ)
    count = settings.server.workers or os.cpu_count() or 1
    try:
        if listener is not None:
            runner(_serve(settings, listener))
        elif count > 1:
            raise typer.Exit(asyncio.run(_supervise(settings, count)))
        else:
            runner(_serve(settings))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _serve(settings: Settings, listener: socket.socket | None = None) -> None:
    """Serve in this process; as one of several on the `listener` of their supervisor."""
    is_worker = listener is not None
    async with AsyncExitStack() as stack:
        if is_worker:
            stack.callback(asyncio.create_task(_show_life()).cancel)
        sophia = await compose(settings, os.environ, is_worker=is_worker)
        stack.push_async_callback(sophia.close)
        server = Server(sophia.app, settings.server)
        address = listener or _bind(settings)
        token = None if is_worker else await _create_first_keys(sophia.store, settings)
        sophia.app.key_ring.replace(await sophia.store.keys())
        shorten_pauses()
        tell = _tell_supervisor(server) if is_worker else _welcome(server, settings, sophia, token)
        telling = asyncio.create_task(tell)
        _handle_signals(server.handle_exit)
        watching = asyncio.create_task(_stop_when_lost(server, sophia.lost))
        await server.serve(sockets=[address])
        telling.cancel()
        watching.cancel()
    _handle_signals(signal.SIG_IGN)
    if sophia.lost.is_set():
        exit_with_error("Other machines took this worker for dead: start it again.", _EXIT_LOST)


async def _stop_when_lost(server: Server, lost: asyncio.Event) -> None:
    await lost.wait()
    server.handle_exit(signal.SIGTERM, None)


async def _tell_supervisor(server: Server) -> None:
    """Say that this worker is ready; stop when the supervisor is gone."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(LEAVE, server.leave)

    def read() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            server.handle_exit(signal.SIGTERM, None)

    loop.add_reader(0, read)
    await server.wait_until_listening()
    with suppress(BrokenPipeError):
        os.write(1, READY)


async def _show_life() -> None:
    """Show the supervisor that this process does not hang, from its start to its end."""
    # Nobody reads any more once the supervisor is gone.
    with suppress(BrokenPipeError):
        while True:
            os.write(1, ALIVE)
            await asyncio.sleep(ALIVE_SECONDS)


async def _supervise(settings: Settings, count: int) -> int:
    """Let several processes serve; return the exit code."""
    async with AsyncExitStack() as stack:
        data = ensure_data_folder(settings)
        stack.enter_context(lock_for_serving(data))
        # This one fails when another program has the port; shared ones would not.
        with _bind(settings) as probe:
            host, port = settings.server.host, probe.getsockname()[1]
        async with open_store(settings) as store:
            token = await _create_first_keys(store, settings)
        connections = await open_connections(settings, os.environ, stack)
        environment = dict(os.environ)
        if connections.sandbox_url is not None:
            environment[SANDBOX_VARIABLE] = connections.sandbox_url
        limits = settings.server
        supervisor = Supervisor(
            list_worker_command(),
            environment,
            partial(bind_listener, host, port, shared=True),
            count=count,
            stop_seconds=limits.linger_s + limits.drain_s + _STOP_MARGIN_S,
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, supervisor.stop, number)
        loop.add_signal_handler(signal.SIGHUP, supervisor.roll)
        if await supervisor.start():
            await _print_welcome(port, settings, connections, token)
        return await supervisor.wait()


def _handle_signals(handle: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Keep signals from ending the process while outcomes and lessons wait to be written."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def _bind(settings: Settings) -> socket.socket:
    """Return the socket to listen on. Raises ConfigError."""
    try:
        return bind_listener(settings.server.host, settings.server.port)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {settings.server.host}:{settings.server.port}: "
            f"{error.strerror or error}; `sophia serve --port N` takes another"
        ) from None


async def _create_first_keys(store: Store, settings: Settings) -> str | None:
    """Create the first keys of a new data folder; return the inference key, which is shown once."""
    if await store.keys():
        return None
    data = Path(settings.data_dir)
    token, row = create_key(data, "first")
    admin, admin_row = create_key(data, "admin", "admin")
    await store.add_key(row)
    await store.add_key(admin_row)
    write_secret(data / "admin.key", admin.encode() + b"\n")
    return token


async def _welcome(
    server: Server, settings: Settings, sophia: Sophia, first_key: str | None
) -> None:
    """Print the address once the server listens."""
    port = await server.wait_until_listening()
    await _print_welcome(port, settings, sophia.connections, first_key)


async def _print_welcome(
    port: int, settings: Settings, connections: Connections, first_key: str | None
) -> None:
    host = settings.server.host
    base = f"http://{'localhost' if host in _LOCAL_HOSTS else host}:{port}/v1"
    out = build_console()
    out.print(Text.assemble("Sophia serves ", (base, "bold cyan"), "   (model: sophia/auto)"))
    if connections.sandbox_url is not None:
        cause = "" if settings.sandbox.enabled else "No OPENROUTER_API_KEY is set: "
        address = connections.sandbox_url.removesuffix("/api/v1")
        text = f"{cause}answers come from the sandbox at {address}, no real model is asked. "
        text += f"Its keys, ledger and lessons stay in {settings.data_dir}."
        _print_unwrapped(out, text[0].upper() + text[1:], "yellow")
    else:
        _print_unwrapped(out, *await _describe_upstream(connections))
    if first_key is not None:
        out.print()
        shown = Text.assemble("Your first key, shown this once: ", (first_key, "bold green"))
        out.print(shown, soft_wrap=True)
        _print_unwrapped(out, f"The admin key is in {Path(settings.data_dir) / 'admin.key'}.")
        if (left := Path(settings.data_dir) / SANDBOX_FOLDER).exists():
            text = f"What the sandbox left stays apart in {left}; its keys do not work here."
            _print_unwrapped(out, text)
    # Double quotes, so that the shell fills the variable in.
    key = first_key or "$SOPHIA_API_KEY"
    curl = (
        f'  curl -s {base}/chat/completions -H "Authorization: Bearer {key}" '
        f"-H 'Content-Type: application/json' -d '{_SAMPLE_BODY}'"
    )
    _print_unwrapped(out, "Try it:")
    _print_unwrapped(out, curl)
    if first_key is None:
        _print_unwrapped(out, "Keys: sophia keys list; another: sophia keys create --name NAME")


def _print_unwrapped(out: Console, text: str, style: str = "") -> None:
    """Print a line that can be copied, however narrow the terminal is."""
    out.print(Text(text, style=style), soft_wrap=True)


async def _describe_upstream(connections: Connections) -> tuple[str, str]:
    """Return a line on the catalogue's upstream and whether it takes the key, with its style."""
    upstream = connections.by_model.default
    try:
        async with asyncio.timeout(_KEY_CHECK_S):
            await upstream.get("/key" if upstream.can_fetch_usage else "/models")
    except UpstreamFailure as failure:
        if failure.status in (401, 403):
            text = f"{upstream.name} refuses the key; `sophia doctor` says more."
            return text, "bold red"
        return f"{upstream.name} cannot be reached: {failure}", "yellow"
    except TimeoutError:
        return f"{upstream.name} does not answer yet.", "yellow"
    return f"Models are asked through {upstream.name}, which takes the key.", ""
