"""The interface of routing policies: the context they rate by, and the outcomes they learn from."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


class PolicyContext(Struct, frozen=True):
    """One request as numbers; its array is never written to.

    Attributes:
        task_probabilities: shape (T,), the posterior over the task taxonomy; sums to 1.
        novelty: 0 for a request like those learned from, up to 1 for one unlike any of them.
        tenant: the owner of the request; "" when all keys learn together.
    """

    task_probabilities: Vector
    novelty: float = 0.0
    tenant: str = ""


class ArmRatings(Struct, frozen=True):
    """Expectations of the arms of a request, in the order of the request.

    Attributes:
        quality: shape (A,), the expected score from 0 to 1.
        sd: shape (A,), the standard deviation of that expectation (not of single answers), without
            the part that all arms share, which cannot change their order.
    """

    quality: Vector
    sd: Vector


class Lesson(Struct, frozen=True):
    """One outcome: the context, the arm that answered, and its score from 0 to 1.

    `weight` is 1 for a plain outcome, less for an unreliable channel, more for one that stands for
    others that were not observed.
    """

    context: PolicyContext
    arm: str
    quality: float
    weight: float = 1.0


class Prior(Struct, frozen=True):
    """Mean and sd of an arm's quality by task before any outcome, (T,)."""

    mean: Vector
    sd: Vector


class Policy(Protocol):
    """Rates arms for a request; see `arms` for their names."""

    @property
    def name(self) -> str: ...

    def rate(self, context: PolicyContext, arms: Sequence[str]) -> ArmRatings | None:
        """Return the ratings of `arms`, or None to leave the decision to the heuristic."""
