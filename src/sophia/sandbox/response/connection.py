"""HTTP/1.1 for the sandbox: parses requests and writes bytes, valid or not."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http.client import responses
from typing import NoReturn, cast

import httptools
import msgspec

NOT_HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True, eq=False, kw_only=True)
class RecordedRequest:
    """One request as it arrived, with header names in lower case.

    `finished` means that the answer was written to its end, `aborted` that the client disconnected
    before. `model` is the one that answered.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    keep_alive: bool
    model: str | None = None
    finished: bool = False
    aborted: bool = False

    def json(self) -> dict[str, object]:
        """Return the decoded body."""
        return cast("dict[str, object]", msgspec.json.decode(self.body))


class ConnectionEnded(Exception):
    """The connection was ended on purpose; nothing more can be written to it."""


ServeRequest = Callable[["ConnectionWriter", RecordedRequest], Awaitable[None]]


class ServerConnection(asyncio.Protocol):
    """The connection of one client: parses requests and passes them to `serve` one by one."""

    def __init__(self, serve: ServeRequest, connections: set["ServerConnection"]) -> None:
        self._serve = serve
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._queue: asyncio.Queue[RecordedRequest] = asyncio.Queue()
        self.writable = asyncio.Event()
        self.writable.set()
        self.transport: asyncio.Transport
        self._task: asyncio.Task[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def connection_lost(self, _: Exception | None) -> None:
        self._connections.discard(self)
        self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.transport.close()
        except httptools.HttpParserError:
            self.transport.write(NOT_HTTP)
            self.transport.close()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        url = httptools.parse_url(self._url)
        self._queue.put_nowait(
            RecordedRequest(
                method=self._parser.get_method().decode(),
                path=url.path.decode(),
                query=(url.query or b"").decode(),
                headers=self._headers,
                body=bytes(self._body),
                keep_alive=self._parser.should_keep_alive(),
            )
        )

    def abort(self) -> None:
        """Reset the connection instead of closing it."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()

    async def _run(self) -> None:
        while not self.transport.is_closing():
            request = await self._queue.get()
            try:
                await self._serve(ConnectionWriter(self, request.keep_alive), request)
                request.finished = True
            except ConnectionEnded:
                return
            except asyncio.CancelledError:
                request.aborted = True
                raise
            except Exception:
                # A bug of the sandbox must not look like a model that is slow.
                self.abort()
                raise
            if not request.keep_alive:
                self.transport.close()


class ConnectionWriter:
    """Writes the answer to one request; `dribble` is a number of bytes to write at a time."""

    def __init__(self, connection: ServerConnection, keep_alive: bool) -> None:
        self._connection = connection
        self._transport = connection.transport
        self._keep_alive = keep_alive
        self.dribble: int | None = None

    async def send(self, data: bytes) -> None:
        """Write `data` as it is."""
        size = self.dribble or len(data) or 1
        for start in range(0, len(data), size):
            self._transport.write(data[start : start + size])
            await self._connection.writable.wait()
            await asyncio.sleep(0)

    async def send_response(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Write head and body; a Content-Length in `headers` may be wrong."""
        await self.send(self._head(status, {"Content-Length": str(len(body)), **headers}) + body)

    async def start_chunked(self, status: int, headers: Mapping[str, str]) -> None:
        """Write the head of a chunked answer."""
        await self.send(self._head(status, {"Transfer-Encoding": "chunked", **headers}))

    async def send_chunk(self, data: bytes) -> None:
        """Write one chunk of a chunked answer; an empty one ends it."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def close(self) -> NoReturn:
        """Close the connection, whatever was promised. Raises ConnectionEnded."""
        self._transport.close()
        raise ConnectionEnded

    async def reset(self) -> NoReturn:
        """Reset the connection, a moment after the last write. Raises ConnectionEnded."""
        await asyncio.sleep(0.005)
        self._connection.abort()
        raise ConnectionEnded

    async def half_close(self) -> None:
        """End the writing side and wait for the client to close.

        TLS has no such state: the connection is closed, which raises ConnectionEnded.
        """
        if not self._transport.can_write_eof():
            await self.close()
        self._transport.write_eof()
        await self.hang()

    async def hang(self) -> None:
        """Write nothing until the client disconnects."""
        await asyncio.Event().wait()

    def _head(self, status: int, headers: Mapping[str, str]) -> bytes:
        lines = [f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}"]
        lines += [f"{name}: {headers[name]}" for name in headers]
        if not self._keep_alive:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")
