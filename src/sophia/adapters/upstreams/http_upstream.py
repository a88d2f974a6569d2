"""An OpenAI-shaped server behind the Upstream port: calls out, exchanges back."""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from sophia.adapters.upstreams import shapes
from sophia.adapters.upstreams.dialects import Dialect
from sophia.adapters.upstreams.http1 import Pool, Response
from sophia.adapters.upstreams.sse import EventReader
from sophia.adapters.upstreams.stream import ChunkReader
from sophia.adapters.upstreams.whole import read_answer
from sophia.core.calls import Call, Deadlines, Piece, Usage
from sophia.core.failures import FailureKind, UpstreamFailure

_ERROR_BYTES = 64 * 1024
_ANSWER_BYTES = 64 * 1024 * 1024
_CLOSING_SECONDS = 0.25
_TAIL_SECONDS = 5.0
_PATHS = {name: b"/" + name.encode() for name in ("chat/completions", "completions", "embeddings")}
_GET = Deadlines(connect=5.0, content=30.0, stall=30.0, total=60.0)


class WholeExchange:
    """An answer that comes in one piece."""

    def __init__(self, response: Response, call: Call, provider: str) -> None:
        self.generation_id = _generation(response)
        self._response = response
        self._call = call
        self._provider = provider
        self._given = False

    async def next(self) -> Piece | None:
        """Return the answer, then None. Raises UpstreamFailure."""
        if self._given:
            return None
        body = await self._response.body(_ANSWER_BYTES)
        self._given = True
        piece = read_answer(body, self._call, self._provider, int(time.time()))
        self.generation_id = self.generation_id or piece.id
        return piece

    def close(self) -> None:
        """Free the connection; an unfinished answer is cancelled."""
        self._response.close()


class StreamExchange:
    """An answer that comes as server-sent events."""

    def __init__(
        self, response: Response, call: Call, provider: str, now: Callable[[], float]
    ) -> None:
        self.generation_id = _generation(response)
        self._response = response
        self._stall = call.deadlines.stall
        self._now = now
        self._events = EventReader()
        self._chunks = ChunkReader(call, provider, int(time.time()))
        self._ended = False

    async def next(self) -> Piece | None:
        """Return what came next, or None after a finish reason. Raises UpstreamFailure."""
        while not self._ended:
            if self._chunks.failure is not None:
                raise self._chunks.failure
            data = await self._read()
            if data is None:
                self._ended = True
                rest = self._events.rest()
                piece = self._chunks.read([rest] if rest else [])
            else:
                piece = self._chunks.read(self._events.feed(data))
            self._wind(piece)
            if self._chunks.done and not self._ended:
                await self._finish()
            if piece.id is not None and self.generation_id is None:
                self.generation_id = piece.id
            if piece.chunks or piece.usage is not None:
                return piece
        if self._chunks.failure is not None:
            raise self._chunks.failure
        if not self._chunks.complete:
            raise UpstreamFailure(FailureKind.CUT, "the stream ended without a finish reason")
        return None

    def _wind(self, piece: Piece) -> None:
        """Set the clock for what may come next."""
        if self._chunks.complete:
            # Only the usage can still come; a server that forgets to end must not hold it back.
            self._response.expect_by(self._now() + _TAIL_SECONDS, FailureKind.STALL)
        elif piece.content:
            self._response.expect_by(self._now() + self._stall, FailureKind.STALL)

    async def _read(self) -> bytes | None:
        try:
            return await self._response.read()
        except UpstreamFailure:
            # What breaks after every choice has ended takes nothing from the answer.
            if not self._chunks.complete:
                raise
            return None

    async def _finish(self) -> None:
        """Let the body end, so that the connection can serve again; its bytes mean nothing now."""
        self._ended = True
        self._response.expect_by(self._now() + _CLOSING_SECONDS, FailureKind.STALL)
        try:
            while await self._response.read() is not None:
                pass
        except UpstreamFailure:
            self._response.close()

    def close(self) -> None:
        """Free the connection; an unfinished answer is cancelled."""
        self._response.close()


