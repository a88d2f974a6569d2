"""The fast server: uvicorn's HTTP protocol with the data plane answered inside it.

A request on an idle connection is answered here, without building an ASGI scope. Pipelined requests
go through `asgi.py` to the same handlers. Uses internals of uvicorn, hence the pin.
"""

import asyncio
from collections import Counter
from typing import Any, ClassVar

from msgspec import Struct

from sophia.http.app import App, Route, run_handler
from sophia.http.connection import BODY, IDLE, BoundedConnection, render_head
from sophia.http.guard import (
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    build_body_error,
    check_framing,
    check_host,
    check_size,
    expects_continue,
    split_target,
)
from sophia.http.routes import PROBES, Router
from sophia.http.wire import HttpRequest

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _RequestCycle(Struct, kw_only=True, eq=False):
    """One request and its response writer, with the attributes that uvicorn's protocol reads."""

    # uvicorn sets it; nothing waits for it.
    message_event: ClassVar = asyncio.Event()
    protocol: "NativeProtocol"
    incoming: HttpRequest
    route: Route
    keep_alive: bool
    chunked: bool
    is_received: bool = False
    receiving: asyncio.Future[bytes] | None = None
    body: list[bytes] = []
    started: bool = False
    response_complete: bool = False
    disconnected: bool = False
    task: asyncio.Task[None] | None = None

    async def receive(self) -> bytes:
        """Return the body once it has arrived."""
        protocol, receiving = self.protocol, self.receiving
        assert receiving is not None, "only a body that waited is received"
        if protocol.expect_100_continue:
            protocol.transport.write(_CONTINUE)
        protocol.flow.resume_reading()
        return await receiving

    async def send(self, status: int, headers: bytes, body: bytes) -> None:
        protocol = self.protocol
        if self.started or self.response_complete:
            # The head of another answer has been sent: the connection can only be aborted.
            protocol.transport.abort()
            return
        length = b"content-length: %d\r\n" % len(body)
        keep_alive = self.keep_alive and self.is_received
        head = render_head(status, headers, length, keep_alive=keep_alive)
        protocol.transport.write(head if self.incoming.method == b"HEAD" else head + body)
        protocol.finish_cycle(self)

    async def begin(self, status: int, headers: bytes) -> None:
        self.started = True
        framing = b"transfer-encoding: chunked\r\n" if self.chunked else b""
        head = render_head(status, headers, framing, keep_alive=self.keep_alive)
        self.protocol.transport.write(head)

    async def write(self, data: bytes) -> None:
        protocol = self.protocol
        framed = b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data
        protocol.written += len(framed)
        protocol.transport.write(framed)
        if protocol.flow.write_paused:
            # The transport has what the client has not read: one copy is enough.
            del data, framed
            await protocol.flow.drain()

    async def end(self) -> None:
        if self.chunked:
            self.protocol.transport.write(b"0\r\n\r\n")
        self.protocol.finish_cycle(self)


