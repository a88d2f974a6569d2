"""An OpenAI-compatible server behind the Upstream port."""

import logging
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from functools import partial
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from sophia.adapters.upstreams import shapes
from sophia.adapters.upstreams.dialects import (
    MAX_TOKENS_FIELDS,
    Dialect,
    find_refused_fields,
    find_token_limit,
)
from sophia.adapters.upstreams.errors import parse_error_body, parse_wait
from sophia.adapters.upstreams.http1.exchange import HttpResponse
from sophia.adapters.upstreams.http1.pool import ConnectionPool
from sophia.adapters.upstreams.json_text import BYTE_ORDER_MARK, decode_object, encode_repaired
from sophia.adapters.upstreams.sse import EventReader
from sophia.adapters.upstreams.stream import ChunkReader
from sophia.adapters.upstreams.whole import parse_whole_answer, to_stream_chunk
from sophia.core.bounded import BoundedDict
from sophia.core.calls import ChunkBatch, Deadlines, UpstreamCall, Usage
from sophia.core.failures import FailureKind, UpstreamFailure

log = logging.getLogger("sophia.upstreams")

_MAX_ERROR_BYTES = 64 * 1024
_MAX_REFUSING_MODELS = 1000
_MAX_BYTES_PER_TOKEN, _MIN_LIMIT_BYTES = 16, 4096
"""Text of an answer that keeps to a limit of tokens; the average token has 4 bytes."""
_MAX_KEEP_ALIVES = 5
"""Times that the deadline of the next content may pass while keep-alives come."""
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_DRAIN_SECONDS = 0.25
_USAGE_WAIT_SECONDS = 5.0
_PATHS = {name: b"/" + name.encode() for name in ("chat/completions", "completions", "embeddings")}
_GET_DEADLINES = Deadlines(connect=5.0, content=30.0, stall=30.0, total=60.0)


class _HttpExchange:
    """A response in progress."""

    longest: int | None = None
    """Bytes of text that may still come, where the limit has a name that may mean nothing."""
    on_excess: Callable[[], None]

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
    def is_received(self) -> bool:
        """Whether the whole response has arrived."""
        return self._response.is_complete

    @property
    def left_out_events(self) -> int:
        """The number of malformed events that were left out."""
        return 0

    def _parse(self, body: bytes) -> ChunkBatch:
        """Return an answer in one piece. Raises UpstreamFailure, without the upstream's key."""
        try:
            return parse_whole_answer(body, self._call, self._provider, int(time.time()))
        except UpstreamFailure as failure:
            raise self._pool.hide_key(failure) from None

    def _is_excess(self, batch: ChunkBatch) -> bool:
        """Return whether the answer is far beyond its limit, and report it."""
        if self.longest is None:
            return False
        self.longest -= batch.text_bytes
        if self.longest < 0:
            self.on_excess()
        return self.longest < 0

    def close(self) -> None:
        """Free the connection; an unfinished answer is cancelled."""
        self._response.close()


