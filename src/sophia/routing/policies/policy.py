"""What a policy sees, says and learns from: the one interface that all policies have."""

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Vector = NDArray[np.float64]


class Sight(Struct, frozen=True):
    """One request as numbers; nobody writes to its arrays.

    Attributes:
        tasks: shape (T,), the posterior over the task taxonomy; sums to 1.
        embedding: shape (D,), the text's L2-normalised static embedding; all zeros when the text
            was not looked at.
        features: shape (F,), the plan's feature vector.
        novelty: 0 for a request like those learned from, up to 1 for one unlike any of them.
        tenant: whose request it is; "" for nobody in particular.
    """

    tasks: Vector
    embedding: Vector
    features: Vector
    novelty: float = 0.0
    tenant: str = ""


class Ratings(Struct, frozen=True):
    """What a policy expects of each arm that it was asked about, in the order asked.

    Attributes:
        quality: shape (A,), the expected score from 0 to 1.
        sd: shape (A,), the standard deviation of that expectation (not of single answers); what
            all arms share is left out, since it cannot change their order. Zeros: not known to be
            uncertain.
    """

    quality: Vector
    sd: Vector


class Lesson(Struct, frozen=True):
    """One outcome: what was seen, which arm answered, and how well, from 0 to 1.

    `weight` is what the outcome counts for: 1 for a plain one, less for an unreliable channel, more
    for one that stands for others that were not observed. `task` is the class that the caller
    declared, if any.
    """

    sight: Sight
    arm: str
    quality: float
    weight: float = 1.0
    task: int | None = None


class Prior(Struct, frozen=True):
    """What is believed of an arm before any outcome: mean and sd of its quality by task, (T,)."""

    mean: Vector
    sd: Vector


class Policy(Protocol):
    """Rates arms for a request. An arm is named by model, call mode, effort and provider policy."""

    @property
    def name(self) -> str: ...

    def rate(self, sight: Sight, arms: Sequence[str]) -> Ratings | None:
        """Return what to expect of `arms`, or None to decline: then the heuristic decides."""


class Learner(Policy, Protocol):
    """A policy that learns from outcomes and can be written down and read back exactly."""

    def learn_one(self, lesson: Lesson) -> None: ...

    def fit(self, lessons: Sequence[Lesson]) -> None:
        """Forget what was learned and learn from `lessons` alone."""

    def snapshot(self) -> bytes:
        """Return the whole state; `restore` of it rates bit for bit as this one does."""

    @classmethod
    def restore(cls, snapshot: bytes) -> Self: ...
