"""One logistic line per arm over the embedding and the features."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct, msgpack
from numpy.typing import NDArray

from sophia.routing.policies.lessons import Batch, meaning_and_surface
from sophia.routing.policies.policy import Ratings, Sight, Vector


class Lines(Struct, frozen=True):
    """Weights over standardised designs: shapes (A, P) and (A,), with centre and spread (P,)."""

    arms: tuple[str, ...]
    weights: NDArray[np.float64]
    bias: Vector
    centre: Vector
    spread: Vector


class _Packed(Struct, frozen=True, array_like=True):
    arms: tuple[str, ...]
    arrays: list[bytes]


class Logistic(Batch[Lines]):
    """Rates an arm by its own logistic regression; arms it was not trained on get the mean.

    Lessons are kept until `fit` or `refit` trains on them; without `train` it declines.
    """

    name = "logistic"
    see = staticmethod(meaning_and_surface)

    def rate(self, sight: Sight, arms: Sequence[str]) -> Ratings | None:
        """Return what to expect of `arms`, or None before the first training."""
        lines = self._model
        if lines is None:
            return None
        design = (meaning_and_surface(sight) - lines.centre) / lines.spread
        scores = lines.weights @ np.clip(design, -4.0, 4.0) + lines.bias
        known = dict(zip(lines.arms, (1.0 / (1.0 + np.exp(-scores))).tolist(), strict=True))
        mean = sum(known.values()) / len(known)
        return Ratings(np.array([known.get(arm, mean) for arm in arms]), np.zeros(len(arms)))

    @staticmethod
    def pack(model: Lines) -> bytes:
        """Return the lines as bytes."""
        arrays = [model.weights, model.bias, model.centre, model.spread]
        return msgpack.encode(_Packed(model.arms, [array.tobytes() for array in arrays]))

    @staticmethod
    def unpack(packed: bytes) -> Lines:
        """Return the lines that were packed."""
        found = msgpack.decode(packed, type=_Packed)
        weights, bias, centre, spread = (np.frombuffer(array) for array in found.arrays)
        return Lines(found.arms, weights.reshape(len(found.arms), -1), bias, centre, spread)
