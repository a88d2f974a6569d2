"""A client's connection, with bounds on what it sends and how long it takes to send and to read."""

import asyncio
import http
import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sophia.core.errors import (
    BadRequest,
    InternalError,
    RequestTimeout,
    SophiaError,
    TooManyConnections,
)
from sophia.http.app import App
from sophia.http.cors import allow_origin
from sophia.http.errors import render_error
from sophia.http.guard import MAX_FIELDS, MAX_HEAD_BYTES, build_size_error, expects_continue
from sophia.http.wire import Headers

log = logging.getLogger("sophia.http")

KEEP_ALIVE_SECONDS = 75
MIN_BODY_RATE = 16 * 1024
"""Bytes per second of a body that arrives in time, however long it is."""
_LINGER_SECONDS = 2.0
_PARTS = 10
"""Connections are checked in as many parts, one a tick."""
_SEND_BUFFER_BYTES = 256 * 1024
"""Bytes that the system may keep for a slow reader, instead of megabytes; beside them are those of
the transport, which stops a stream at 64 KiB."""
IDLE, HEAD, BODY, REFUSED = range(4)
"""Stages of a connection: between requests, within a head or a body, and after a refusal."""
_REASON_PHRASES = {status.value: status.phrase.encode() for status in http.HTTPStatus}


