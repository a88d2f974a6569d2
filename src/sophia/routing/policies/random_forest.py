"""The plan's policy: a random forest over the features names the model that will do well."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct, msgpack

from sophia.routing.policies.lessons import Batch, surface
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


class _Packed(Struct, frozen=True, array_like=True):
    arms: tuple[str, ...]
    share: bytes
    mean: float
    trees: PackedTrees


class RandomForest(Batch[Forest]):
    """Declines until 100 outcomes are known; then trusts the forest.

    The forest is trained to name the arm of an outcome, each counted by its quality. Where all arms
    are tried alike, its votes are in proportion to their qualities; where not, each arm's votes are
    divided by its share of the trials. Without `train` it declines.
    """

    name = "random_forest"
    enough = ENOUGH
    see = staticmethod(surface)

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

    @staticmethod
    def pack(model: Forest) -> bytes:
        """Return the forest as bytes."""
        share, trees = model.share.tobytes(), model.trees.pack()
        return msgpack.encode(_Packed(model.arms, share, model.mean, trees))

    @staticmethod
    def unpack(packed: bytes) -> Forest:
        """Return the forest that was packed."""
        found = msgpack.decode(packed, type=_Packed)
        share = np.frombuffer(found.share)
        return Forest(found.arms, share, found.mean, found.trees.unpack())
