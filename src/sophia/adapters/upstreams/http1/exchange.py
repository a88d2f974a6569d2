"""One connection and the answer that is on its way over it."""

import asyncio
from collections.abc import Callable

import httptools

from sophia.adapters.upstreams.http1.framing import ends_with_connection, size_of
from sophia.adapters.upstreams.http1.origin import Limits
from sophia.core.failures import FailureKind, UpstreamFailure

_FOREVER = float("inf")
_SLICE = 65536


class Response:
    """An answer whose head has come: `status`, `headers` in their order, and a body to read."""

    __slots__ = (
        "_connection",
        "_content_at",
        "_content_kind",
        "_done",
        "_failure",
        "_limits",
        "_loop",
        "_parts",
        "_size",
        "_total_at",
        "_waiter",
        "headers",
        "status",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        content_at: float,
        total_at: float,
    ) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._loop = loop
        self._limits = limits
        self._content_at = content_at
        self._content_kind = FailureKind.CONTENT_TIMEOUT
        self._total_at = total_at
        self._connection: Connection | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._failure: UpstreamFailure | None = None
        self._done = False

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of the header `name`, which is given in lower case."""
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None

    def expect_by(self, at: float | None, kind: FailureKind) -> None:
        """Fail with `kind` once `loop.time()` passes `at`, to within 50 ms; None: never."""
        self._content_at = _FOREVER if at is None else at
        self._content_kind = kind

    async def read(self) -> bytes | None:
        """Return all body bytes that are there, waiting for the first; None at the clean end.

        Raises UpstreamFailure once what came before the failure has been read.
        """
        while not self._parts:
            if self._failure is not None:
                raise self._failure
            if self._done:
                return None
            await self._wait()
        data = self._take_parts()
        if self._connection is not None:
            self._connection.resume_if_low(self._size)
        return data

    async def body(self, limit: int | None = None) -> bytes:
        """Return the whole body. Raises UpstreamFailure, TOO_LARGE past `limit` bytes."""
        limit = self._limits.max_body_bytes if limit is None else limit
        if self._done and self._size <= limit:
            return self._take_parts()
        taken: list[bytes] = []
        size = 0
        while (data := await self.read()) is not None:
            size += len(data)
            if size > limit:
                self.close()
                raise UpstreamFailure(
                    FailureKind.TOO_LARGE, f"The answer is longer than {limit} bytes."
                )
            taken.append(data)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def close(self) -> None:
        """Give the answer up: an unfinished one takes its socket with it. Idempotent."""
        if self._connection is not None:
            self._connection.fail(FailureKind.CUT, "The answer was given up before its end.")
        self._take_parts()

    def _take_parts(self) -> bytes:
        parts = self._parts
        self._parts = []
        self._size = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _wait(self) -> None:
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Connection(asyncio.Protocol):
    """An HTTP/1.1 connection that carries one exchange at a time.

    Args:
        limits: bounds of what is read.
        freed: called when an answer is complete and the connection can carry the next one.
        retired: called once when the connection has become useless.
    """

    def __init__(
        self,
        limits: Limits,
        freed: "Callable[[Connection], None]",
        retired: "Callable[[Connection], None]",
    ) -> None:
        self._limits = limits
        self._freed = freed
        self._retired = retired
        self._transport: asyncio.Transport | None = None
        self._answer: Response | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._keep = True
        self._quiet = 0
        self._bodiless = False
        self._uploading = False
        self._reading_paused = False
        self._writing_paused = False
        self.closed = False
        self.heard = False
        self.idle_since = 0.0

    async def exchange(self, answer: Response, head: bytes, body: bytes | None) -> None:
        """Send a request and return when `answer` has its head. Raises UpstreamFailure."""
        transport = self._transport
        assert transport is not None
        self._answer = answer
        answer._connection = self
        self._quiet = 0
        self.heard = False
        self._bodiless = head.startswith(b"HEAD ")
        if transport.is_closing():
            # Broken, but not yet told so: uvloop raises RuntimeError for calls in between.
            self.fail(FailureKind.RESET, "The upstream closed the connection.")
        elif not body:
            transport.write(head)
        elif len(body) <= _SLICE:
            transport.write(head + body)
        else:
            await self._upload(transport, answer, head, memoryview(body))
        while not answer.status and answer._failure is None:
            await answer._wait()
        if not answer.status and answer._failure is not None:
            raise answer._failure

    async def _upload(
        self, transport: asyncio.Transport, answer: Response, head: bytes, body: memoryview
    ) -> None:
        # An upstream that refuses early (413) will not read the rest: stop, and let `_uploading`
        # keep the half-written connection out of the pool.
        self._uploading = True
        transport.write(head)
        for start in range(0, len(body), _SLICE):
            if self._has_refused(answer) or transport.is_closing():
                return
            transport.write(body[start : start + _SLICE])
            while self._writing_paused and not self._has_refused(answer):
                await answer._wait()
        self._uploading = False

    def _has_refused(self, answer: Response) -> bool:
        return answer._done or answer._failure is not None or answer.status >= 300

    def check(self, now: float) -> None:
        """Fail the exchange if one of its clocks has run out."""
        answer = self._answer
        if answer is None:
            return
        if now >= answer._total_at:
            self.fail(FailureKind.TOTAL_TIMEOUT, "The answer took longer than the call may.")
        elif now >= answer._content_at:
            self.fail(answer._content_kind, "The upstream sent no content in time.")

    def fail(self, kind: FailureKind, message: str) -> None:
        """End the exchange, if there is one, as a failure, and the connection with it."""
        answer = self._answer
        if answer is not None:
            self._answer = None
            answer._connection = None
            answer._failure = UpstreamFailure(kind, message)
            answer._wake()
        self.shut()

    def shut(self) -> None:
        """Close the socket at once. Idempotent."""
        if self.closed:
            return
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
        self._retired(self)

    def resume_if_low(self, unread: int) -> None:
        """Go on reading if the reader has caught up."""
        if self._reading_paused and unread <= self._limits.read_low_water:
            self._reading_paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # create_connection's contract

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            # Nobody asked: an answer to a request not yet made must not be taken for its own.
            self.shut()
            return
        self.heard = True
        self._quiet += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keep = False
            if not answer._done:
                # The parser's own text names the rule, never the bytes.
                self.fail(FailureKind.MALFORMED, f"The answer is not valid HTTP/1.1: {error}")
                return
        if answer._done:
            self._complete(answer)
        elif self._quiet > self._limits.max_header_bytes:
            self.fail(FailureKind.TOO_LARGE, "The answer's head or trailers are too long.")
        elif answer._size > self._limits.read_high_water:
            self._pause_reading()
        if answer._waiter is not None and answer.status:
            answer._wake()

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._answer is not None and self._uploading:
            self._answer._wake()

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer._done:
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        answer = self._answer
        if answer is not None and not answer.status:
            answer.headers.append((name, value))

    def on_headers_complete(self) -> None:
        answer = self._answer
        if answer is None or answer.status:
            return
        status: int = self._parser.get_status_code()
        if status < 200:
            answer.headers.clear()
            return
        # `_quiet` also counts body bytes of the same segment: measure only when it is too much.
        limit = self._limits.max_header_bytes
        if self._quiet > limit and size_of(answer.headers) > limit:
            self.fail(FailureKind.TOO_LARGE, "The answer's head is too long.")
            return
        answer.status = status
        if self._bodiless:
            self._keep = False
            answer._done = True

    def on_body(self, body: bytes) -> None:
        answer = self._answer
        if answer is not None and not answer._done:
            self._quiet = 0
            answer._parts.append(body)
            answer._size += len(body)

    def on_message_complete(self) -> None:
        answer = self._answer
        if answer is not None and answer.status:
            if not (answer._done or self._parser.should_keep_alive()):
                self._keep = False
            answer._done = True

    def _pause_reading(self) -> None:
        transport = self._transport
        if transport is not None and not (self._reading_paused or transport.is_closing()):
            self._reading_paused = True
            transport.pause_reading()

    def _complete(self, answer: Response) -> None:
        self._answer = None
        answer._connection = None
        self.resume_if_low(0)
        transport = self._transport
        assert transport is not None
        if self._keep and not self._uploading and not transport.get_write_buffer_size():
            self._freed(self)
        else:
            self.shut()

    def _ended(self, error: Exception | None) -> None:
        answer = self._answer
        if answer is None:
            self.shut()
        elif not answer.status:
            self.fail(FailureKind.RESET, "The upstream closed the connection before it answered.")
        elif error is None and ends_with_connection(answer.headers):
            self._keep = False
            answer._done = True
            self._complete(answer)
            answer._wake()
        else:
            self.fail(FailureKind.CUT, "The connection ended inside the answer.")
