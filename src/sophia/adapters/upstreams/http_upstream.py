"""An OpenAI-compatible server behind the Upstream port."""

import logging
import time
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from sophia.adapters.upstreams import shapes
from sophia.adapters.upstreams.dialects import Dialect, find_refused_field
from sophia.adapters.upstreams.errors import parse_error_body, parse_wait
from sophia.adapters.upstreams.http1.exchange import HttpResponse
from sophia.adapters.upstreams.http1.pool import ConnectionPool
from sophia.adapters.upstreams.json_text import (
    BYTE_ORDER_MARK,
    coerce_object,
    decode_object,
    encode_repaired,
)
from sophia.adapters.upstreams.sse import EventReader
from sophia.adapters.upstreams.stream import ChunkReader
from sophia.adapters.upstreams.whole import parse_whole_answer, to_stream_chunk
from sophia.core.bounded import BoundedDict
from sophia.core.calls import ChunkBatch, Deadlines, UpstreamCall, Usage
from sophia.core.failures import FailureKind, UpstreamFailure

log = logging.getLogger("sophia.upstreams")

_MAX_ERROR_BYTES = 64 * 1024
_MAX_REFUSING_MODELS = 1000
_MAX_KEEP_ALIVES = 5
"""Times that the deadline of the next content may pass while keep-alives come."""
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_DRAIN_SECONDS = 0.25
_USAGE_WAIT_SECONDS = 5.0
_PATHS = {name: b"/" + name.encode() for name in ("chat/completions", "completions", "embeddings")}
_GET_DEADLINES = Deadlines(connect=5.0, content=30.0, stall=30.0, total=60.0)


class _HttpExchange:
    """A response in progress."""

    def __init__(
        self, response: HttpResponse, call: UpstreamCall, provider: str, pool: ConnectionPool
    ) -> None:
        self._response = response
        self._call = call
        self._provider = provider
        self._pool = pool
        generation_id = response.header(b"x-generation-id")
        self.generation_id = generation_id.decode("latin-1") if generation_id else None

    @property
    def left_out_events(self) -> int:
        """The number of malformed events that were left out."""
        return 0

    async def next(self) -> ChunkBatch | None:
        """Return the next part of the answer, None at its end. Raises UpstreamFailure."""
        try:
            return await self._next()
        except UpstreamFailure as failure:
            self._pool.hide_key(failure)
            raise

    async def _next(self) -> ChunkBatch | None:
        raise NotImplementedError

    def close(self) -> None:
        """Free the connection; an unfinished answer is cancelled."""
        self._response.close()


class WholeExchange(_HttpExchange):
    """An answer in one piece."""

    _returned = False

    async def _next(self) -> ChunkBatch | None:
        """Return the answer, then None. Raises UpstreamFailure."""
        if self._returned:
            return None
        body = await self._response.body(_MAX_ANSWER_BYTES)
        self._returned = True
        batch = parse_whole_answer(body, self._call, self._provider, int(time.time()))
        self.generation_id = self.generation_id or batch.id
        return batch


class StreamExchange(_HttpExchange):
    """An answer as server-sent events, or in one piece from a server that does not stream."""

    def __init__(
        self, response: HttpResponse, call: UpstreamCall, provider: str, pool: ConnectionPool
    ) -> None:
        super().__init__(response, call, provider, pool)
        self._is_start = True
        self._has_content = False
        # The time that this side had waited by the last content.
        self._waited_before = response.waited
        self._events = EventReader()
        self._chunks = ChunkReader(call, provider, int(time.time()))
        self._finished = False

    @property
    def left_out_events(self) -> int:
        """The number of malformed events that were left out."""
        return self._chunks.left_out

    async def _next(self) -> ChunkBatch | None:
        """Return the next chunks, or None after a finish reason. Raises UpstreamFailure."""
        if self._chunks.failure is not None:
            raise self._chunks.failure
        while not self._finished:
            data = await self._read()
            if self._is_start and self._is_whole(data):
                return await self._read_whole(data or b"")
            if data is None:
                self._finished = True
                rest = self._events.flush()
                batch = self._chunks.read([rest] if rest else [])
            else:
                batch = self._chunks.read(self._events.feed(data))
            self._set_deadline(batch)
            if self._chunks.done and not self._finished:
                await self._drain()
            if batch.id is not None and self.generation_id is None:
                self.generation_id = batch.id
            if batch.chunks or batch.usage is not None:
                return batch
        if not self._chunks.complete:
            raise UpstreamFailure(FailureKind.CUT, "the stream ended without a finish reason")
        return None

    def _is_whole(self, data: bytes | None) -> bool:
        """Return whether an answer that begins with `data` is no stream, whatever its label.

        Raises UpstreamFailure for an empty one.
        """
        if data is None:
            raise UpstreamFailure(FailureKind.MALFORMED, "the answer is empty")
        first = data.removeprefix(BYTE_ORDER_MARK).lstrip()[:1]
        self._is_start = not first
        return first in (b"{", b"[", b"<")

    async def _read_whole(self, start: bytes) -> ChunkBatch:
        """Return an answer that came in one piece as a chunk. Raises UpstreamFailure."""
        self._finished = True
        body = start + await self._response.body(_MAX_ANSWER_BYTES)
        if body.lstrip().startswith(b"<"):
            raise UpstreamFailure(FailureKind.MALFORMED, "the answer is a page, and no stream")
        batch = parse_whole_answer(body, self._call, self._provider, int(time.time()))
        self._chunks.end()
        self.generation_id = self.generation_id or batch.id
        chunk = to_stream_chunk(decode_object(batch.chunks[0]))
        return replace(batch, chunks=[encode_repaired(chunk)])

    def _set_deadline(self, batch: ChunkBatch) -> None:
        """Set the deadline of the next content, or of the usage after its end."""
        limits = self._call.deadlines
        self._has_content = self._has_content or batch.has_content
        if self._chunks.complete:
            # A server that does not end the stream must not hold the answer back.
            wait = limits.stall if self._chunks.reasons_are_early else _USAGE_WAIT_SECONDS
            self._response.expect_within(wait, FailureKind.STALL)
        elif batch.has_content:
            self._waited_before = self._response.waited
            self._response.expect_within(limits.stall, FailureKind.STALL)
        elif self._events.saw_comment:
            # A sign of life while the model thinks, which is believed for a while.
            limit, kind = limits.content, FailureKind.CONTENT_TIMEOUT
            if self._has_content:
                limit, kind = limits.stall, FailureKind.STALL
            left = self._waited_before + limit * _MAX_KEEP_ALIVES - self._response.waited
            self._response.expect_within(min(limit, left), kind)

    async def _read(self) -> bytes | None:
        try:
            return await self._response.read()
        except UpstreamFailure:
            # A failure after the end of every choice takes nothing from the answer.
            if not self._chunks.complete:
                raise
            return None

    async def _drain(self) -> None:
        """Read and ignore the rest of the body, so that the connection can be used again."""
        self._finished = True
        self._response.expect_within(_DRAIN_SECONDS, FailureKind.STALL)
        try:
            while await self._response.read() is not None:
                pass
        except UpstreamFailure:
            self._response.close()


