"""The server: uvicorn with our protocol, its readiness, and how it stops."""

import asyncio
import itertools
import math
import signal
import socket
from types import FrameType

import uvicorn

from sophia.config import ServerSettings
from sophia.http.app import App
from sophia.http.asgi import AsgiApp
from sophia.http.connection import KEEP_ALIVE_SECONDS, cut_late_connections
from sophia.http.native import build_protocol_class
from sophia.http.routes import Router

_INTERRUPT_SECONDS = 1.0
"""Time that interrupted requests get to send their error."""
_LEAVE_SECONDS = 5.0
"""Time that idle connections get to be used once more, and closed with the answer."""


class Server(uvicorn.Server):
    """A uvicorn server that is not ready as soon as it is asked to stop, and loses no request.

    It lingers after SIGTERM, when it serves as before; then it refuses new requests and lets
    running ones finish; those that take too long end with an error. One that leaves, because
    another process goes on, takes no new connections and waits for its requests without end.
    """

    def __init__(self, app: App, settings: ServerSettings) -> None:
        router = Router()
        super().__init__(
            uvicorn.Config(
                AsgiApp(app, router),
                host=settings.host,
                port=settings.port,
                http=build_protocol_class(app, router),
                loop="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self._app = app
        self._settings = settings
        self._stops_at: float | None = None
        self._drain_end = math.inf
        self._leaves = False
        app.not_ready_reason = self._not_ready_reason
        app.is_stopping = lambda: self._stops_at is not None

    async def on_tick(self, counter: int) -> bool:
        """Run uvicorn's tick, ten a second, and cut the late among a tenth of the connections."""
        cut_late_connections(self.server_state.connections, self._now(), counter)
        if self._stops_at is not None and self._now() >= self._stops_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def bind(self) -> socket.socket:
        """Return a socket bound to the address. Raises OSError when it is in use."""
        return bind_listener(self._settings.host, self._settings.port)

    async def wait_until_listening(self) -> int:
        """Wait until the server listens; return the port, chosen by the system if it was 0."""
        while not self.started:
            await asyncio.sleep(0.01)
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop the server, after SIGTERM in a while; a second signal waits for no request.

        The signal is not passed on: uvicorn would raise it again once the server is down and end
        the process while outcomes and lessons wait to be written.
        """
        if self._leaves:
            self._leaves = False
            self._drain_end = self._now() + self._settings.drain_s
            return
        self.force_exit = self._stops_at is not None
        lingers = sig == signal.SIGTERM and not self.force_exit
        self._stops_at = self._now() + (self._settings.linger_s if lingers else 0.0)

    def leave(self) -> None:
        """Take no new connections, and stop when all requests have ended."""
        if self._stops_at is None:
            self._leaves = True
            for listener in self.servers:
                listener.close()
            self._stops_at = self._now() + _LEAVE_SECONDS

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, and end every request: by itself, or with an error."""
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for connection in tuple(self.server_state.connections):
            connection.shutdown()
        if not self._leaves:
            self._drain_end = self._now() + self._settings.drain_s
        for tick in itertools.count():
            if not self._is_busy() or self.force_exit or self._now() >= self._drain_end:
                break
            cut_late_connections(self.server_state.connections, self._now(), tick)
            await asyncio.sleep(0.02)
        self._app.runtime.interrupted = True
        # Before the requests that wait for them, which then have an answer to send.
        await self._app.idempotent_answers.close()
        await asyncio.sleep(0.02)
        # The second time those whose callers do not read the error.
        for _ in range(2):
            for task in tuple(self.server_state.tasks):
                task.cancel()
            end = self._now() + _INTERRUPT_SECONDS
            while self._is_busy() and self._now() < end:
                await asyncio.sleep(0.02)
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()

    def _is_busy(self) -> bool:
        return bool(self.server_state.tasks or self.server_state.connections)

    def _now(self) -> float:
        return self._app.runtime.ledger.clock.monotonic()

    def _not_ready_reason(self) -> str:
        if self._stops_at is not None and not self._leaves:
            return "Sophia is shutting down."
        return "" if self.started else "Sophia is starting."


def bind_listener(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket bound to an address, which `shared` ones may have together.

    Raises OSError when it is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    # With both, or the last connections would keep the port for a minute after the end.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
