"""`Idempotency-Key`: a repeated request joins the running one, or gets its answer again, unpaid.

As the IETF draft "The Idempotency-Key HTTP Header Field": the key belongs to one body; another
body under it is refused. Answers that a repetition might improve are not kept.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from time import monotonic

from msgspec import Struct

from sophia.core.errors import BadRequest, InternalError
from sophia.http.wire import HttpRequest, ResponseWriter

log = logging.getLogger("sophia.http")

_MAX_KEY_CHARS = 255
_MAX_KEPT_BYTES = 64 * 1024 * 1024
MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Longest answer that is kept; a longer one is given to those that wait, and not again.

Also the part of a longer one that waits for the slowest reader.
"""
_ENTRY_BYTES = 2048
_KEPT_SECONDS = 3600.0
_TRANSIENT_STATUSES = frozenset({402, 408, 409, 425, 429})
_REPLAYED = b"idempotent-replayed: true\r\n"

Run = Callable[[ResponseWriter], Awaitable[bool]]
"""Gives the answer, and returns whether it is worth keeping: it did not break off."""


class IdempotencyConflict(BadRequest, status=422, error_type="idempotency_conflict"):
    """This Idempotency-Key was used with another request; use a new key for each request."""


class AnswerTooLong(BadRequest, status=409, error_type="answer_too_long"):
    """The answer under this Idempotency-Key is too long to be repeated; use a new key."""


class _Reader(Struct, eq=False):
    """A request that gets a recorded answer; `at` is the number of parts that it has taken."""

    at: int = 0


class _Recording:
    """A response writer that keeps an answer for every request that waits for it.

    Of an answer that is too long to be kept, only the parts that a reader has not taken yet.
    """

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self.finished_at: float | None = None
        self.held_bytes = 0
        # The number of parts that were dropped.
        self.dropped = 0
        self.is_whole = False
        self.is_stopping = False
        self._size = 0
        self._readers: list[_Reader] = []
        self._status = 0
        self._headers = b""
        self._parts: list[bytes] = []
        self._ended = False
        self._changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @property
    def status(self) -> int:
        """The status of the answer; 0 before it has begun."""
        return self._status

    async def send(self, status: int, headers: bytes, body: bytes) -> None:
        self.is_whole = True
        await self.begin(status, headers)
        await self.write(body)
        await self.end()

    async def begin(self, status: int, headers: bytes) -> None:
        self._status, self._headers = status, headers
        self._notify()

    async def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        self.held_bytes += len(data)
        self._notify()
        while self._size > MAX_ANSWER_BYTES and not (self.is_whole or self.is_stopping):
            if not self._readers:
                # The last caller has left, and no other could get all of it.
                raise asyncio.CancelledError
            if self.held_bytes <= MAX_ANSWER_BYTES:
                break
            await self._changed.wait()

    async def end(self) -> None:
        self._ended = True
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def finish(self) -> None:
        """Wake all that wait, whether the answer is complete or not."""
        self.finished_at = monotonic()
        self._notify()

    async def replay(self, reply: ResponseWriter, lines: bytes) -> None:
        """Give the answer to `reply` as it comes, with header `lines`.

        Raises InternalError when it broke off.
        """
        reader = _Reader()
        self._readers.append(reader)
        try:
            await self._wait(lambda: self._ended if self.is_whole else bool(self._status))
            headers = self._headers + lines
            if self.is_whole:
                await reply.send(self._status, headers, self._take(reader))
                return
            await reply.begin(self._status, headers)
            while True:
                await self._wait(lambda: self._has_more(reader) or self._ended)
                if not self._has_more(reader):
                    break
                await reply.write(self._take(reader))
            await reply.end()
        finally:
            self._readers.remove(reader)
            self._drop_taken()

    def _has_more(self, reader: _Reader) -> bool:
        return reader.at < self.dropped + len(self._parts)

    def _take(self, reader: _Reader) -> bytes:
        """Return all that a reader has not taken yet."""
        data = b"".join(self._parts[reader.at - self.dropped :])
        reader.at = self.dropped + len(self._parts)
        self._drop_taken()
        return data

    def _drop_taken(self) -> None:
        """Drop the parts that every reader has taken, once the answer is too long to be kept."""
        if self._size <= MAX_ANSWER_BYTES:
            return
        ends = [reader.at - self.dropped for reader in self._readers]
        count = min(ends, default=len(self._parts))
        self.held_bytes -= sum(map(len, self._parts[:count]))
        del self._parts[:count]
        self.dropped += count
        self._notify()

    async def _wait(self, is_there: Callable[[], bool]) -> None:
        while not is_there():
            if self.finished_at is not None:
                raise InternalError("The first request under this Idempotency-Key broke off.")
            await self._changed.wait()


