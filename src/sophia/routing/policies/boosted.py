"""Gradient-boosted trees per arm over the task posterior and the features."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct, msgpack

from sophia.routing.policies.lessons import Batch, tasks_and_surface
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


class _Packed(Struct, frozen=True, array_like=True):
    arms: tuple[str, ...]
    base: bytes
    owner: bytes
    trees: PackedTrees


class Boosted(Batch[Boosts]):
    """Rates an arm by the sum of its trees; arms it was not trained on get the mean.

    Lessons are kept until `fit` or `refit` trains on them; without `train` it declines.
    """

    name = "boosted"
    see = staticmethod(tasks_and_surface)

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

    @staticmethod
    def pack(model: Boosts) -> bytes:
        """Return the trees as bytes."""
        base, owner = model.base.tobytes(), model.owner.tobytes()
        return msgpack.encode(_Packed(model.arms, base, owner, model.trees.pack()))

    @staticmethod
    def unpack(packed: bytes) -> Boosts:
        """Return the trees that were packed."""
        found = msgpack.decode(packed, type=_Packed)
        base, owner = np.frombuffer(found.base), np.frombuffer(found.owner)
        return Boosts(found.arms, base, owner, found.trees.unpack())
