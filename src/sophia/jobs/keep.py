"""Write down what the learned policy has learned, so that it outlives the process."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from sophia.core.ports import Clock
from sophia.learning.live import Live
from sophia.learning.snapshots import (
    BrokenSnapshot,
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
        lock: held whenever `live` changes by lessons or snapshots.
        models: returns the models of today's pool.
        fresh: returns a live policy to restore a snapshot into.
        catch_up: has a live policy learn the lessons that came after its snapshot.
    """

    def __init__(  # noqa: PLR0913 - each is one part of what is kept
        self,
        live: Live,
        folder: Folder,
        clock: Clock,
        lock: asyncio.Lock,
        models: Callable[[], Sequence[str]],
        fresh: Callable[[], Live],
        catch_up: Callable[[Live], Awaitable[object]],
    ) -> None:
        self._live = live
        self._folder = folder
        self._clock = clock
        self._lock = lock
        self._models = models
        self._fresh = fresh
        self._catch_up = catch_up
        self._kept = live.lessons
        self._due = ""

    async def begin(self) -> None:
        """Go on from the snapshot in service, or begin with priors alone.

        Raises:
            BrokenSnapshot: it cannot be read.
            LookupError: the ledger does not hold what came after it.
        """
        async with self._lock:
            if not await self._resume():
                self._due = "priors alone"
                self._live.know(self._models())
                await self._keep()
                await self._catch_up(self._live)
            await self._look()

    async def __call__(self) -> None:
        """Look once; a snapshot that somebody put into service meanwhile is taken up."""
        async with self._lock:
            if self._elsewhere():
                await self._resume()
            await self._look()

    async def close(self) -> None:
        """Keep what was learned since, unless another snapshot was put into service meanwhile."""
        async with self._lock:
            if self._live.lessons != self._kept and not self._elsewhere():
                self._due = "stopped"
                await self._keep()

    async def _look(self) -> None:
        if self._live.know(self._models()):
            self._due = "new models"
        elif self._live.lessons - self._kept >= LESSONS:
            self._due = "as it stands"
        if self._due:
            await self._keep()

    async def _keep(self) -> None:
        """Write a snapshot and put it into service; what is due stays due until that is done."""
        at, lessons = int(self._clock.wall() * 1000), self._live.lessons
        made = Snapshot(POLICY, self._live.snapshot(), at, self._live.base or None)
        # The state may be large: hashing and writing it must not hold up who is being served.
        id = await asyncio.to_thread(into_service, self._folder, made, self._due)
        self._live.base, self._kept, self._due = id, lessons, ""

    async def _resume(self) -> bool:
        id = current(decode_history(self._folder.history()))
        if id is None:
            return False
        blob = self._folder.load(id)
        if blob is None:
            raise BrokenSnapshot(f"the snapshot {id[:16]} that is in service is not there")
        # Nobody may meet a policy that has learned half of it, so it is made aside.
        aside = self._fresh()
        aside.restore(decode(blob, id).state, id)
        await self._catch_up(aside)
        self._live.adopt(aside)
        self._kept = self._live.lessons
        return True

    def _elsewhere(self) -> bool:
        return current(decode_history(self._folder.history())) != self._live.base


def into_service(folder: Folder, made: Snapshot, reason: str) -> str:
    """Write a snapshot, put it into service and return its id."""
    id = identity(made)
    folder.save(id, encode(made))
    history = promote(decode_history(folder.history()), id, made.created_ms, reason)
    folder.record(encode_history(history))
    return id
