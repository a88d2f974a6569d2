"""The plan's policy: a random forest over the features names the model that will do well."""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from msgspec import Struct, msgpack

from sophia.routing.policies.lessons import Batch, Columns, Examples, Kept, surface
from sophia.routing.policies.policy import Ratings, Sight, Vector
from sophia.routing.policies.trees import PackedTrees, Trees

ENOUGH = 100


class Forest(Struct, frozen=True):
    """A classifier of arms: column `n` of the trees' values speaks of `arms[n]`.

    Attributes:
        share: shape (A,), each arm's share of the outcomes that it was trained on.
        mean: the mean quality of these outcomes.
    """

    arms: tuple[str, ...]
    share: Vector
    mean: float
    trees: Trees


class _State(Struct, frozen=True, array_like=True):
    kept: Columns
    arms: tuple[str, ...]
    share: bytes = b""
    mean: float = 0.0
    trees: PackedTrees | None = None


class RandomForest(Batch[Forest]):
    """Declines until 100 outcomes are known; then trusts the forest.

    The forest is trained to name the arm of an outcome, each counted by its quality. Where all arms
    are tried alike, its votes are in proportion to their qualities; where not, each arm's votes are
    divided by its share of the trials. Without `train` it declines.
    """

    name = "random_forest"

    def __init__(self, train: Callable[[Examples], Forest] | None = None) -> None:
        super().__init__(surface, train, ENOUGH)

    def votes(self, sight: Sight) -> dict[str, float]:
        """Return the share of votes for each arm; empty before the forest is trained."""
        if self._model is None:
            return {}
        # The trees were grown on single precision and must be walked with it.
        row = surface(sight).astype(np.float32).astype(np.float64)
        shares = self._model.trees.say(row).mean(axis=0)
        return dict(zip(self._model.arms, shares.tolist(), strict=True))

    def rate(self, sight: Sight, arms: Sequence[str]) -> Ratings | None:
        """Return what to expect of `arms`, or None before 100 outcomes were trained on."""
        forest = self._model
        if forest is None:
            return None
        votes = np.array(list(self.votes(sight).values()))
        quality = np.clip(votes / forest.share * forest.mean, 0.0, 1.0).tolist()
        known = dict(zip(forest.arms, quality, strict=True))
        return Ratings(
            np.array([known.get(arm, forest.mean) for arm in arms]), np.zeros(len(arms))
        )

    def snapshot(self) -> bytes:
        """Return the whole state; the same state always gives the same bytes."""
        forest = self._model
        if forest is None:
            return msgpack.encode(_State(self._kept.pack(), ()))
        return msgpack.encode(
            _State(
                self._kept.pack(),
                forest.arms,
                forest.share.tobytes(),
                forest.mean,
                forest.trees.pack(),
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
            share = np.frombuffer(state.share)
            policy._model = Forest(state.arms, share, state.mean, state.trees.unpack())
        return policy