class HttpUpstream:
    """One OpenAI-compatible server, with its key among the static headers of `pool`.

    `provider` is the provider of answers that do not name one. `billed_by_generation` means that
    `GET /generation?id=` returns the cost of a call.
    """

    def __init__(
        self,
        name: str,
        provider: str,
        pool: ConnectionPool,
        dialect: Dialect,
        *,
        billed_by_generation: bool = False,
    ) -> None:
        self.name = name
        self._provider = provider
        self._pool = pool
        self._dialect = dialect
        self.can_fetch_usage = billed_by_generation
        # Fields that a model was found to refuse, by its id here.
        self._refused: BoundedDict[str, frozenset[str]] = BoundedDict(_MAX_REFUSING_MODELS)

    async def open(self, call: UpstreamCall) -> WholeExchange | StreamExchange:
        """Dispatch `call`; return once the head of an accepting response has arrived.

        Raises UpstreamFailure: no connection, no response in time, or a refusal.
        """
        known = refused = self._refused.get(call.model, frozenset())
        while True:
            body = self._encode(call, refused)
            response = await self._pool.send(b"POST", _PATHS[call.endpoint], body, call.deadlines)
            if response.status == 200:
                if refused is not known:
                    # Only what helped is remembered: a limit must not be renamed in vain.
                    self._refused[call.model] = refused
                kind = StreamExchange if call.stream else WholeExchange
                return kind(response, call, self._provider, self._pool)
            failure = self._pool.hide_key(await _status_failure(response))
            field = find_refused_field(failure.message) if response.status in (400, 422) else None
            if field is None or field in refused or f'"{field}"'.encode() not in body:
                raise failure
            # Nothing was done and nothing is billed: ask again without what it does not know.
            refused |= {field}
            log.info("%s refuses %s for %s", self.name, field, call.model)

    def _encode(self, call: UpstreamCall, refused: frozenset[str]) -> bytes:
        """Return the body of a call. Raises UpstreamFailure for fields that cannot be read."""
        try:
            return self._dialect(call, refused)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise UpstreamFailure(
                FailureKind.STATUS,
                f"a field of the request cannot be read: {error}",
                status=400,
                error_type="invalid_request",
                sent=False,
            ) from None

    async def get(self, path: str) -> bytes:
        """Return the body of `path` below the base URL. Raises UpstreamFailure."""
        response = await self._pool.send(b"GET", path.encode(), None, _GET_DEADLINES)
        if response.status != 200:
            raise self._pool.hide_key(await _status_failure(response))
        return await response.body(_MAX_ANSWER_BYTES)

    async def fetch_usage(self, generation_id: str) -> Usage | None:
        """Return the usage and cost of an earlier call, or None when they are unknown."""
        if not self.can_fetch_usage:
            return None
        try:
            body = decode_object(await self.get(f"/generation?id={quote(generation_id, safe='')}"))
        except UpstreamFailure:
            return None
        data = coerce_object(body.get("data"))
        cost = shapes.parse_cost(data.get("total_cost"))
        if cost is None:
            return None
        return Usage(
            prompt_tokens=shapes.parse_token_count(data.get("tokens_prompt")) or 0,
            completion_tokens=shapes.parse_token_count(data.get("tokens_completion")) or 0,
            cost_nano=cost,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()


async def _status_failure(response: HttpResponse) -> UpstreamFailure:
    status = response.status
    try:
        failure = parse_error_body(await response.body(_MAX_ERROR_BYTES), status)
    except UpstreamFailure:
        response.close()
        failure = UpstreamFailure(FailureKind.STATUS, f"HTTP {status}", status=status)
    failure.status = status if status >= 400 else 502
    if (wait := _parse_retry_after(response)) is not None:
        failure.retry_after = wait
    return failure


def _parse_retry_after(response: HttpResponse) -> float | None:
    """Return the seconds of `retry-after-ms` or `retry-after`, a number or an HTTP date."""
    for name, scale in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        value = (response.header(name) or b"").decode("latin-1").strip()
        try:
            wait = parse_wait(float(value) * scale)
        except ValueError:
            try:
                passed = parsedate_to_datetime(value).timestamp() - time.time()
                wait = parse_wait(max(passed, 0.0))
            except (ValueError, TypeError, OverflowError):
                continue
        if wait is not None:
            return wait
    return None
