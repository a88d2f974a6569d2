"""Keep-alive connections to one origin, and the one timer that watches their deadlines."""

import asyncio
import ssl

from sophia.adapters.upstreams.http1.dial import dial
from sophia.adapters.upstreams.http1.exchange import Connection, Response
from sophia.adapters.upstreams.http1.heads import RequestHead, header_lines
from sophia.adapters.upstreams.http1.origin import Limits, Origin
from sophia.adapters.upstreams.http1.proxy import Proxy
from sophia.core.calls import Deadlines
from sophia.core.failures import FailureKind, UpstreamFailure

_SWEEP_SECONDS = 0.05
_STALE_SECONDS = 0.25
_DEFAULT_LIMITS = Limits()


class Pool:
    """An HTTP/1.1 client of one origin; belongs to the event loop that first sends with it.

    Args:
        origin: where requests go.
        limits: how much the pool may take.
        ssl_context: for https; by default certificates are verified against the system's roots.
        proxy: the forward proxy to go through.
        static_headers: sent with every request. Raises ValueError if one of them is malformed.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        limits: Limits = _DEFAULT_LIMITS,
        ssl_context: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
        static_headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._origin = origin
        self._limits = limits
        self._tls = ssl_context
        self._proxy = proxy
        self._head = _request_head(origin, proxy, static_headers)
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._connecting = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(
        self,
        method: bytes,
        path: bytes,
        body: bytes | None,
        deadlines: Deadlines,
        headers: bytes = b"",
    ) -> Response:
        """Send a request and return its answer once the final head has come.

        `path` is relative to the origin's base path; `headers` are lines from `header_lines`.
        Raises UpstreamFailure, or ValueError for a path or headers that HTTP does not allow.
        """
        head = self._head.render(method, path, None if body is None else len(body), headers)
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        now = loop.time()
        content_at, total_at = now + deadlines.content, now + deadlines.total
        connection = self._take(now)
        if connection is not None:
            answer = Response(loop, self._limits, content_at, total_at)
            try:
                self._occupy(connection)
                await connection.exchange(answer, head, body)
            except UpstreamFailure as failure:
                # A kept connection may have been closed while it was idle; the request has then
                # not been read, and one try on a fresh connection is invisible. A reset that comes
                # later may come from a server that has read it, and bills it.
                if failure.kind is not FailureKind.RESET or connection.heard:
                    raise
                if loop.time() - now > _STALE_SECONDS:
                    raise
            else:
                return answer
        connection = await self._connect(min(deadlines.connect, total_at - loop.time()))
        answer = Response(loop, self._limits, content_at, total_at)
        self._occupy(connection)
        await connection.exchange(answer, head, body)
        return answer

    async def close(self) -> None:
        """Close every connection at once; unfinished exchanges fail."""
        self._closed = True
        for timer in (self._sweeper, self._reaper):
            if timer is not None:
                timer.cancel()
        for connection in [*self._busy, *self._idle]:
            connection.fail(FailureKind.RESET, "The pool was closed.")
        # One turn of the loop, in which aborted transports close their sockets.
        await asyncio.sleep(0)

    def _take(self, now: float) -> Connection | None:
        oldest = now - self._limits.idle_expiry
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since >= oldest:
                return connection
            connection.shut()
        return None

    def _occupy(self, connection: Connection) -> None:
        self._busy.add(connection)
        if self._sweeper is None:
            self._start_sweeper()

    async def _connect(self, seconds: float) -> Connection:
        self._make_room()
        connection = Connection(self._limits, self._freed, self._retired)
        self._connecting += 1
        try:
            async with asyncio.timeout(seconds):
                await dial(connection, self._origin, self._proxy, await self._context())
        except TimeoutError as error:
            raise UpstreamFailure(
                FailureKind.CONNECT_TIMEOUT,
                f"No connection to {self._origin.authority} within {seconds:.3g} s.",
                sent=False,
            ) from error
        finally:
            self._connecting -= 1
        if self._closed or connection.closed:
            connection.shut()
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
            self._idle[0].shut()

    async def _context(self) -> ssl.SSLContext | None:
        if self._origin.scheme == "https" and self._tls is None:
            # Reading the system's roots takes tens of milliseconds: too long for the loop.
            context = await asyncio.to_thread(ssl.create_default_context)
            context.set_alpn_protocols(["http/1.1"])
            self._tls = context
        return self._tls if self._origin.scheme == "https" else None

    def _freed(self, connection: Connection) -> None:
        self._busy.discard(connection)
        if self._closed or len(self._idle) >= self._limits.max_idle:
            connection.shut()
            return
        loop = self._loop
        assert loop is not None
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._reaper is None:
            self._reaper = loop.call_later(self._limits.idle_expiry, self._reap)

    def _retired(self, connection: Connection) -> None:
        self._busy.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _start_sweeper(self) -> None:
        assert self._loop is not None
        self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        for connection in tuple(self._busy):
            connection.check(now)
        self._sweeper = None
        if self._busy:
            self._start_sweeper()

    def _reap(self) -> None:
        assert self._loop is not None
        oldest = self._loop.time() - self._limits.idle_expiry
        for connection in tuple(self._idle):
            if connection.idle_since <= oldest:
                connection.shut()
        self._reaper = None
        if self._idle:
            wait = max(self._idle[0].idle_since - oldest, _SWEEP_SECONDS)
            self._reaper = self._loop.call_later(wait, self._reap)


def _request_head(
    origin: Origin, proxy: Proxy | None, static_headers: tuple[tuple[str, str], ...]
) -> RequestHead:
    target, lines = origin.base_path, header_lines(static_headers)
    if proxy is not None and origin.scheme == "http":
        target = f"http://{origin.authority}{origin.base_path}"
        if proxy.authorization is not None:
            lines += header_lines([("Proxy-Authorization", proxy.authorization)])
    return RequestHead(target, origin.authority, lines)