class BoundedConnection(HttpToolsProtocol):
    """A connection that is cut when a deadline of `check_deadlines` has passed.

    Subclasses set `stage`, and count in `body_bytes` what the body has so far and in `written` what
    was written of a stream.
    """

    sophia_app: ClassVar[App]
    addresses: ClassVar[Counter[str]]
    stage = IDLE
    part = 0
    body_bytes = 0
    written = 0
    idle_since = 0.0
    # Bytes of the latest segment that belong to the request in progress.
    segment_bytes = 0
    # Bytes of the head so far, or since the last byte of the body.
    framing_bytes = 0
    _seen_body_bytes = 0
    # Where the clock of a request started: which one it is, and its stage then.
    _timed_headers: Headers | None = None
    _timed_stage = IDLE
    _waiting_since = 0.0
    _read_bytes = 0
    _read_at = 0.0
    _address: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn narrows it
        super().connection_made(transport)
        self.headers = []
        self.part = len(self.connections) % _PARTS
        self.idle_since = self.loop.time()
        with suppress(OSError):
            # Refused where the client is gone already.
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        limit = self.sophia_app.server.max_connections_per_address
        if limit and self.client is not None:
            self._address = find_network(self.client[0])
            self.addresses[self._address] += 1
            if self.addresses[self._address] > limit:
                self.refuse(TooManyConnections())
                transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._address is not None:
            self.addresses[self._address] -= 1
            if not self.addresses[self._address]:
                del self.addresses[self._address]
            self._address = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; refuse what is not HTTP, or more than a request may have."""
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self.segment_bytes = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if self.stage != REFUSED:
                self.refuse(_find_cause(error))
        else:
            if self.stage != IDLE:
                self._wait_for_rest()

    def on_message_begin(self) -> None:
        """Start a request; its ASGI scope is built only when needed."""
        self.stage = HEAD
        self.url = b""
        self.headers: Headers = []
        self.body_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; a trailer too, which nothing reads."""
        self.headers.append((name.lower(), value))

    def is_answering(self) -> bool:
        """Return whether an answer is due or has begun, which an error must not interrupt."""
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def refuse(self, error: SophiaError) -> None:
        """Answer with an error and close the connection."""
        if self.stage == REFUSED:
            return
        if self.is_answering() or self.transport.is_closing():
            self.stage = REFUSED
            self.transport.abort()
            return
        if self.cycle is not None:
            self.cycle.response_complete = True
        headers, body = render_error(error, self.sophia_app.new_request_id())
        if origins := self.sophia_app.server.cors_origins:
            headers += allow_origin(origins, self.headers)
        length = b"content-length: %d\r\n" % len(body)
        head = render_head(error.status, headers, length, keep_alive=False)
        is_head = self.stage == BODY and self.parser.get_method() == b"HEAD"
        self.transport.write(head if is_head else head + body)
        self.linger()

    def linger(self) -> None:
        """Close the connection after a moment in which what the client still sends is ignored.

        Closed at once, the client might see a reset before it has read the answer.
        """
        self.stage, self._waiting_since = REFUSED, self.loop.time()
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.transport.can_write_eof():
                self.transport.write_eof()

    def pass_to_asgi(self) -> None:
        """Let uvicorn queue the request, which `asgi.py` checks when its turn comes."""
        target, headers = self.url, self.headers
        super().on_message_begin()
        self.url = target
        self.headers.extend(headers)
        self.expect_100_continue = expects_continue(dict(headers), self.parser.get_http_version())
        super().on_headers_complete()
        self.headers = []

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse the request again without its Upgrade header (RFC 9110, section 7.8).

        The parser takes all that follows the head for another protocol, the body included.
        """
        request = self.parser.get_method(), self.url, self.parser.get_http_version().encode()
        fields = [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"%b %b HTTP/%b\r\n%b\r\n%b" % (*request, b"".join(fields), rest))

    def on_response_complete(self) -> None:
        """Go on after an answer that was given through ASGI."""
        self.idle_since = self.loop.time()
        super().on_response_complete()

    def _wait_for_rest(self) -> None:
        """Count and time a request that is incomplete after a segment."""
        if self.stage == REFUSED:
            return
        if self._timed_headers is not self.headers:
            self._timed_headers, self._timed_stage = self.headers, IDLE
            self.framing_bytes = self._seen_body_bytes = 0
        self.framing_bytes += self.segment_bytes
        if self.body_bytes != self._seen_body_bytes:
            self._seen_body_bytes, self.framing_bytes = self.body_bytes, 0
        if self.framing_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_FIELDS:
            self.refuse(build_size_error())
        elif self._timed_stage != self.stage:
            self._timed_stage, self._waiting_since = self.stage, self.loop.time()

    def check_deadlines(self, now: float) -> str:
        """Cut the connection if a deadline has passed; return the name of its setting, or ""."""
        server, waited = self.sophia_app.server, now - self._waiting_since
        if self._leaves_unread(now, server.write_s):
            self.transport.abort()
            return "write_s"
        if self.stage == IDLE:
            return self._check_idle(now - self.idle_since)
        if self.stage == REFUSED:
            if waited > _LINGER_SECONDS:
                self.transport.abort()
        elif self.flow.read_paused or (self.stage == HEAD and self.is_answering()):
            # The client waits for Sophia.
            self._waiting_since = now
        elif self.stage == HEAD and waited > server.head_s:
            self.refuse(_build_timeout("head", "head_s"))
            return "head_s"
        elif self.stage == BODY and waited > server.body_s + self.body_bytes / MIN_BODY_RATE:
            self.refuse(_build_timeout("body", "body_s"))
            return "body_s"
        return ""

    def _check_idle(self, idle: float) -> str:
        if self.cycle is None and idle > self.sophia_app.server.head_s:
            # Without a word: an error would be taken for the answer to a request on its way.
            self.transport.close()
            return "head_s"
        if idle > KEEP_ALIVE_SECONDS and not self.is_answering():
            self.transport.close()
        return ""

    def _leaves_unread(self, now: float, seconds: float) -> bool:
        """Return whether the client has read nothing of what waits for it in the last `seconds`."""
        unsent = self.transport.get_write_buffer_size()
        read = self.written - unsent
        if not unsent or read != self._read_bytes:
            self._read_bytes, self._read_at = read, now
            return False
        return now - self._read_at > seconds


def find_network(address: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 one, which is one subscriber's."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def render_head(status: int, headers: bytes, framing: bytes, *, keep_alive: bool) -> bytes:
    """Return the head of an answer; `headers` and `framing` are complete header lines."""
    reason = _REASON_PHRASES.get(status, b"")
    close = b"" if keep_alive else b"connection: close\r\n"
    return b"HTTP/1.1 %d %b\r\n%b%b%b\r\n" % (status, reason, headers, close, framing)


def cut_late_connections(connections: Iterable[object], now: float, tick: int) -> None:
    """Cut the connections with a deadline that has passed, and log how many there were.

    Each tick checks another tenth of them, so that thousands delay no request.
    """
    part = tick % _PARTS
    due = [c for c in connections if isinstance(c, BoundedConnection) and c.part == part]
    cut = Counter(connection.check_deadlines(now) for connection in due)
    del cut[""]
    if cut:
        found = ", ".join(f"{count} by server.{name}" for name, count in sorted(cut.items()))
        log.info("cut connections that were too slow: %s", found)


def _build_timeout(part: str, setting: str) -> RequestTimeout:
    return RequestTimeout(
        f"The {part} of the request took too long (setting server.{setting}); send it faster."
    )


def _find_cause(error: httptools.HttpParserError) -> SophiaError:
    """Return the error that stopped the parser, or that the bytes are no HTTP."""
    cause = error.__context__
    if isinstance(cause, SophiaError):
        return cause
    if cause is None or isinstance(cause, httptools.HttpParserError):
        return BadRequest(f"The request is not valid HTTP/1.1: {error}.")
    log.error("request failed", exc_info=cause)
    return InternalError("Internal error; the log has the details.")
