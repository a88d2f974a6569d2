"""One logistic line per arm over the embedding and the features."""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from msgspec import Struct, msgpack
from numpy.typing import NDArray

from sophia.routing.policies.lessons import Batch, Columns, Examples, Kept, meaning_and_surface
from sophia.routing.policies.policy import Ratings, Sight, Vector


class Lines(Struct, frozen=True):
    """Weights over standardised designs: shapes (A, P) and (A,), with centre and spread (P,)."""

    arms: tuple[str, ...]
    weights: NDArray[np.float64]
    bias: Vector
    centre: Vector
    spread: Vector


class _State(Struct, frozen=True, array_like=True):
    kept: Columns
    arms: tuple[str, ...]
    arrays: list[bytes]


class Logistic(Batch[Lines]):
    """Rates an arm by its own logistic regression; arms it was not trained on get the mean.

    Lessons are kept until `fit` or `refit` trains on them; without `train` it declines.
    """

    name = "logistic"

    def __init__(self, train: Callable[[Examples], Lines] | None = None) -> None:
        super().__init__(meaning_and_surface, train)

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

    def snapshot(self) -> bytes:
        """Return the whole state; the same state always gives the same bytes."""
        lines = self._model
        arrays = [] if lines is None else [lines.weights, lines.bias, lines.centre, lines.spread]
        return msgpack.encode(
            _State(
                self._kept.pack(),
                () if lines is None else lines.arms,
                [array.tobytes() for array in arrays],
            )
        )

    @classmethod
    def restore(cls, snapshot: bytes) -> Self:
        """Return the policy that `snapshot` was taken of; it cannot train.

        Raises:
            msgspec.DecodeError: the bytes are not a snapshot of this policy.
        """
        state = msgpack.decode(snapshot, type=_State)
        policy = cls()
        policy._kept = Kept.unpack(state.kept)
        if state.arms:
            weights, bias, centre, spread = (np.frombuffer(array) for array in state.arrays)
            shaped = weights.reshape(len(state.arms), -1)
            policy._model = Lines(state.arms, shaped, bias, centre, spread)
        return policy
