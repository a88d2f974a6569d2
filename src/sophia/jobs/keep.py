"""Write down what the learned policy has learned, so that it outlives the process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Protocol

from msgspec.structs import replace

from sophia.core.ports import Clock
from sophia.learning.challenge import Challenge
from sophia.learning.challengers import tell
from sophia.learning.live import Live
from sophia.learning.snapshots import (
    BrokenSnapshot,
    Keeping,
    Snapshot,
    Stint,
    current,
    decode,
    decode_history,
    encode,
    encode_history,
    identity,
    promote,
    prune,
)

Change = Callable[[Challenge | None], Challenge | None]
"""Makes the next state of a tenant's challenge; None leaves it as it is."""

POLICY = "live"
LESSONS = 500
ANSWERS = 50
"""From how many answers on it is worth keeping how arms answer, when nothing else is new."""


class Overtaken(Exception):
    """Something else was put into service since; what was made of the state before is not kept."""


class Folder(Protocol):
    """Where snapshots are kept, by id."""

    def save(self, id: str, blob: bytes) -> None: ...

    def load(self, id: str) -> bytes | None: ...

    def remove(self, id: str) -> None: ...

    def history(self) -> bytes | None: ...

    def record(self, history: bytes) -> None: ...

    def alone(self) -> AbstractContextManager[None]: ...


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
        keeping: says which snapshots are kept for how long.
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
        keeping: Keeping | None = None,
    ) -> None:
        self._live = live
        self._folder = folder
        self._clock = clock
        self._lock = lock
        self._models = models
        self._fresh = fresh
        self._catch_up = catch_up
        self._keeping = keeping or Keeping()
        self._shared = live.shared
        self._kept = live.lessons
        self._kept_answers = 0

    async def begin(self) -> None:
        """Go on from the snapshot in service, or begin with priors alone.

        Raises:
            BrokenSnapshot: it cannot be read.
            LookupError: the ledger does not hold what came after it.
        """
        async with self._lock:
            if not await self._resume():
                self._live.know(self._models())
                await self._keep("priors alone")
                await self._catch_up(self._live)
            await self._look()

    async def __call__(self) -> None:
        """Look once; a snapshot that somebody put into service meanwhile is taken up."""
        # What comes in between is taken up at the next turn.
        with suppress(Overtaken):
            async with self._lock:
                if self._elsewhere():
                    await self._resume()
                await self._look()

    async def close(self) -> None:
        """Keep what was learned since, unless another snapshot was put into service meanwhile."""
        with suppress(Overtaken):
            async with self._lock:
                fresh = self._live.answers - self._kept_answers >= ANSWERS
                if fresh or self._live.lessons != self._kept:
                    await self._keep("stopped")

    async def rule(self, tenant: str, change: Change, reason: str) -> None:
        """Put a changed challenge of a tenant into service; nothing when there is no change.

        Nothing happens either where another snapshot is in service by now: the step is due again.

        Raises BrokenSnapshot when the history cannot be read.
        """
        async with self._lock:
            held = self._live.challengers
            before = held.all.get(tenant)
            after = change(before)
            if after is None:
                return
            changed = {**held.all, tenant: after}
            # Nobody chooses by it before it is kept, and then it is there at one stroke.
            state = await self._state(changed)
            try:
                id = await self._write(state, self._live.base, reason, amends=True)
            except Overtaken:
                return
            self._live.base = id
            held.all, self._kept = changed, self._live.lessons
            tell(tenant, before, after)

    async def _look(self) -> None:
        self._live.believe(self._models())
        if self._live.strangers(self._models()):
            await self._meet(self._models())
        elif self._live.lessons - self._kept >= LESSONS:
            await self._keep("as it stands")

    async def _keep(self, reason: str) -> None:
        """Put the live policy as it stands into service."""
        answers = self._live.answers
        self._live.base = await self._write(await self._state(), self._live.base, reason)
        self._kept, self._kept_answers = self._live.lessons, answers

    async def _state(self, challenges: Mapping[str, Challenge] | None = None) -> bytes:
        """Return what is to be kept of the live policy, with these challenges where some are told.

        The learner is the greatest part by far. Only who holds the lock changes it, so it is
        written down beside those who are served.
        """
        learner = await asyncio.to_thread(self._live.learner.snapshot)
        return self._live.snapshot(challenges, learner)

    async def _meet(self, models: Sequence[str]) -> None:
        """Get to know new models: nobody chooses by what is known of them before it is kept."""
        aside = self._fresh()
        await asyncio.to_thread(aside.restore, await self._state(), self._live.base)
        aside.know(models)
        state = await asyncio.to_thread(aside.snapshot)
        id = await self._write(state, aside.base, "new models", amends=True)
        # What else is noted of requests went on meanwhile, so the live policy meets them itself.
        self._live.know(models)
        self._live.base, self._kept = id, self._live.lessons

    async def _resume(self) -> bool:
        id = current(decode_history(self._folder.history()))
        if id is None:
            return False
        blob = self._folder.load(id)
        if blob is None:
            raise BrokenSnapshot(f"the snapshot {id[:16]} that is in service is not there")
        # Nobody may meet a policy that has learned half of it, so it is made aside.
        aside = self._fresh()
        await asyncio.to_thread(lambda: aside.restore(decode(blob, id).state, id))
        await self._catch_up(aside)
        if aside.shared != self._shared:
            # Earlier lessons stay whose they were; from here on they are learned the other way.
            aside.shared = self._shared
            how = "together" if self._shared else "apart"
            # What was missed by keys apart was not missed together.
            aside.challengers.all = {}
            state = aside.snapshot()
            aside.base = await self._write(state, id, f"keys learn {how}", amends=True)
        self._live.adopt(aside)
        self._kept = self._live.lessons
        return True

    async def _write(
        self, state: bytes, parent: str, reason: str, *, amends: bool = False
    ) -> str:
        """Write a snapshot, put it into service and return its id. Raises Overtaken."""
        at = int(self._clock.wall() * 1000)
        made = Snapshot(POLICY, state, at, parent or None)
        stint = Stint("", at, reason, amends=amends)
        # The state may be large: hashing and writing it must not hold up who is being served.
        return await asyncio.to_thread(into_service, self._folder, made, stint, self._keeping)

    def _elsewhere(self) -> bool:
        return current(decode_history(self._folder.history())) != self._live.base


def into_service(folder: Folder, made: Snapshot, stint: Stint, keeping: Keeping) -> str:
    """Write a snapshot, put it into service and return its id, which `stint` gets.

    Those that need not be kept any longer are dropped.

    Raises Overtaken when its parent is not in service any more, unless it goes back to an earlier
    one: a server and a command may change what was learned at the same time, and neither may undo
    what the other did.
    """
    id = identity(made)
    with folder.alone():
        history = decode_history(folder.history())
        if stint.of is None and current(history) != made.parent:
            raise Overtaken("something else was put into service meanwhile; nothing was changed")
        folder.save(id, encode(made))
        history = promote(history, replace(stint, id=id))
        history = prune(history, keeping, made.created_ms)
        # The history says first what is gone: a file too many is harmless, one too few is not.
        folder.record(encode_history(history))
        for step in history:
            if step.gone:
                folder.remove(step.id)
    return id