class NativeProtocol(BoundedConnection):
    """Protocol that serves the routes of `router`; subclassed by `build_protocol_class`."""

    router: ClassVar[Router]
    active_cycle: _RequestCycle | None = None
    # The last Host that was found to be valid and served here, whatever the route.
    known_host: bytes | None = None

    def on_headers_complete(self) -> None:
        """Check a head and its key, and take the request over or pass it to ASGI.

        Raises SophiaError, which ends the connection before anything of a body is kept.
        """
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            # The request comes again without its upgrade.
            return
        self.stage = BODY
        current: Any = self.cycle
        if current is not None and not current.response_complete:
            self.pass_to_asgi()
            return
        version = self.parser.get_http_version()
        incoming = self._read_head(version)
        is_current = version == "1.1"
        cycle = _RequestCycle(
            protocol=self,
            incoming=incoming,
            route=self.router.find(incoming.method, incoming.path),
            # While Sophia stops, clients are to come back elsewhere.
            keep_alive=is_current
            and self.parser.should_keep_alive()
            and not self.sophia_app.is_stopping(),
            chunked=is_current,
        )
        if cycle.route.needs_key and not self.sophia_app.identify(incoming):
            # The body waits until the key has been found among those created a moment ago.
            self.flow.pause_reading()
            cycle.receiving = self.loop.create_future()
            self._answer(cycle)
        elif self.expect_100_continue:
            self.transport.write(_CONTINUE)
        self.cycle = cycle  # type: ignore[assignment] # has what uvicorn reads

    def _read_head(self, version: str) -> HttpRequest:
        """Return the request without its body. Raises SophiaError."""
        server = self.sophia_app.server
        # Trailers will be added to the other list.
        headers = self.headers.copy()
        fields = dict(headers)
        if len(headers) > MAX_FIELDS or self.framing_bytes + self.segment_bytes > MAX_HEAD_BYTES:
            check_size(self.url, headers)
        check_framing(headers, fields, version, server.max_body_bytes)
        path, query = self.router.static_paths.get(self.url), b""
        if path is None:
            named, path, query = split_target(self.url, self.router.id_stems)
            if named is not None:
                check_host(named, version, server.allowed_hosts)
        host = fields.get(b"host")
        if host is None or host != self.known_host:
            is_probe = path in PROBES
            check_host(host, version, () if is_probe else server.allowed_hosts)
            self.known_host = None if is_probe else host
        self.expect_100_continue = b"expect" in fields and expects_continue(fields, version)
        return HttpRequest(
            method=self.parser.get_method(), path=path, query=query, headers=headers, fields=fields
        )

    def on_body(self, body: bytes) -> None:
        """Collect the body; refuse one that is too long before all of it has arrived."""
        cycle: Any = self.cycle
        self.body_bytes += len(body)
        if type(cycle) is not _RequestCycle:
            super().on_body(body)
        elif self.body_bytes > self.sophia_app.server.max_body_bytes:
            cycle.body = []
            raise build_body_error(self.sophia_app.server.max_body_bytes)
        elif cycle.route.needs_key:
            cycle.body.append(body)

    def on_message_complete(self) -> None:
        """Answer the request in a task of its own."""
        if self.stage != BODY:
            return
        self.stage = IDLE
        self.segment_bytes = 0
        cycle: Any = self.cycle
        if type(cycle) is not _RequestCycle:
            super().on_message_complete()
            return
        cycle.is_received = True
        cycle.incoming.body = cycle.body[0] if len(cycle.body) == 1 else b"".join(cycle.body)
        cycle.body = []
        if cycle.receiving is None:
            self._answer(cycle)
        elif not cycle.receiving.done():
            cycle.receiving.set_result(cycle.incoming.body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request of a client that is gone; settlement does not depend on the task."""
        cycle = self.active_cycle
        is_done = cycle is None or (cycle.response_complete and cycle.is_received)
        if cycle is not None and cycle.task is not None and not is_done:
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
            self.refuse(self.sophia_app.shutting_down())
            self.transport.close()

    def is_answering(self) -> bool:
        """Return whether an answer is due or has begun, which an error must not interrupt."""
        cycle: Any = self.cycle
        if type(cycle) is _RequestCycle and not cycle.is_received:
            return False
        return super().is_answering()

    def _answer(self, cycle: _RequestCycle) -> None:
        self.active_cycle = cycle
        cycle.task = self.loop.create_task(self._run_cycle(cycle))
        self.tasks.add(cycle.task)

    async def _run_cycle(self, cycle: _RequestCycle) -> None:
        try:
            if self.flow.write_paused:
                # The client has not read the answers before.
                await self.flow.drain()
            receive = None if cycle.receiving is None else cycle.receive
            await run_handler(self.sophia_app, cycle.route, cycle.incoming, cycle, receive)
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
        if not cycle.is_received:
            self.linger()
        elif cycle.keep_alive:
            # No timer per answer: `cut_late_connections` closes connections that stay idle.
            self.idle_since = self.loop.time()
            self.flow.resume_reading()
        else:
            self.transport.close()
        if self.pipeline:
            self.on_response_complete()


def build_protocol_class(app: App, router: Router) -> type[NativeProtocol]:
    """Return the protocol class that uvicorn instantiates for each connection."""
    members = {"sophia_app": app, "router": router, "addresses": Counter()}
    return type("Protocol", (NativeProtocol,), members)
