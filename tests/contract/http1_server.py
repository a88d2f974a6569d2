"""Raw servers on loopback that play a script, and the calls that most tests of the client make."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from sophia.adapters.upstreams.http1.origin import HttpOrigin, PoolLimits
from sophia.adapters.upstreams.http1.pool import ConnectionPool
from sophia.core.calls import Deadlines
from sophia.core.failures import UpstreamFailure

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PATIENT = Deadlines(connect=5, content=5, stall=5, total=10)
LIMIT = 64 * 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """A raw server that plays a script on each connection and counts them."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.accepted = asyncio.Event()
        self.ended = asyncio.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.accepted.set()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._script(reader, writer)
            if not writer.is_closing():
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except RuntimeError:
            # uvloop's error for a write to a closed transport.
            assert writer.is_closing()
        finally:
            self._tasks.discard(task)
            self.ended.set()
            writer.transport.abort()

    async def stop(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def origin(self) -> HttpOrigin:
        return HttpOrigin.parse(f"http://127.0.0.1:{self.port}/v1")


@asynccontextmanager
async def serving(script: Script, **options: object) -> AsyncIterator[Server]:
    server = Server(script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, **options)  # type: ignore[arg-type]
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.stop()


@asynccontextmanager
async def pooled(server: Server, limits: PoolLimits | None = None) -> AsyncIterator[ConnectionPool]:
    loop, errors = asyncio.get_running_loop(), list[object]()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    pool = ConnectionPool(server.origin(), limits=limits or PoolLimits())
    try:
        yield pool
    finally:
        await pool.close()
    assert not errors, errors


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    size = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            size = int(line.partition(b":")[2])
    return head, await reader.readexactly(size)


def answering(*answers: bytes, close: bool = False) -> Script:
    """Answer the requests of each connection with `answers` in turn."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await read_request(reader)
            writer.write(answer)
        await writer.drain()
        if close:
            writer.close()

    return script


async def post(pool: ConnectionPool, body: bytes = b"{}", deadlines: Deadlines = PATIENT) -> bytes:
    answer = await pool.send(b"POST", b"/chat", body, deadlines)
    return await answer.body(LIMIT)


async def failing(work: Awaitable[object]) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await work
    return caught.value
