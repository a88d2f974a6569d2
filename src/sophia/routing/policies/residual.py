"""A correction on top of another policy's ratings: what it was seen to miss, by kind of request."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from msgspec import Struct, msgpack

from sophia.routing.policies.joint import Frozen, Matrix, freeze, thaw
from sophia.routing.policies.policy import Policy, Ratings, Sight, Vector

CLIP = 3.0
_LEAST = 1e-9


class _Packed(Struct, frozen=True, array_like=True):
    arms: list[str]
    arrays: list[Frozen]


class Correction(Struct, frozen=True):
    """What to add to the quality of each arm: linear in how a request looks to `describe`.

    It fades with the novelty of a request: where no text tells, nothing is corrected.

    Attributes:
        places: by arm its row; the last row is for arms that are not there.
        centre, scale: shape (P,), bring what `describe` says to about unit variance.
        weights: shape (A + 1, 1 + P), the constant first.
        variances: shape (A + 1, 1 + P), of the weights, as if each erred by itself.
    """

    places: dict[str, int]
    centre: Vector
    scale: Vector
    weights: Matrix
    variances: Matrix

    def design(self, looks: Matrix, novelty: Vector) -> Matrix:
        """Return what the weights are multiplied by, (N, 1 + P), for (N, P) and (N,)."""
        rows = np.empty((len(looks), 1 + len(self.centre)))
        rows[:, 0] = 1.0
        shown = (looks - self.centre) * self.scale
        rows[:, 1:] = np.minimum(np.maximum(shown, -CLIP), CLIP)
        rows *= (1.0 - novelty)[:, None]
        return rows

    def at(self, sight: Sight, arms: Sequence[str]) -> tuple[Vector, Vector]:
        """Return what to add to the quality of `arms`, (A,), and its variance, (A,)."""
        row = self.design(describe(sight)[None], np.array([sight.novelty]))[0]
        rows = [self.places.get(arm, -1) for arm in arms]
        return (self.weights @ row)[rows], (self.variances @ (row * row))[rows]

    def pack(self) -> bytes:
        """Return the correction as bytes; the same for the same content."""
        arrays = [self.centre, self.scale, self.weights, self.variances]
        return msgpack.encode(_Packed(list(self.places), [freeze(array) for array in arrays]))

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Return the correction that was packed. Raises msgspec.DecodeError for other bytes."""
        kept = msgpack.decode(packed, type=_Packed)
        places = {arm: row for row, arm in enumerate(kept.arms)}
        return cls(places, *(thaw(frozen) for frozen in kept.arrays))


class Rival(Struct, frozen=True):
    """A correction that might be made of ratings, in place of the one they have, if any."""

    correction: Correction
    instead_of: Correction | None = None

    def correct(self, rated: Ratings, sight: Sight, arms: Sequence[str]) -> Ratings:
        """Return what the ratings of `arms` would be with this correction."""
        shift, variance = self.correction.at(sight, arms)
        if self.instead_of is not None:
            known, doubt = self.instead_of.at(sight, arms)
            shift, variance = shift - known, variance - doubt
        return Ratings(
            np.minimum(np.maximum(rated.quality + shift, 0.0), 1.0),
            np.sqrt(np.maximum(rated.sd * rated.sd + variance, 0.0)),
        )


class Residual:
    """Rates as `base` does, corrected.

    What `base` doubts and what the correction doubts add up: the correction was learned from the
    same outcomes, so this is too much doubt rather than too little.
    """

    name = "residual"

    def __init__(self, base: Policy, correction: Correction) -> None:
        self._base = base
        self._rival = Rival(correction)

    def rate(self, sight: Sight, arms: Sequence[str]) -> Ratings | None:
        """Return what to expect of `arms`, or None where the base declines."""
        rated = self._base.rate(sight, arms)
        return None if rated is None else self._rival.correct(rated, sight, arms)


def describe(sight: Sight) -> Vector:
    """Return how a request looks to a correction, (T + 3,).

    A line in the task posterior is what the hierarchical policy has already. Roots of it bend: they
    tell a slight suspicion of a task from none at all. The greatest chance, the entropy and the
    novelty say how sure the posterior is.
    """
    tasks = sight.tasks
    looks = np.empty(len(tasks) + 3)
    looks[:-3] = np.sqrt(tasks)
    looks[-3] = tasks.max()
    looks[-2] = -(tasks @ np.log(tasks + _LEAST))
    looks[-1] = sight.novelty
    return looks
