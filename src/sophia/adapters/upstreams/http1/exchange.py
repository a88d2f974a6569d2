"""One connection and the response that arrives over it."""

import asyncio
import math
from collections.abc import Callable

import httptools

from sophia.adapters.upstreams.http1.heads import is_close_delimited
from sophia.adapters.upstreams.http1.origin import PoolLimits
from sophia.core.failures import FailureKind, UpstreamFailure

_UPLOAD_CHUNK_BYTES = 65536


class HttpResponse:
    """A response with a complete head: `status`, `headers` in their order, and a body to read.

    Only time in which the reader waits counts until the content: `waited` is all of it, in seconds.
    """

    __slots__ = (
        "_complete",
        "_connection",
        "_content_kind",
        "_content_s",
        "_failure",
        "_parts",
        "_size",
        "_waiter",
        "content_at",
        "headers",
        "loop",
        "outlives_reader",
        "status",
        "total_at",
        "waited",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, content_s: float, total_at: float) -> None:
        self.loop = loop
        self.content_at = math.inf
        self.total_at = total_at
        self.waited = 0.0
        self.outlives_reader = False
        self._content_s = content_s
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._content_kind = FailureKind.CONTENT_TIMEOUT
        self._connection: HttpConnection | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._failure: UpstreamFailure | None = None
        self._complete = False

    @property
    def is_complete(self) -> bool:
        """Whether its end has arrived."""
        return self._complete

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of the header `name`, a name in lower case."""
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None

    def expect_within(self, seconds: float, kind: FailureKind) -> None:
        """Fail with `kind` unless called again within `seconds` of waiting, to within 50 ms."""
        self._content_s = seconds
        self._content_kind = kind

    async def read(self) -> bytes | None:
        """Return all body bytes that have arrived, after the first; None at the clean end.

        Raises UpstreamFailure once the bytes before the failure have been read.
        """
        while not self._parts:
            if self._failure is not None:
                raise self._failure
            if self._complete:
                return None
            await self._wait()
        data = self._take_parts()
        if self._connection is not None:
            self._connection.resume_if_low(self._size)
        return data

    async def body(self, limit: int) -> bytes:
        """Return the whole body. Raises UpstreamFailure, TOO_LARGE past `limit` bytes."""
        if self._complete and self._size <= limit:
            return self._take_parts()
        parts: list[bytes] = []
        size = 0
        while (data := await self.read()) is not None:
            size += len(data)
            if size > limit:
                self.close()
                raise UpstreamFailure(
                    FailureKind.TOO_LARGE, f"The answer is longer than {limit} bytes."
                )
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        """Stop reading; an unfinished response closes its connection. Idempotent."""
        if self._connection is not None:
            self._connection.fail(FailureKind.CUT, "The answer was given up before its end.")
        if self._parts:
            self._take_parts()

    def _take_parts(self) -> bytes:
        parts, self._parts, self._size = self._parts, [], 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _wait(self) -> None:
        self._waiter = waiter = self.loop.create_future()
        began = self.loop.time()
        self.content_at = began + self._content_s
        try:
            await waiter
        except asyncio.CancelledError:
            if not self.outlives_reader:
                self.close()
            raise
        finally:
            self._waiter = None
            waited = self.loop.time() - began
            self.waited += waited
            self._content_s -= waited
            self.content_at = math.inf

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class HttpConnection(asyncio.Protocol):
    """An HTTP/1.1 connection that carries one exchange at a time.

    `on_idle` is called when a response is complete and the connection can be used again,
    `on_closed` once when it cannot be used any more.
    """

    def __init__(
        self,
        limits: PoolLimits,
        on_idle: "Callable[[HttpConnection], None]",
        on_closed: "Callable[[HttpConnection], None]",
    ) -> None:
        self._limits = limits
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._response: HttpResponse | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reusable = True
        self._bytes_since_body = 0
        self._uploading = False
        self._reading_paused = False
        self._writing_paused = False
        self.closed = False
        self.has_received = False
        self.idle_since = 0.0

    async def exchange(self, response: HttpResponse, head: bytes, body: bytes | None) -> None:
        """Send a request and return when `response` has its head. Raises UpstreamFailure."""
        transport = self._transport
        assert transport is not None
        self._response = response
        response._connection = self
        self._bytes_since_body = 0
        self.has_received = False
        if transport.is_closing():
            # Broken, with `connection_lost` still to come: uvloop raises RuntimeError until then.
            self.fail(FailureKind.RESET, "The upstream closed the connection.")
        elif not body:
            transport.write(head)
        elif len(body) <= _UPLOAD_CHUNK_BYTES:
            transport.write(head + body)
        else:
            await self._upload(transport, response, head, memoryview(body))
        while not response.status and response._failure is None:
            await response._wait()
        if not response.status and response._failure is not None:
            raise response._failure

    async def _upload(
        self, transport: asyncio.Transport, response: HttpResponse, head: bytes, body: memoryview
    ) -> None:
        # An upstream that refuses early (413) will not read the rest: stop, and let `_uploading`
        # keep the half-written connection out of the pool.
        self._uploading = True
        transport.write(head)
        for start in range(0, len(body), _UPLOAD_CHUNK_BYTES):
            if self._has_refused(response) or transport.is_closing():
                return
            transport.write(body[start : start + _UPLOAD_CHUNK_BYTES])
            while self._writing_paused and not self._has_refused(response):
                await response._wait()
        self._uploading = False

    def _has_refused(self, response: HttpResponse) -> bool:
        return response._complete or response._failure is not None or response.status >= 300

    def check_deadlines(self, now: float) -> None:
        """Fail the exchange if one of its deadlines has passed."""
        response = self._response
        if response is None:
            return
        if now >= response.total_at:
            self.fail(FailureKind.TOTAL_TIMEOUT, "The answer took longer than the call may.")
        elif now >= response.content_at:
            self.fail(response._content_kind, "The upstream sent no content in time.")

    def fail(self, kind: FailureKind, message: str) -> None:
        """Close the connection; an exchange in progress fails."""
        response = self._response
        if response is not None:
            self._response = None
            response._connection = None
            response._failure = UpstreamFailure(kind, message)
            response._wake()
        self.abort()

    def abort(self) -> None:
        """Close the socket at once. Idempotent."""
        if self.closed:
            return
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
        self._on_closed(self)

    def resume_if_low(self, unread: int) -> None:
        """Resume reading once few enough bytes are unread."""
        if self._reading_paused and unread <= self._limits.read_low_water:
            self._reading_paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # create_connection's contract

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            # Unrequested bytes must not be taken for the response to the next request.
            self.abort()
            return
        self.has_received = True
        self._bytes_since_body += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._reusable = False
            if not response._complete:
                # The parser's own text names the rule, never the bytes.
                self.fail(FailureKind.MALFORMED, f"The answer is not valid HTTP/1.1: {error}")
                return
        if response._complete:
            self._complete(response)
        elif self._bytes_since_body > self._limits.max_header_bytes:
            self.fail(FailureKind.TOO_LARGE, "The answer's head or trailers are too long.")
        elif response._size > self._limits.read_high_water:
            self._pause_reading()
        if response._waiter is not None and response.status:
            response._wake()

    def eof_received(self) -> None:
        self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        response = self._response
        if response is None:
            self.abort()
        elif not response.status:
            self.fail(FailureKind.RESET, "The upstream closed the connection before it answered.")
        elif exc is None and is_close_delimited(response.headers):
            self._reusable = False
            response._complete = True
            self._complete(response)
            response._wake()
        else:
            self.fail(FailureKind.CUT, "The connection ended inside the answer.")

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._response is not None and self._uploading:
            self._response._wake()

    def on_message_begin(self) -> None:
        if self._response is None or self._response._complete:
            self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        response = self._response
        if response is not None and not response.status:
            response.headers.append((name, value))

    def on_headers_complete(self) -> None:
        response = self._response
        if response is None or response.status:
            return
        status: int = self._parser.get_status_code()
        if status < 200:
            response.headers.clear()
            return
        size, limit = self._bytes_since_body, self._limits.max_header_bytes
        if size > limit:
            # It may count body bytes of the same segment.
            size = sum(len(name) + len(value) + 4 for name, value in response.headers)
        if size > limit:
            self.fail(FailureKind.TOO_LARGE, "The answer's head is too long.")
            return
        response.status = status

    def on_body(self, body: bytes) -> None:
        response = self._response
        if response is not None and not response._complete:
            self._bytes_since_body = 0
            response._parts.append(body)
            response._size += len(body)

    def on_message_complete(self) -> None:
        response = self._response
        if response is not None and response.status:
            if not (response._complete or self._parser.should_keep_alive()):
                self._reusable = False
            response._complete = True

    def _pause_reading(self) -> None:
        transport = self._transport
        if transport is not None and not (self._reading_paused or transport.is_closing()):
            self._reading_paused = True
            transport.pause_reading()

    def _complete(self, response: HttpResponse) -> None:
        self._response = None
        response._connection = None
        self.resume_if_low(0)
        transport = self._transport
        assert transport is not None
        if self._reusable and not self._uploading and not transport.get_write_buffer_size():
            self._on_idle(self)
        else:
            self.abort()