class HttpUpstream:
    """One OpenAI-shaped server.

    Args:
        name: what the configuration calls it.
        provider: what answers name as their provider when the server does not.
        pool: connections to it, with its key among the static headers.
        dialect: builds the request body.
        now: monotonic seconds on the event loop's clock.
        billed_by_generation: whether `GET /generation?id=` tells what a call cost.
    """

    def __init__(  # noqa: PLR0913 - a composition root names each part once
        self,
        name: str,
        provider: str,
        pool: Pool,
        dialect: Dialect,
        now: Callable[[], float],
        *,
        billed_by_generation: bool = False,
    ) -> None:
        self.name = name
        self._provider = provider
        self._pool = pool
        self._dialect = dialect
        self._now = now
        self.bills = billed_by_generation

    async def open(self, call: Call) -> WholeExchange | StreamExchange:
        """Dispatch `call`; return once an accepting answer's head is here.

        Raises:
            UpstreamFailure: no connection, no answer in time, or an answer that refuses.
        """
        deadlines = call.deadlines
        response = await self._pool.send(
            b"POST", _PATHS[call.endpoint], self._dialect(call), deadlines
        )
        if response.status != 200:
            raise await _refusal(response)
        if not call.stream:
            return WholeExchange(response, call, self._provider)
        kind = response.header(b"content-type") or b""
        if b"text/event-stream" in kind:
            return StreamExchange(response, call, self._provider, self._now)
        raise _not_a_stream(await response.body(_ERROR_BYTES))

    async def get(self, path: str) -> bytes:
        """Return the body of `path` below the base URL. Raises UpstreamFailure."""
        response = await self._pool.send(b"GET", path.encode(), None, _GET)
        if response.status != 200:
            raise await _refusal(response)
        return await response.body(_ANSWER_BYTES)

    async def bill(self, generation_id: str) -> Usage | None:
        """Return what an earlier call cost, or None when the server cannot say."""
        if not self.bills:
            return None
        try:
            data = shapes.read(await self.get(f"/generation?id={generation_id}")).get("data")
        except UpstreamFailure:
            return None
        if not isinstance(data, dict):
            return None
        cost = shapes.nano(data.get("total_cost"))
        prompt, completion = (
            shapes.count(data.get(name)) or 0 for name in ("tokens_prompt", "tokens_completion")
        )
        return None if cost is None else Usage(prompt, completion, cost_nano=cost)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()


def _generation(response: Response) -> str | None:
    value = response.header(b"x-generation-id")
    return value.decode("latin-1") if value else None


def _not_a_stream(body: bytes) -> UpstreamFailure:
    try:
        error = shapes.read(body.lstrip()).get("error")
    except UpstreamFailure:
        error = None
    if error is not None:
        return shapes.failure(error, FailureKind.IN_BAND)
    return UpstreamFailure(FailureKind.MALFORMED, "a stream was asked for, something else came")


async def _refusal(response: Response) -> UpstreamFailure:
    status = response.status
    wait = _retry_after(response)
    try:
        body = await response.body(_ERROR_BYTES)
        failure = shapes.failure(
            shapes.read(body.lstrip()).get("error"), FailureKind.STATUS, status
        )
    except UpstreamFailure:
        response.close()
        failure = UpstreamFailure(FailureKind.STATUS, f"HTTP {status}", status=status)
    failure.status = status if status >= 400 else 502
    failure.retry_after = wait if wait is not None else failure.retry_after
    return failure


def _retry_after(response: Response) -> float | None:
    """Seconds from `retry-after-ms` or `retry-after`, as a number or an HTTP date."""
    for name, scale in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        value = (response.header(name) or b"").decode("latin-1").strip()
        if not value:
            continue
        try:
            return max(float(value) * scale, 0.0)
        except ValueError:
            pass
        try:
            return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
        except (ValueError, TypeError):
            continue
    return None
