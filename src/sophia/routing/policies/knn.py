"""Nearest neighbours: an arm is as good as it was on the requests most like this one."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from msgspec import Struct, msgpack
from numpy.typing import NDArray

from sophia.routing.policies.policy import Lesson, Ratings, Sight

NEIGHBOURS, MEMORY = 50, 20_000
STRENGTH, FLAT, NOISE = 2.0, 0.5, 0.25


class _State(Struct, frozen=True, array_like=True):
    neighbours: int
    memory: int
    arms: list[str]
    size: int
    vectors: bytes
    outcomes: bytes


class Neighbours:
    """Exact search over the last `memory` requests; the oldest make room.

    Args:
        neighbours: how many requests are asked.
        memory: how many requests are remembered, with the outcomes of all arms on them.
    """

    name = "knn"

    def __init__(self, neighbours: int = NEIGHBOURS, memory: int = MEMORY) -> None:
        self._neighbours = neighbours
        self._memory = memory
        self._arms: dict[str, int] = {}
        self._rows: dict[bytes, int] = {}
        self._vectors: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        # Weight and weighted quality by request and arm.
        self._outcomes: NDArray[np.float32] = np.zeros((0, 0, 2), np.float32)

    def rate(self, sight: Sight, arms: Sequence[str]) -> Ratings | None:
        """Return what to expect of `arms`; None before any outcome, or without an embedding."""
        known = len(self._rows)
        if not known or not sight.embedding.any():
            return None
        likeness = self._vectors[:known] @ sight.embedding.astype(np.float32)
        count = min(self._neighbours, known)
        near = np.argpartition(-likeness, count - 1)[:count]
        columns = [self._arms.get(arm, -1) for arm in arms]
        whole = self._outcomes[:known, : len(self._arms)]
        total = whole.sum(axis=0, dtype=np.float64)
        local = whole[np.sort(near)].sum(axis=0, dtype=np.float64)
        blank = np.zeros((1, 2))
        total, local = np.vstack([total, blank]), np.vstack([local, blank])
        overall = (total[:, 1].sum() + FLAT) / (total[:, 0].sum() + 1.0)
        usual = (total[:, 1] + STRENGTH * overall) / (total[:, 0] + STRENGTH)
        weight = local[:, 0] + STRENGTH
        quality = (local[:, 1] + STRENGTH * usual) / weight
        return Ratings(quality[columns], np.sqrt(NOISE / weight)[columns])

    def learn_one(self, lesson: Lesson) -> None:
        """Remember one outcome; one without an embedding is not looked for, so not kept."""
        if not lesson.sight.embedding.any():
            return
        column = self._arms.setdefault(lesson.arm, len(self._arms))
        row = self._row_of(lesson.sight.embedding.astype(np.float32))
        if column >= self._outcomes.shape[1]:
            more = max(4, column)
            self._outcomes = np.pad(self._outcomes, ((0, 0), (0, more), (0, 0)))
        self._outcomes[row, column] += (lesson.weight, lesson.weight * lesson.quality)

    def fit(self, lessons: Sequence[Lesson]) -> None:
        """Forget what was learned and learn from `lessons` alone."""
        fresh = type(self)(self._neighbours, self._memory)
        self.__dict__.update(fresh.__dict__)
        for lesson in lessons:
            self.learn_one(lesson)

    def snapshot(self) -> bytes:
        """Return the whole state; the same state always gives the same bytes."""
        known = len(self._rows)
        order = list(self._rows.values())
        return msgpack.encode(
            _State(
                self._neighbours,
                self._memory,
                list(self._arms),
                known,
                self._vectors[order].tobytes(),
                self._outcomes[order][:, : len(self._arms)].tobytes(),
            )
        )

    @classmethod
    def restore(cls, snapshot: bytes) -> Self:
        """Return the policy that `snapshot` was taken of.

        Raises:
            msgspec.DecodeError: the bytes are not a snapshot of this policy.
        """
        state = msgpack.decode(snapshot, type=_State)
        policy = cls(state.neighbours, state.memory)
        if state.size:
            shape = (state.size, -1)
            policy._vectors = np.frombuffer(state.vectors, np.float32).reshape(shape).copy()
            outcomes = np.frombuffer(state.outcomes, np.float32)
            policy._outcomes = outcomes.reshape(state.size, len(state.arms), 2).copy()
            policy._arms = {arm: column for column, arm in enumerate(state.arms)}
            policy._rows = {
                vector.tobytes(): row for row, vector in enumerate(policy._vectors)
            }
        return policy

    def _row_of(self, vector: NDArray[np.float32]) -> int:
        """Return where a request stands, making room for it when it is new."""
        key = vector.tobytes()
        row = self._rows.get(key)
        if row is not None:
            return row
        row = len(self._rows)
        if row >= self._memory:
            oldest = next(iter(self._rows))
            row = self._rows.pop(oldest)
            self._outcomes[row] = 0.0
        elif row >= len(self._vectors):
            more = min(max(64, row), self._memory - row)
            self._vectors = np.concatenate(
                [self._vectors.reshape(row, len(vector)), np.zeros((more, len(vector)), np.float32)]
            )
            self._outcomes = np.pad(self._outcomes, ((0, more), (0, 0), (0, 0)))
        self._vectors[row] = vector
        self._rows[key] = row
        return row
