"""The server: uvicorn with our protocol, and its readiness."""

import asyncio
import signal
import socket
from types import FrameType

import uvicorn

from sophia.http.app import App
from sophia.http.asgi import AsgiApp
from sophia.http.connection import KEEP_ALIVE_SECONDS, cut_late_connections
from sophia.http.native import build_protocol_class
from sophia.http.routes import Router


class Server(uvicorn.Server):
    """A uvicorn server that stops being ready as soon as it is asked to stop."""

    def __init__(self, app: App, host: str, port: int, drain_s: float) -> None:
        router = Router()
        super().__init__(
            uvicorn.Config(
                AsgiApp(app, router),
                host=host,
                port=port,
                http=build_protocol_class(app, router),
                loop="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=int(drain_s),
            )
        )
        app.not_ready_reason = self._not_ready_reason

    async def on_tick(self, counter: int) -> bool:
        """Run uvicorn's tick, ten a second, and cut connections that are late every second."""
        if counter % 10 == 0:
            cut_late_connections(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    def bind(self) -> socket.socket:
        """Return a socket bound to the address. Raises OSError when it is in use."""
        family = socket.AF_INET6 if ":" in self.config.host else socket.AF_INET
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((self.config.host, self.config.port))
        except OSError:
            bound.close()
            raise
        return bound

    async def wait_until_listening(self) -> int:
        """Wait until the server listens; return the port, chosen by the system if it was 0."""
        while not self.started:
            await asyncio.sleep(0.01)
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop the server; a second Ctrl-C does not wait for running requests.

        The signal is not passed on: uvicorn would raise it again once the server is down and end
        the process while outcomes and lessons wait to be written.
        """
        self.force_exit = self.force_exit or (self.should_exit and sig == signal.SIGINT)
        self.should_exit = True

    def _not_ready_reason(self) -> str:
        if self.should_exit:
            return "Sophia is shutting down."
        return "" if self.started else "Sophia is starting."