class WholeExchange(_HttpExchange):
    """An answer in one piece."""

    _returned = False

    async def next(self) -> ChunkBatch | None:
        """Return the answer, then None. Raises UpstreamFailure."""
        if self._returned:
            return None
        body = await self._response.body(_MAX_ANSWER_BYTES)
        self._returned = True
        batch = self._parse(body)
        self.generation_id = self.generation_id or batch.id
        # Even far beyond its limit it is delivered, since it is billed.
        self._is_excess(batch)
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
        self._was_complete = False

    @property
    def left_out_events(self) -> int:
        """The number of malformed events that were left out."""
        return self._chunks.left_out

    async def next(self) -> ChunkBatch | None:
        """Return the next chunks, or None after a finish reason. Raises UpstreamFailure."""
        if self._chunks.failure is not None:
            raise self._pool.hide_key(self._chunks.failure)
        while not self._finished:
            data = await self._read()
            if self._is_start and self._is_whole(data):
                return await self._read_whole(data or b"")
            events = self._end_events() if data is None else self._events.feed(data)
            try:
                batch = self._chunks.read(events)
            except UpstreamFailure as failure:
                raise self._pool.hide_key(failure) from None
            if self.longest is not None and self._is_excess(batch):
                raise UpstreamFailure(
                    FailureKind.TOO_LARGE,
                    "the answer is longer than the limit of tokens allows",
                    received=batch,
                )
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

    def _end_events(self) -> list[bytes]:
        self._finished = True
        rest = self._events.flush()
        return [rest] if rest else []

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
        batch = self._parse(body)
        self._is_excess(batch)
        self._chunks.end()
        self.generation_id = self.generation_id or batch.id
        chunk = to_stream_chunk(decode_object(batch.chunks[0]))
        return replace(batch, chunks=[encode_repaired(chunk)])

    def _set_deadline(self, batch: ChunkBatch) -> None:
        """Set the deadline of the next content, or of the usage after its end."""
        limits = self._call.deadlines
        self._has_content = self._has_content or batch.has_content
        was_complete, self._was_complete = self._was_complete, self._chunks.complete
        if self._was_complete:
            # A server that does not end the stream must not hold the answer back, nor must one that
            # sends comments only.
            if batch.has_content or not was_complete:
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
            if not self._chunks.complete or self._chunks.end_is_doubtful:
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

    def __init__(  # noqa: PLR0913 - what differs between servers, most of it by name
        self,
        name: str,
        provider: str,
        pool: ConnectionPool,
        dialect: Dialect,
        *,
        billed_by_generation: bool = False,
        is_drained: bool = False,
    ) -> None:
        self.name = name
        self._provider = provider
        self._pool = pool
        self._dialect = dialect
        self.can_fetch_usage = billed_by_generation
        self.is_drained = is_drained
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
            failure = None
            if response.status != 200:
                failure = self._pool.hide_key(await _status_failure(response))
            fields: frozenset[str] = frozenset()
            if failure is not None and failure.status in (400, 422):
                named = find_refused_fields(failure.message) - refused
                fields = frozenset(name for name in named if f'"{name}"'.encode() in body)
            if refused is not known and (failure is None or fields):
                # Only what helped is remembered: a limit must not be renamed in vain.
                self._refused[call.model] = refused
            if failure is None:
                return self._begin(response, call, refused)
            if not fields:
                raise failure
            # Nothing was done and nothing is billed: ask again without what it does not know.
            log.info("%s refuses %s for %s", self.name, ", ".join(sorted(fields)), call.model)
            more = refused | fields
            if not call.may_repeat():
                # The next request goes without them, unless those are both names of the limit.
                self._refused[call.model] = refused if more >= set(MAX_TOKENS_FIELDS) else more
                raise failure
            refused = more

    def _begin(
        self, response: HttpResponse, call: UpstreamCall, refused: frozenset[str]
    ) -> WholeExchange | StreamExchange:
        response.outlives_reader = self.is_drained
        kind = StreamExchange if call.stream else WholeExchange
        exchange = kind(response, call, self._provider, self._pool)
        if not refused.isdisjoint(MAX_TOKENS_FIELDS) and (limit := find_token_limit(call)):
            # The limit was renamed, and the new name may mean nothing to the server.
            longest = limit * call.choices * _MAX_BYTES_PER_TOKEN
            exchange.longest = max(longest, _MIN_LIMIT_BYTES)
            exchange.on_excess = partial(self._stop_renaming, call.model)
        return exchange

    def _stop_renaming(self, model: str) -> None:
        """Send the limit under its first name again: a refusal costs less than no limit."""
        log.warning("%s keeps to no limit of tokens for %s", self.name, model)
        self._refused[model] = self._refused.get(model, frozenset()) | set(MAX_TOKENS_FIELDS)

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
        return shapes.parse_generation(body)

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
