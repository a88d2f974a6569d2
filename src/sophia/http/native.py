"""The fast server: uvicorn's HTTP protocol with the data plane answered inside it.

A request whose head and body came whole on an idle connection is answered here, without building
an ASGI scope; everything else (pipelined requests, `Expect: 100-continue`, upgrades) goes the
ordinary way through `asgi.py`, to the same handlers. Uses internals of uvicorn, hence the pin.
"""

import asyncio
from collections.abc import Collection
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sophia.core.errors import BadRequest, BodyTooLarge
from sophia.core.ids import encode
from sophia.http.errors import error_reply
from sophia.http.front import Front, answer
from sophia.http.routes import Router
from sophia.http.wire import REASONS, Headers, Incoming

_CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
_CLOSING = b"connection: close\r\n"


class _NoEvent:
    """Stands where uvicorn expects an event that nobody waits for."""

    @staticmethod
    def set() -> None:
        """Do nothing."""


class _Cycle:
    """One request and the reply to it; has the attributes that uvicorn's protocol reads."""

    __slots__ = (
        "body",
        "chunked",
        "disconnected",
        "incoming",
        "keep_alive",
        "protocol",
        "response_complete",
        "size",
        "started",
        "task",
    )
    message_event = _NoEvent

    def __init__(
        self, protocol: "NativeProtocol", incoming: Incoming, keep_alive: bool, chunked: bool
    ) -> None:
        self.protocol = protocol
        self.incoming = incoming
        self.keep_alive = keep_alive
        self.chunked = chunked
        self.body: list[bytes] = []
        self.size = 0
        self.started = False
        self.response_complete = False
        self.disconnected = False
        self.task: asyncio.Task[None] | None = None

    async def whole(self, status: int, headers: bytes, body: bytes) -> None:
        protocol = self.protocol
        if self.started or self.response_complete:
            # The head of another answer is out already: all that is left is to break off.
            protocol.transport.abort()
            return
        if not self.keep_alive:
            headers += _CLOSING
        if self.incoming.method == b"HEAD":
            length = b"content-length: %d\r\n" % len(body)
            protocol.transport.write(_head(status, headers + length))
        else:
            protocol.transport.write(_whole(status, headers, body))
        protocol.complete(self)

    async def begin(self, status: int, headers: bytes) -> None:
        self.started = True
        if not self.keep_alive:
            headers += _CLOSING
        head = _head(status, headers)
        self.protocol.transport.write(head[:-2] + _CHUNKED if self.chunked else head)

    async def write(self, data: bytes) -> None:
        protocol = self.protocol
        framed = b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data
        protocol.transport.write(framed)
        if protocol.flow.write_paused:
            await protocol.flow.drain()

    async def end(self) -> None:
        if self.chunked:
            self.protocol.transport.write(b"0\r\n\r\n")
        self.protocol.complete(self)


