"""Outcomes as columns: what learners that are trained in batches keep of their lessons."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, Self, TypeVar

import numpy as np
from msgspec import Struct, msgpack
from numpy.typing import NDArray

from sophia.routing.policies.policy import Lesson, Sight, Vector

MEMORY = 200_000

_Model = TypeVar("_Model")


class Examples(Struct, frozen=True):
    """Lessons as columns; a request that several arms answered stands there once.

    Attributes:
        designs: shape (M, P), what is seen of each request.
        arms: the arms, in the order in which they were first met.
        row, arm: shape (N,), positions in `designs` and `arms`.
        quality, weight: shape (N,).
    """

    designs: NDArray[np.float64]
    arms: tuple[str, ...]
    row: NDArray[np.intp]
    arm: NDArray[np.intp]
    quality: Vector
    weight: Vector


class Columns(Struct, frozen=True, array_like=True):
    """Kept lessons as bytes, for a snapshot."""

    arms: list[str]
    rows: bytes
    values: bytes
    designs: bytes
    size: int


class _State(Struct, frozen=True, array_like=True):
    kept: Columns
    model: bytes | None


class Kept:
    """The last lessons, at most twice `memory` of them."""

    def __init__(self, memory: int = MEMORY) -> None:
        self._memory = memory
        self._arms: dict[str, int] = {}
        self._designs: dict[bytes, int] = {}
        self._rows: list[tuple[int, int]] = []
        self._values: list[tuple[float, float]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def keep(self, lesson: Lesson, design: Vector) -> None:
        """Keep a lesson with what its request looks like; the oldest are dropped in one go."""
        arm = self._arms.setdefault(lesson.arm, len(self._arms))
        row = self._designs.setdefault(design.tobytes(), len(self._designs))
        self._rows.append((row, arm))
        self._values.append((lesson.quality, lesson.weight))
        if len(self._rows) > 2 * self._memory:
            self._drop()

    def examples(self) -> Examples:
        """Return what is kept as columns."""
        rows = np.array(self._rows, dtype=np.intp).reshape(-1, 2)
        values = np.array(self._values).reshape(-1, 2)
        designs = np.frombuffer(b"".join(self._designs)).reshape(len(self._designs), -1)
        return Examples(
            designs, tuple(self._arms), rows[:, 0], rows[:, 1], values[:, 0], values[:, 1]
        )

    def pack(self) -> Columns:
        """Return what is kept as bytes."""
        return Columns(
            list(self._arms),
            np.array(self._rows, np.int64).tobytes(),
            np.array(self._values, np.float64).tobytes(),
            b"".join(self._designs),
            len(self._designs),
        )

    @classmethod
    def unpack(cls, columns: Columns, memory: int = MEMORY) -> "Kept":
        """Return what was packed."""
        kept = cls(memory)
        kept._arms = {arm: number for number, arm in enumerate(columns.arms)}
        pairs = np.frombuffer(columns.rows, np.int64).reshape(-1, 2).tolist()
        values = np.frombuffer(columns.values).reshape(-1, 2).tolist()
        kept._rows = [(row, arm) for row, arm in pairs]
        kept._values = [(quality, weight) for quality, weight in values]
        if columns.size:
            step = len(columns.designs) // columns.size
            kept._designs = {
                columns.designs[step * row : step * (row + 1)]: row for row in range(columns.size)
            }
        return kept

    def _drop(self) -> None:
        rows, self._values = self._rows[-self._memory :], self._values[-self._memory :]
        used = sorted({row for row, _ in rows})
        place = {row: number for number, row in enumerate(used)}
        designs = list(self._designs)
        self._designs = {designs[row]: number for row, number in place.items()}
        self._rows = [(place[row], arm) for row, arm in rows]


def surface(sight: Sight) -> Vector:
    """Return the request's features alone."""
    return sight.features


def tasks_and_surface(sight: Sight) -> Vector:
    """Return the task posterior and the features."""
    return np.concatenate([sight.tasks, sight.features])


def meaning_and_surface(sight: Sight) -> Vector:
    """Return the embedding and the features."""
    return np.concatenate([sight.embedding, sight.features])


class Batch(ABC, Generic[_Model]):
    """Keeps lessons until it is trained on all of them; made into a policy by adding `rate`.

    Args:
        train: makes a model of the examples; without it nothing is ever learned.

    `enough` is how many lessons it takes before anything is trained.
    """

    enough: ClassVar[int] = 1

    def __init__(self, train: Callable[[Examples], _Model] | None = None) -> None:
        self._train = train
        self._kept = Kept()
        self._model: _Model | None = None

    @staticmethod
    @abstractmethod
    def see(sight: Sight) -> Vector:
        """Return what is learned from a request, (P,)."""

    @staticmethod
    @abstractmethod
    def pack(model: _Model) -> bytes:
        """Return a model as bytes, the same for the same model."""

    @staticmethod
    @abstractmethod
    def unpack(packed: bytes) -> _Model:
        """Return what was packed. Raises msgspec.DecodeError when these are other bytes."""

    def learn_one(self, lesson: Lesson) -> None:
        """Keep an outcome for the next training."""
        self._kept.keep(lesson, self.see(lesson.sight))

    def refit(self) -> None:
        """Train on what is kept, if that is enough."""
        if self._train is not None and len(self._kept) >= self.enough:
            self._model = self._train(self._kept.examples())

    def fit(self, lessons: Sequence[Lesson]) -> None:
        """Forget what was learned and learn from `lessons` alone."""
        self._kept, self._model = Kept(), None
        for lesson in lessons:
            self.learn_one(lesson)
        self.refit()

    def snapshot(self) -> bytes:
        """Return the whole state; the same state always gives the same bytes."""
        packed = None if self._model is None else self.pack(self._model)
        return msgpack.encode(_State(self._kept.pack(), packed))

    @classmethod
    def restore(cls, snapshot: bytes) -> Self:
        """Return the policy that `snapshot` was taken of; it cannot train.

        Raises:
            msgspec.DecodeError: the bytes are not a snapshot of this policy.
        """
        state = msgpack.decode(snapshot, type=_State)
        policy = cls()
        policy._kept = Kept.unpack(state.kept)
        policy._model = None if state.model is None else cls.unpack(state.model)
        return policy
