"""Keep-alive connections to one origin, and one timer for the deadlines of all of them."""

import asyncio
import ssl

from sophia.adapters.upstreams.http1.dial import open_connection
from sophia.adapters.upstreams.http1.exchange import HttpConnection, HttpResponse
from sophia.adapters.upstreams.http1.heads import RequestHead, header_lines
from sophia.adapters.upstreams.http1.origin import HttpOrigin, PoolLimits
from sophia.adapters.upstreams.http1.proxy import Proxy
from sophia.core.calls import Deadlines
from sophia.core.failures import CancelledBeforeSending, FailureKind, UpstreamFailure

_DEADLINE_CHECK_SECONDS = 0.05
_RETRY_WINDOW_SECONDS = 0.25
_MIN_SECRET_CHARS = 8
"""Shorter keys are placeholders of servers that check none."""
_DEFAULT_LIMITS = PoolLimits()


class ConnectionPool:
    """An HTTP/1.1 client of one origin; must be created inside the event loop that it uses.

    Without an `ssl_context` certificates are verified against the system's roots. `static_headers`
    are sent with every request; raises ValueError if one of them is malformed.
    """

    def __init__(
        self,
        origin: HttpOrigin,
        *,
        limits: PoolLimits = _DEFAULT_LIMITS,
        ssl_context: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
        static_headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._origin = origin
        self._limits = limits
        self._tls = ssl_context
        self._proxy = proxy
        target, lines = origin.base_path, header_lines(static_headers)
        if proxy is not None and origin.scheme == "http":
            target = f"http://{origin.authority}{origin.base_path}"
            if proxy.authorization is not None:
                lines += header_lines([("Proxy-Authorization", proxy.authorization)])
        key = dict(static_headers).get("Authorization", "").rpartition(" ")[2]
        self._secret = key if len(key) >= _MIN_SECRET_CHARS else ""
        self._head = RequestHead(target, origin.authority, lines)
        self._idle: list[HttpConnection] = []
        self._busy: set[HttpConnection] = set()
        self._connecting = 0
        self._loop = asyncio.get_running_loop()
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(
        self, method: bytes, path: bytes, body: bytes | None, deadlines: Deadlines
    ) -> HttpResponse:
        """Send a request and return the response once its final head is complete.

        `path` is relative to the origin's base path. Responses to HEAD are not supported.
        Raises UpstreamFailure, or ValueError for a path that HTTP does not allow.
        """
        head = self._head.render(method, path, None if body is None else len(body))
        loop = self._loop
        now = loop.time()
        content_at, total_at = now + deadlines.content, now + deadlines.total
        connection = self._take_idle(now)
        if connection is not None:
            response = HttpResponse(loop, content_at - loop.time(), total_at)
            try:
                self._mark_busy(connection)
                await connection.exchange(response, head, body)
            except UpstreamFailure as failure:
                # An idle connection may have been closed by the server, which has then not read
                # the request. A later reset may come from a server that has read it, and bills it.
                is_late = loop.time() - now > _RETRY_WINDOW_SECONDS
                if failure.kind is not FailureKind.RESET or connection.has_received or is_late:
                    raise
                if method != b"GET":
                    # Whoever called decides: a second call needs a reservation of its own. The
                    # other idle connections are most likely gone as well.
                    failure.stale = True
                    for other in tuple(self._idle):
                        other.abort()
                    raise
            else:
                return response
        connection = await self._connect(min(deadlines.connect, total_at - loop.time()))
        response = HttpResponse(loop, content_at - loop.time(), total_at)
        self._mark_busy(connection)
        await connection.exchange(response, head, body)
        return response

    def hide_key(self, failure: UpstreamFailure) -> UpstreamFailure:
        """Return `failure` without the key, which some servers quote."""
        if self._secret:
            failure.message = failure.message.replace(self._secret, "***")
        return failure

    async def close(self) -> None:
        """Close every connection at once; unfinished exchanges fail."""
        self._closed = True
        for timer in (self._deadline_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        for connection in [*self._busy, *self._idle]:
            connection.fail(FailureKind.RESET, "The pool was closed.")
        # One turn of the loop, in which aborted transports close their sockets.
        await asyncio.sleep(0)

    def _take_idle(self, now: float) -> HttpConnection | None:
        oldest = now - self._limits.idle_expiry
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since >= oldest:
                return connection
            connection.abort()
        return None

    def _mark_busy(self, connection: HttpConnection) -> None:
        self._busy.add(connection)
        if self._deadline_timer is None:
            self._start_deadline_timer()

    async def _connect(self, seconds: float) -> HttpConnection:
        self._make_room()
        connection = HttpConnection(self._limits, self._on_idle, self._on_closed)
        self._connecting += 1
        try:
            async with asyncio.timeout(seconds):
                await open_connection(
                    connection, self._origin, self._proxy, await self._load_ssl_context()
                )
        except asyncio.CancelledError as error:
            raise CancelledBeforeSending from error
        except TimeoutError as error:
            raise UpstreamFailure(
                FailureKind.CONNECT_TIMEOUT,
                f"No connection to {self._origin.authority} within {seconds:.3g} s.",
                sent=False,
            ) from error
        finally:
            self._connecting -= 1
        if self._closed or connection.closed:
            connection.abort()
            raise UpstreamFailure(
                FailureKind.RESET, "The connection ended as it was opened.", sent=False
            )
        return connection

    def _make_room(self) -> None:
        if self._closed:
            raise UpstreamFailure(FailureKind.REFUSED, "The pool is closed.", sent=False)
        in_use = len(self._busy) + self._connecting
        if in_use >= self._limits.max_connections:
            raise UpstreamFailure(
                FailureKind.POOL_EXHAUSTED,
                f"All {in_use} connections to {self._origin.authority} are busy.",
                sent=False,
            )
        if in_use + len(self._idle) >= self._limits.max_connections:
            self._idle[0].abort()

    async def _load_ssl_context(self) -> ssl.SSLContext | None:
        if self._origin.scheme == "https" and self._tls is None:
            # Reading the system's roots takes tens of milliseconds: too long for the loop.
            context = await asyncio.to_thread(ssl.create_default_context)
            context.set_alpn_protocols(["http/1.1"])
            self._tls = context
        return self._tls if self._origin.scheme == "https" else None

    def _on_idle(self, connection: HttpConnection) -> None:
        self._busy.discard(connection)
        if self._closed or len(self._idle) >= self._limits.max_idle:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)
        if self._idle_timer is None:
            self._idle_timer = self._loop.call_later(self._limits.idle_expiry, self._close_expired)

    def _on_closed(self, connection: HttpConnection) -> None:
        self._busy.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _start_deadline_timer(self) -> None:
        self._deadline_timer = self._loop.call_later(_DEADLINE_CHECK_SECONDS, self._check_deadlines)

    def _check_deadlines(self) -> None:
        now = self._loop.time()
        for connection in tuple(self._busy):
            connection.check_deadlines(now)
        self._deadline_timer = None
        if self._busy:
            self._start_deadline_timer()

    def _close_expired(self) -> None:
        oldest = self._loop.time() - self._limits.idle_expiry
        for connection in tuple(self._idle):
            if connection.idle_since <= oldest:
                connection.abort()
        self._idle_timer = None
        if self._idle:
            wait = max(self._idle[0].idle_since - oldest, _DEADLINE_CHECK_SECONDS)
            self._idle_timer = self._loop.call_later(wait, self._close_expired)
