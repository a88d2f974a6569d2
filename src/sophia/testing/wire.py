"""HTTP/1.1 for the sandbox: requests in, bytes out, as well or as badly as a script wants."""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

import httptools
import msgspec

NOT_HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True, eq=False)
class Seen:
    """One request as it arrived; header names are in lower case.

    `finished` turns true when the answer was written to its end, `aborted` when the client left
    before that. `model` is the one that answered.
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


class Ended(Exception):
    """The connection is gone on purpose; there is nothing more to say on it."""


Serve = Callable[["Wire", Seen], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One client's connection: parses requests and hands them to `serve` one after the other."""

    def __init__(self, serve: Serve, connections: set["Connection"]) -> None:
        self._serve = serve
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._queue: asyncio.Queue[Seen] = asyncio.Queue()
        self._writable = asyncio.Event()
        self._writable.set()
        self._draft = _Draft()
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
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def on_url(self, url: bytes) -> None:
        self._draft.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._draft.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._draft.headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._draft.body += body

    def on_message_complete(self) -> None:
        draft, self._draft = self._draft, _Draft()
        url = httptools.parse_url(bytes(draft.url))
        self._queue.put_nowait(
            Seen(
                method=self._parser.get_method().decode(),
                path=url.path.decode(),
                query=(url.query or b"").decode(),
                headers=draft.headers,
                body=bytes(draft.body),
                keep_alive=self._parser.should_keep_alive(),
            )
        )

    async def drain(self) -> None:
        """Wait until the client has read enough of what was written."""
        await self._writable.wait()

    def abort(self) -> None:
        """Reset the connection instead of closing it."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()

    async def _run(self) -> None:
        while not self.transport.is_closing():
            seen = await self._queue.get()
            try:
                await self._serve(Wire(self, seen), seen)
                seen.finished = True
            except Ended:
                return
            except asyncio.CancelledError:
                seen.aborted = True
                raise
            except Exception:
                # A mistake of the sandbox must not look like a model that is slow.
                self.abort()
                raise
            if not seen.keep_alive:
                self.transport.close()


@dataclass(slots=True)
class _Draft:
    url: bytearray = field(default_factory=bytearray)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)


class Wire:
    """Writes the answer to one request. Times are in seconds."""

    def __init__(self, connection: Connection, seen: Seen) -> None:
        self._connection = connection
        self._transport = connection.transport
        self._seen = seen
        self.dribble: int | None = None

    async def send(self, data: bytes) -> None:
        """Write `data` as it is, `dribble` bytes at a time when that is set."""
        size = self.dribble or len(data) or 1
        for start in range(0, len(data), size):
            self._transport.write(data[start : start + size])
            await self._connection.drain()
            await asyncio.sleep(0)

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Write a whole answer."""
        await self.send(self._head(status, {"Content-Length": str(len(body)), **headers}) + body)

    async def partial(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Write a head and a part of the body; `headers` say how long it should have been."""
        await self.send(self._head(status, headers) + body)

    async def open(self, status: int, headers: Mapping[str, str]) -> None:
        """Write the head of a chunked answer."""
        await self.send(self._head(status, {"Transfer-Encoding": "chunked", **headers}))

    async def chunk(self, data: bytes) -> None:
        """Write one chunk of a chunked answer."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        """Write the end of a chunked answer."""
        await self.send(b"0\r\n\r\n")

    async def cut(self) -> None:
        """Close the connection, whatever was promised.

        Raises:
            Ended: always.
        """
        self._transport.close()
        raise Ended

    async def reset(self) -> None:
        """Reset the connection once the client had a chance to read what was sent before.

        Raises:
            Ended: always.
        """
        await asyncio.sleep(0.005)
        self._connection.abort()
        raise Ended

    async def half_close(self) -> None:
        """Write no more and wait for the client to close; TLS has no such state, and cuts.

        Raises:
            Ended: always, for TLS.
        """
        if not self._transport.can_write_eof():
            await self.cut()
        self._transport.write_eof()
        await self.hang()

    async def hang(self) -> None:
        """Say nothing until the client leaves."""
        await asyncio.Event().wait()

    def _head(self, status: int, headers: Mapping[str, str]) -> bytes:
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [
            f"HTTP/1.1 {status} {phrase}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        if not self._seen.keep_alive:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def listen(
    serve: Serve, connections: set[Connection], host: str, port: int, tls: ssl.SSLContext | None
) -> asyncio.Server:
    """Start to serve; port 0 takes a free one.

    Raises:
        OSError: the port is taken.
    """
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(serve, connections), host, port, ssl=tls)