class NativeProtocol(HttpToolsProtocol):
    """Serves the routes of `router`; made by `protocol_class`."""

    front: ClassVar[Front]
    router: ClassVar[Router]
    idle_since: float = 0.0
    answering: _Cycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection."""
        super().connection_made(transport)
        self.idle_since = self.loop.time()

    def on_message_begin(self) -> None:
        """Start a request; the ASGI scope is built only if it is needed."""
        self.url = b""
        self.expect_100_continue = False
        self.headers: Headers = []

    def on_headers_complete(self) -> None:
        """Take the request over, or leave it to ASGI."""
        current: Any = self.cycle
        idle = current is None or current.response_complete
        if not idle or self.expect_100_continue or self.parser.should_upgrade():
            self._leave_to_asgi()
            return
        path, query = self.router.plain.get(self.url), b""
        if path is None:
            url = httptools.parse_url(self.url)
            path, query = (url.path or b"/").decode("ascii", "replace"), url.query or b""
        incoming = Incoming(self.parser.get_method(), path, query, self.headers, b"")
        modern = self.parser.get_http_version() == "1.1"
        lasting = modern and self.parser.should_keep_alive()
        self.cycle = _Cycle(self, incoming, lasting, modern)  # type: ignore[assignment] # has what uvicorn reads

    def _leave_to_asgi(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Collect the body; one that is too long is refused before it has come."""
        cycle: Any = self.cycle
        if type(cycle) is not _Cycle:
            super().on_body(body)
        elif not cycle.response_complete:
            cycle.body.append(body)
            cycle.size += len(body)
            if cycle.size > self.front.max_body_bytes:
                self._refuse_length(cycle)

    def on_message_complete(self) -> None:
        """Answer the request in a task of its own."""
        cycle: Any = self.cycle
        if type(cycle) is not _Cycle:
            super().on_message_complete()
        elif not cycle.response_complete:
            cycle.incoming.body = cycle.body[0] if len(cycle.body) == 1 else b"".join(cycle.body)
            cycle.body = []
            self.answering = cycle
            task = cycle.task = self.loop.create_task(self._answer(cycle))
            self.tasks.add(task)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: stop its request; settlement does not depend on the task."""
        cycle = self.answering
        if cycle is not None and not cycle.response_complete and cycle.task is not None:
            cycle.task.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Say in OpenAI's shape that the bytes were no HTTP request."""
        error = BadRequest(f"{msg} The bytes that came are not HTTP/1.1.")
        headers, body = error_reply(error, encode("req", self.front.ids.next()))
        self.transport.write(_whole(400, headers + _CLOSING, body))
        self.transport.close()

    async def _answer(self, cycle: _Cycle) -> None:
        try:
            await answer(self.front, self.router.find, cycle.incoming, cycle)
        finally:
            if cycle.task is not None:
                self.tasks.discard(cycle.task)
            # Whatever ended the handler: an answer that is not complete must not look complete.
            if not cycle.response_complete:
                cycle.response_complete = True
                self.transport.abort()

    def _refuse_length(self, cycle: _Cycle) -> None:
        limit = self.front.max_body_bytes
        error = BodyTooLarge(
            f"The request body is over {limit:,} bytes (setting server.max_body_bytes)."
        )
        headers, body = error_reply(error, encode("req", self.front.ids.next()))
        cycle.response_complete = True
        cycle.body = []
        self.transport.write(_whole(413, headers + _CLOSING, body))
        self.transport.close()

    def complete(self, cycle: _Cycle) -> None:
        """The answer is out: keep the connection for the next request, or close it."""
        cycle.response_complete = True
        self.server_state.total_requests += 1
        if cycle.keep_alive:
            # No timer per answer: `close_idle` finds what stays idle.
            self.idle_since = self.loop.time()
            self.flow.resume_reading()
        else:
            self.transport.close()
        if self.pipeline:
            self.on_response_complete()


def _head(status: int, headers: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, REASONS.get(status, b""), headers)


def _whole(status: int, headers: bytes, body: bytes) -> bytes:
    reason = REASONS.get(status, b"")
    return b"HTTP/1.1 %d %b\r\n%bcontent-length: %d\r\n\r\n%b" % (
        status, reason, headers, len(body), body
    )


def close_idle(connections: Collection[object], seconds: float, now: float) -> int:
    """Close the connections that have waited for a request for more than `seconds`; count them."""
    closed = 0
    for connection in list(connections):
        if not isinstance(connection, NativeProtocol):
            continue
        cycle: Any = connection.cycle
        resting = cycle is None or (type(cycle) is _Cycle and cycle.response_complete)
        if resting and now - connection.idle_since > seconds:
            connection.transport.close()
            closed += 1
    return closed


def protocol_class(front: Front, router: Router) -> type[NativeProtocol]:
    """Return the protocol that uvicorn makes for each connection."""
    return type("Protocol", (NativeProtocol,), {"front": front, "router": router})
