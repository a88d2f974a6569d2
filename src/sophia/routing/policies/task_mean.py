"""The simplest learner that is hard to beat: each arm's mean quality by task, shrunk."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from msgspec import Struct, msgpack

from sophia.routing.policies.policy import Lesson, Ratings, Sight, Vector

# How many outcomes the arm's mean over all tasks counts for in each task, and all arms' in an arm.
STRENGTH, ARM_STRENGTH = 20.0, 5.0
FLAT, NOISE = 0.5, 0.25


class _State(Struct, frozen=True, array_like=True):
    tasks: int
    strength: float
    arms: dict[str, bytes]


class TaskMean:
    """Rates an arm by its mean quality on each task, weighted by the task posterior.

    Args:
        tasks: how many places a task posterior has.
        strength: the outcomes that an arm's overall mean counts for within each task.
    """

    name = "task_mean"

    def __init__(self, tasks: int, strength: float = STRENGTH) -> None:
        self._tasks = tasks
        self._strength = strength
        # By arm: the weight of outcomes per task, and the sum of their quality.
        self._seen: dict[str, Vector] = {}

    def rate(self, sight: Sight, arms: Sequence[str]) -> Ratings | None:
        """Return what to expect of `arms`, or None before any outcome."""
        if not self._seen:
            return None
        total = np.sum(list(self._seen.values()), axis=0)
        overall = _mean(total.sum(axis=1), FLAT, 1.0)
        nothing = np.zeros((2, self._tasks))
        quality, variance = np.empty(len(arms)), np.empty(len(arms))
        for number, arm in enumerate(arms):
            seen = self._seen.get(arm, nothing)
            arm_mean = _mean(seen.sum(axis=1), overall, ARM_STRENGTH)
            weight = seen[0] + self._strength
            quality[number] = sight.tasks @ ((seen[1] + self._strength * arm_mean) / weight)
            variance[number] = sight.tasks**2 @ (NOISE / weight)
        return Ratings(quality, np.sqrt(variance))

    def learn_one(self, lesson: Lesson) -> None:
        """Take in one outcome, under its declared task or its posterior."""
        tasks = lesson.sight.tasks
        if lesson.task is not None:
            tasks = np.zeros(self._tasks)
            tasks[lesson.task] = 1.0
        seen = self._seen.setdefault(lesson.arm, np.zeros((2, self._tasks)))
        seen[0] += lesson.weight * tasks
        seen[1] += lesson.weight * lesson.quality * tasks

    def fit(self, lessons: Sequence[Lesson]) -> None:
        """Forget what was learned and learn from `lessons` alone."""
        self._seen = {}
        for lesson in lessons:
            self.learn_one(lesson)

    def snapshot(self) -> bytes:
        """Return the whole state; the same state always gives the same bytes."""
        arms = {arm: seen.tobytes() for arm, seen in self._seen.items()}
        return msgpack.encode(_State(self._tasks, self._strength, arms))

    @classmethod
    def restore(cls, snapshot: bytes) -> Self:
        """Return the policy that `snapshot` was taken of.

        Raises:
            msgspec.DecodeError: the bytes are not a snapshot of this policy.
        """
        state = msgpack.decode(snapshot, type=_State)
        policy = cls(state.tasks, state.strength)
        policy._seen = {
            arm: np.frombuffer(seen).reshape(2, state.tasks).copy()
            for arm, seen in state.arms.items()
        }
        return policy


def _mean(seen: Vector, prior: float, strength: float) -> float:
    return float((seen[1] + strength * prior) / (seen[0] + strength))
