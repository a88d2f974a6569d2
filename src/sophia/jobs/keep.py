"""Write down what the learned policy has learned, so that it outlives the process."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from sophia.core.ports import Clock
from sophia.learning.live import Live
from sophia.learning.snapshots import (
    Snapshot,
    current,
    decode,
    decode_history,
    encode,
    encode_history,
    identity,
    promote,
)

POLICY = "live"
LESSONS = 500


class Folder(Protocol):
    """Where snapshots are kept, by id."""

    def save(self, id: str, blob: bytes) -> None: ...

    def load(self, id: str) -> bytes | None: ...

    def history(self) -> bytes | None: ...

    def record(self, history: bytes) -> None: ...


class KeepLearned:
    """Makes a snapshot after every few hundred lessons, and whenever the pool has a new arm.

    Args:
        live: whose state is kept.
        folder: where.
        clock: dates the snapshots.
        arms: returns the arms of today's pool.
        catch_up: learns the lessons that came after the snapshot.
    """

    def __init__(
        self,
        live: Live,
        folder: Folder,
        clock: Clock,
        arms: Callable[[], Sequence[str]],
        catch_up: Callable[[], Awaitable[object]],
    ) -> None:
        self._live = live
        self._folder = folder
        self._clock = clock
        self._arms = arms
        self._catch_up = catch_up
        self._kept = live.lessons

    async def __call__(self) -> None:
        """Look once; a snapshot that somebody put into service meanwhile is taken up."""
        if current(decode_history(self._folder.history())) != self._live.base:
            await self.resume()
        if self._live.know(self._arms()) or self._live.lessons - self._kept >= LESSONS:
            self.keep("as it stands")

    def keep(self, reason: str) -> str:
        """Write a snapshot and put it into service; return its id."""
        at = int(self._clock.wall() * 1000)
        state = self._live.snapshot()
        made = Snapshot(POLICY, state, at, self._live.base or None)
        id = identity(made)
        self._folder.save(id, encode(made))
        history = promote(decode_history(self._folder.history()), id, at, reason)
        self._folder.record(encode_history(history))
        self._live.base = id
        self._kept = self._live.lessons
        return id

    async def resume(self) -> bool:
        """Go on from the snapshot in service; return whether there was one.

        Raises:
            BrokenSnapshot: it cannot be read; `sophia learn --rollback` names another.
        """
        id = current(decode_history(self._folder.history()))
        blob = self._folder.load(id) if id is not None else None
        if id is None or blob is None:
            return False
        self._live.restore(decode(blob, id).state, id)
        self._kept = self._live.lessons
        await self._catch_up()
        return True
