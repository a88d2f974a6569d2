"""Checkpoints of the learned state, so that it outlives the process."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from msgspec import DecodeError

from sophia.core.ports import Clock, Store
from sophia.learning.online.archive import PolicyArchive
from sophia.learning.online.catch_up import catch_up
from sophia.learning.online.policy import OnlinePolicy
from sophia.learning.snapshots import SnapshotConflict, active_snapshot_id
from sophia.serving.learned.prompt_histories import PromptHistories

log = logging.getLogger("sophia.learning")

# New lessons after which a snapshot is due, and the least new answer measurements worth one.
CHECKPOINT_LESSONS, CHECKPOINT_ANSWERS = 500, 50


@dataclass(slots=True, kw_only=True)
class PolicyCheckpoint:
    """Timer that writes a snapshot of `policy` after 500 lessons, or when the pool has a new arm.

    Measured answers are not in the ledger, so it also writes one when their number since the start
    has doubled.

    `models` returns the current pool; `lock` is held while lessons or snapshots change the policy.
    Of several processes the one that `is_leader` writes; all load what another has activated.
    """

    policy: OnlinePolicy
    archive: PolicyArchive
    store: Store
    clock: Clock
    lock: asyncio.Lock
    models: Callable[[], Sequence[str]]
    is_leader: Callable[[], bool] = lambda: True
    _saved_lessons: int = field(init=False, default=0)
    _saved_answers: int = field(init=False, default=0)

    async def resume_or_create(self) -> None:
        """Load the active snapshot and the lessons since, or start from priors.

        Raises BrokenSnapshot, or LookupError when the ledger lacks a lesson that came after it.
        """
        async with self.lock:
            if not await self._resume():
                self.policy.add_models(self.models())
                await self._checkpoint("priors alone")
                await catch_up(self.policy, self.store)
            await self._checkpoint_if_due()

    async def __call__(self) -> None:
        """Check once; a snapshot that a command activated meanwhile is loaded."""
        # After a conflict, the next turn loads the other snapshot.
        with suppress(SnapshotConflict):
            async with self.lock:
                if active_snapshot_id(self.archive.read_history()) != self.policy.snapshot_id:
                    await self._resume()
                await self._checkpoint_if_due()

    async def close(self) -> None:
        """Write unsaved changes, unless another snapshot was activated meanwhile."""
        with suppress(SnapshotConflict):
            async with self.lock:
                measured = self.policy.answer_count - self._saved_answers >= CHECKPOINT_ANSWERS
                if not self.is_leader():
                    return
                if measured or self.policy.lesson_count != self._saved_lessons:
                    await self._checkpoint("stopped")

    async def _checkpoint_if_due(self) -> None:
        models = self.models()
        self.policy.set_speed_priors(models)
        if not self.is_leader():
            return
        if self.policy.unknown_arms(models):
            await self._add_models(models)
            return
        lessons = self.policy.lesson_count - self._saved_lessons
        answers = self.policy.answer_count - self._saved_answers
        if lessons >= CHECKPOINT_LESSONS or answers >= max(CHECKPOINT_ANSWERS, self._saved_answers):
            await self._checkpoint("as it stands")

    async def _checkpoint(self, reason: str) -> None:
        answers = self.policy.answer_count
        state = await self._serialize()
        self.policy.snapshot_id = await self._publish(self.policy, state, reason)
        self._saved_lessons, self._saved_answers = self.policy.lesson_count, answers

    async def _serialize(self) -> bytes:
        # The learner is by far the largest part. It changes only under the lock, so a thread can
        # serialize it while requests are served.
        learner = await asyncio.to_thread(self.policy.learner.snapshot)
        return self.policy.snapshot(learner)

    async def _add_models(self, models: Sequence[str]) -> None:
        """Add new models in a copy first: no request may use them before they are saved."""
        copy, answers = self.archive.new_policy(), self.policy.answer_count
        await asyncio.to_thread(copy.restore, await self._serialize(), self.policy.snapshot_id)
        copy.add_models(models)
        state = await asyncio.to_thread(copy.snapshot)
        id = await self._publish(copy, state, "new models", amends=True)
        # Requests changed the live policy meanwhile, so it adds the models itself.
        self.policy.add_models(models)
        self.policy.snapshot_id, self._saved_lessons = id, self.policy.lesson_count
        self._saved_answers = answers

    async def _resume(self) -> bool:
        id = active_snapshot_id(self.archive.read_history())
        if id is None:
            return False
        # No request may use a policy in the midst of its lessons, so a copy learns them.
        copy, _ = await asyncio.to_thread(self.archive.load, id)
        await catch_up(copy, self.store)
        if copy.shared != self.archive.shared:
            # Earlier lessons keep their owner; later ones are learned the other way.
            copy.shared = self.archive.shared
            reason = f"keys learn {'together' if copy.shared else 'apart'}"
            copy.snapshot_id = await self._publish(copy, copy.snapshot(), reason, amends=True)
        self.policy.replace_with(copy)
        self._saved_lessons = self.policy.lesson_count
        return True

    async def _publish(
        self, policy: OnlinePolicy, state: bytes, reason: str, *, amends: bool = False
    ) -> str:
        """Write and activate a snapshot; return its id. Raises SnapshotConflict."""
        at_ms = int(self.clock.wall() * 1000)
        # The state may be large: hashing and writing it must not block the event loop.
        return await asyncio.to_thread(
            self.archive.publish, policy, at_ms, reason, state=state, amends=amends
        )


class PromptHistoryCheckpoint:
    """Timer that writes the prompt histories when they changed; a crash loses the rest.

    Starts from the `saved` ones, or without any when they cannot be read. No replay needs them:
    each decision keeps its own task probabilities.
    """

    def __init__(
        self, histories: PromptHistories, saved: bytes | None, save: Callable[[bytes], None]
    ) -> None:
        self._histories = histories
        self._save = save
        self._saved_changes = histories.changes
        if saved is not None:
            try:
                histories.load(saved)
            except (DecodeError, ValueError) as error:
                log.warning("the prompt histories cannot be read, starting without any: %s", error)

    async def __call__(self) -> None:
        """Write once, if anything changed."""
        changes = self._histories.changes
        if changes != self._saved_changes:
            encode = self._histories.prepare_dump()
            await asyncio.to_thread(lambda: self._save(encode()))
            self._saved_changes = changes
