"""The fast server: uvicorn's HTTP protocol with the data plane answered inside it.

A request on an idle connection is answered here, without building an ASGI scope. Everything else
(pipelined requests, `Expect: 100-continue`, upgrades) goes through `asgi.py` to the same handlers.
Uses internals of uvicorn, hence the pin.
"""

import asyncio
import http
from collections.abc import Collection
from typing import Any, ClassVar

import httptools
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sophia.core.errors import BadRequest, SophiaError
from sophia.http.app import App, run_handler
from sophia.http.errors import render_error
from sophia.http.routes import Router
from sophia.http.wire import Headers, HttpRequest

_REASON_PHRASES = {status.value: status.phrase.encode() for status in http.HTTPStatus}


class _RequestCycle(Struct, kw_only=True, eq=False):
    """One request and its response writer, with the attributes that uvicorn's protocol reads."""

    # uvicorn sets it; nothing waits for it.
    message_event: ClassVar = asyncio.Event()
    protocol: "NativeProtocol"
    incoming: HttpRequest
    keep_alive: bool
    chunked: bool
    body: list[bytes] = []
    size: int = 0
    started: bool = False
    response_complete: bool = False
    disconnected: bool = False
    task: asyncio.Task[None] | None = None

    async def send(self, status: int, headers: bytes, body: bytes) -> None:
        protocol = self.protocol
        if self.started or self.response_complete:
            # The head of another answer has been sent: the connection can only be aborted.
            protocol.transport.abort()
            return
        length = b"content-length: %d\r\n" % len(body)
        head = _render_head(status, headers, length, keep_alive=self.keep_alive)
        protocol.transport.write(head if self.incoming.method == b"HEAD" else head + body)
        protocol.finish_cycle(self)

    async def begin(self, status: int, headers: bytes) -> None:
        self.started = True
        framing = b"transfer-encoding: chunked\r\n" if self.chunked else b""
        head = _render_head(status, headers, framing, keep_alive=self.keep_alive)
        self.protocol.transport.write(head)

    async def write(self, data: bytes) -> None:
        protocol = self.protocol
        framed = b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data
        protocol.transport.write(framed)
        if protocol.flow.write_paused:
            await protocol.flow.drain()

    async def end(self) -> None:
        if self.chunked:
            self.protocol.transport.write(b"0\r\n\r\n")
        self.protocol.finish_cycle(self)