class IdempotentAnswers:
    """Running and recent answers by owner and key; the oldest go first when there is no room."""

    def __init__(self) -> None:
        self._recordings: dict[tuple[str, bytes], _Recording] = {}

    async def answer(
        self, owner: str, key: bytes, incoming: HttpRequest, run: Run, reply: ResponseWriter
    ) -> None:
        """Answer by `run`, or by the answer that the same request got before.

        The first request goes on when its caller leaves, so that a repetition finds its answer.

        Raises:
            BadRequest: the key is malformed or was used with another body, or the beginning of its
                answer is no longer kept.
        """
        key = key.strip()
        if not key or len(key) > _MAX_KEY_CHARS or not key.isascii():
            raise BadRequest(
                f"`Idempotency-Key` must be 1 to {_MAX_KEY_CHARS} ASCII characters.",
                param="Idempotency-Key",
            )
        path = incoming.path.removeprefix("/api")
        digest = blake2b(path.encode() + b"\0" + incoming.body, digest_size=16).digest()
        name, lines = (owner, key), _REPLAYED
        recording = self._find(name)
        if recording is None:
            recording, lines = _Recording(digest), b""
            self._recordings[name] = recording
            recording.task = asyncio.create_task(self._record(name, recording, run))
        elif recording.digest != digest:
            raise IdempotencyConflict
        elif recording.dropped:
            raise AnswerTooLong
        await recording.replay(reply, lines)

    async def close(self) -> None:
        """Cancel what still runs, and wait until it is settled."""
        tasks = []
        for recording in self._recordings.values():
            # Its error chunk must not wait for a slow reader.
            recording.is_stopping = True
            if recording.task is not None:
                recording.task.cancel()
                tasks.append(recording.task)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _find(self, name: tuple[str, bytes]) -> _Recording | None:
        found = self._recordings.get(name)
        finished = None if found is None else found.finished_at
        if finished is not None and monotonic() - finished > _KEPT_SECONDS:
            self._forget(name)
            return None
        return found

    async def _record(self, name: tuple[str, bytes], recording: _Recording, run: Run) -> None:
        is_good = False
        try:
            is_good = await run(recording)
        except Exception:
            # The border of the task: whoever waits gets a clean error, and the log all of it.
            log.exception("request failed")
        finally:
            recording.finish()
            recording.task = None
            status = recording.status
            is_final = status < 500 and status not in _TRANSIENT_STATUSES
            if not (is_good and is_final):
                self._forget(name)
            self._make_room()

    def _make_room(self) -> None:
        """Forget what is too old, and the oldest while all together are too large."""
        now, kept = monotonic(), 0
        for name, recording in reversed(self._recordings.copy().items()):
            kept += recording.held_bytes + _ENTRY_BYTES
            finished = recording.finished_at
            if finished is not None and (kept > _MAX_KEPT_BYTES or now - finished > _KEPT_SECONDS):
                self._forget(name)

    def _forget(self, name: tuple[str, bytes]) -> None:
        self._recordings.pop(name, None)
