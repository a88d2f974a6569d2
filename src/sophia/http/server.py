"""The server: uvicorn with our protocol, and the moments at which it is ready."""

import asyncio
import signal
import socket
from types import FrameType

import uvicorn

from sophia.http.asgi import App
from sophia.http.front import Front
from sophia.http.native import close_idle, protocol_class
from sophia.http.routes import Router

_KEEP_ALIVE_SECONDS = 75
_TICKS_PER_SWEEP = 50


class Server(uvicorn.Server):
    """Says that it is not ready any more as soon as it is told to stop."""

    def __init__(self, front: Front, host: str, port: int, drain_s: float) -> None:
        router = Router()
        super().__init__(
            uvicorn.Config(
                App(front, router),
                host=host,
                port=port,
                http=protocol_class(front, router),
                loop="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=int(drain_s),
            )
        )
        front.ready = self._reason

    async def on_tick(self, counter: int) -> bool:
        """Do what uvicorn does ten times a second, and every five seconds close what is idle."""
        if counter % _TICKS_PER_SWEEP == 0:
            now = asyncio.get_running_loop().time()
            close_idle(self.server_state.connections, _KEEP_ALIVE_SECONDS, now)
        return await super().on_tick(counter)

    def bind(self) -> socket.socket:
        """Take the address. Raises OSError when somebody else has it."""
        family = socket.AF_INET6 if ":" in self.config.host else socket.AF_INET
        taken = socket.socket(family)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((self.config.host, self.config.port))
        except OSError:
            taken.close()
            raise
        return taken

    async def listening(self) -> int:
        """Wait until it listens; return the port, which the system chose if it was 0."""
        while not self.started:
            await asyncio.sleep(0.01)
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop for good; the second Ctrl-C waits for nobody's answer any more.

        uvicorn raises the signal again once the server is down, which would end the process while
        bills and lessons wait to be written. So it is not told which one it was.
        """
        self.force_exit = self.force_exit or (self.should_exit and sig == signal.SIGINT)
        self.should_exit = True

    def _reason(self) -> str:
        if self.should_exit:
            return "Sophia is shutting down."
        return "" if self.started else "Sophia is starting."
