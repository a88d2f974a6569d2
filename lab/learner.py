"""The interface of policies that learn, as they are compared and tested."""

from collections.abc import Sequence
from typing import Protocol, Self

from sophia.routing.bandit.policy import Lesson, Policy


class Learner(Policy, Protocol):
    """A policy that learns from outcomes and can be saved and restored exactly."""

    def learn_one(self, lesson: Lesson) -> None: ...

    def fit(self, lessons: Sequence[Lesson]) -> None:
        """Forget all outcomes and learn from `lessons` alone."""

    def snapshot(self) -> bytes:
        """Return the whole state; `restore` of it rates bit for bit as this one does."""

    @classmethod
    def restore(cls, snapshot: bytes) -> Self: ...
