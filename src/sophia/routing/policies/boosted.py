"""Gradient-boosted trees per arm over the task posterior and the features."""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from msgspec import Struct, msgpack

from sophia.routing.policies.lessons import Batch, Columns, Examples, Kept, tasks_and_surface
from sophia.routing.policies.policy import Ratings, Sight, Vector
from sophia.routing.policies.trees import PackedTrees, Trees


class Boosts(Struct, frozen=True):
    """The trees of all arms in one, with what each arm starts from.

    Attributes:
        base: shape (A,).
        owner: shape (T,), the arm of each tree, in rising order.
    """

    arms: tuple[str, ...]
    base: Vector
    owner: Vector
    trees: Trees


class _State(Struct, frozen=True, array_like=True):
    kept: Columns
    arms: tuple[str, ...]
    base: bytes = b""
    owner: bytes = b""
    trees: PackedTrees | None = None


class Boosted(Batch[Boosts]):
    """Rates an arm by the sum of its trees; arms it was not trained on get the mean.

    Lessons are kept until `fit` or `refit` trains on them; without `train` it declines.
    """

    name = "boosted"

    def __init__(self, train: Callable[[Examples], Boosts] | None = None) -> None:
        super().__init__(tasks_and_surface, train)

    def rate(self, sight: Sight, arms: Sequence[str]) -> Ratings | None:
        """Return what to expect of `arms`, or None before the first training."""
        boosts = self._model
        if boosts is None:
            return None
        said = boosts.trees.say(tasks_and_surface(sight))[:, 0]
        sums = np.bincount(boosts.owner.astype(np.intp), said, len(boosts.arms))
        known = dict(zip(boosts.arms, np.clip(boosts.base + sums, 0, 1).tolist(), strict=True))
        mean = sum(known.values()) / len(known)
        return Ratings(np.array([known.get(arm, mean) for arm in arms]), np.zeros(len(arms)))

    def snapshot(self) -> bytes:
        """Return the whole state; the same state always gives the same bytes."""
        boosts = self._model
        if boosts is None:
            return msgpack.encode(_State(self._kept.pack(), ()))
        return msgpack.encode(
            _State(
                self._kept.pack(),
                boosts.arms,
                boosts.base.tobytes(),
                boosts.owner.tobytes(),
                boosts.trees.pack(),
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
        if state.trees is not None:
            base, owner = np.frombuffer(state.base), np.frombuffer(state.owner)
            policy._model = Boosts(state.arms, base, owner, state.trees.unpack())
        return policy