class NativeProtocol(HttpToolsProtocol):
    """Protocol that serves the routes of `router`; subclassed by `build_protocol_class`."""

    sophia_app: ClassVar[App]
    router: ClassVar[Router]
    idle_since: float = 0.0
    active_cycle: _RequestCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn narrows it
        super().connection_made(transport)
        self.idle_since = self.loop.time()

    def on_message_begin(self) -> None:
        """Start a request; its ASGI scope is built only when needed."""
        self.url = b""
        self.expect_100_continue = False
        self.headers: Headers = []

    def on_headers_complete(self) -> None:
        """Take the request over, or pass it to ASGI."""
        current: Any = self.cycle
        idle = current is None or current.response_complete
        if not idle or self.expect_100_continue or self.parser.should_upgrade():
            target, headers, expects = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = target, expects
            self.headers.extend(headers)
            super().on_headers_complete()
            return
        path, query = self.router.static_paths.get(self.url), b""
        if path is None:
            url = httptools.parse_url(self.url)
            path, query = (url.path or b"/").decode("ascii", "replace"), url.query or b""
        incoming = HttpRequest(
            method=self.parser.get_method(), path=path, query=query, headers=self.headers
        )
        chunked = self.parser.get_http_version() == "1.1"
        # While Sophia stops, clients are to come back elsewhere.
        stays = not self.sophia_app.not_ready_reason()
        keep_alive = chunked and self.parser.should_keep_alive() and stays
        self.cycle = _RequestCycle(  # type: ignore[assignment] # has what uvicorn reads
            protocol=self, incoming=incoming, keep_alive=keep_alive, chunked=chunked
        )

    def on_body(self, body: bytes) -> None:
        """Collect the body; refuse one that is too long before all of it has arrived."""
        cycle: Any = self.cycle
        if type(cycle) is not _RequestCycle:
            super().on_body(body)
        elif not cycle.response_complete:
            cycle.body.append(body)
            cycle.size += len(body)
            if cycle.size > self.sophia_app.max_body_bytes:
                cycle.response_complete = True
                cycle.body = []
                self._refuse(self.sophia_app.body_too_large())

    def on_message_complete(self) -> None:
        """Answer the request in a task of its own."""
        cycle: Any = self.cycle
        if type(cycle) is not _RequestCycle:
            super().on_message_complete()
        elif not cycle.response_complete:
            cycle.incoming.body = cycle.body[0] if len(cycle.body) == 1 else b"".join(cycle.body)
            cycle.body = []
            self.active_cycle = cycle
            task = cycle.task = self.loop.create_task(self._run_cycle(cycle))
            self.tasks.add(task)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request of a client that is gone; settlement does not depend on the task."""
        cycle = self.active_cycle
        if cycle is not None and not cycle.response_complete and cycle.task is not None:
            cycle.task.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End an idle connection and one whose request has not arrived; others after the answer."""
        cycle: Any = self.cycle
        if type(cycle) is not _RequestCycle or cycle.response_complete or cycle.task is not None:
            super().shutdown()
            # A request of the ASGI server of which a part is missing.
            if not self.transport.is_closing() and getattr(cycle, "more_body", False):
                self.transport.close()
        else:
            cycle.response_complete = True
            self._refuse(self.sophia_app.shutting_down())

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are no HTTP request."""
        self._refuse(BadRequest(f"{msg} The request is not valid HTTP/1.1."))

    def _refuse(self, error: SophiaError) -> None:
        headers, body = render_error(error, self.sophia_app.new_request_id())
        length = b"content-length: %d\r\n" % len(body)
        self.transport.write(_render_head(error.status, headers, length, keep_alive=False) + body)
        self.transport.close()

    async def _run_cycle(self, cycle: _RequestCycle) -> None:
        try:
            await run_handler(self.sophia_app, self.router.find, cycle.incoming, cycle)
        finally:
            if cycle.task is not None:
                self.tasks.discard(cycle.task)
            # However the handler ended: an incomplete answer must not look complete.
            if not cycle.response_complete:
                cycle.response_complete = True
                self.transport.abort()

    def finish_cycle(self, cycle: _RequestCycle) -> None:
        """Keep the connection for the next request after a complete answer, or close it."""
        cycle.response_complete = True
        self.server_state.total_requests += 1
        if cycle.keep_alive:
            # No timer per answer: `close_idle_connections` closes connections that stay idle.
            self.idle_since = self.loop.time()
            self.flow.resume_reading()
        else:
            self.transport.close()
        if self.pipeline:
            self.on_response_complete()


def _render_head(status: int, headers: bytes, framing: bytes, *, keep_alive: bool) -> bytes:
    reason = _REASON_PHRASES.get(status, b"")
    close = b"" if keep_alive else b"connection: close\r\n"
    return b"HTTP/1.1 %d %b\r\n%b%b%b\r\n" % (status, reason, headers, close, framing)


def close_idle_connections(connections: Collection[object], seconds: float, now: float) -> None:
    """Close connections that have been idle for more than `seconds`."""
    for connection in list(connections):
        if isinstance(connection, NativeProtocol):
            cycle: Any = connection.cycle
            idle = cycle is None or (type(cycle) is _RequestCycle and cycle.response_complete)
            if idle and now - connection.idle_since > seconds:
                connection.transport.close()


def build_protocol_class(app: App, router: Router) -> type[NativeProtocol]:
    """Return the protocol class that uvicorn instantiates for each connection."""
    return type("Protocol", (NativeProtocol,), {"sophia_app": app, "router": router})
