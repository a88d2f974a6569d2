"""What kind of task a request is: a calibrated posterior that can say that it does not know."""

from io import BytesIO

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.routing.embedding import Ids
from sophia.routing.policies.policy import Vector

Matrix = NDArray[np.float64]

BUCKETS = 2048
READ_TOKENS = 400
CLIP = 4.0
EMBEDDING_SCALE, FEATURE_SCALE, BAG_SCALE = 4.0, 0.5, 4.0
UNKNOWN = "unknown"
HINT_TRUST = 0.9
_HASH, _FIRST, _SECOND = np.uint64(2654435761), np.uint64(31_337), np.uint64(7_919)
_ONE, _SHIFT, _MASK = np.uint64(1), np.uint64(8), np.uint64(BUCKETS - 1)
_PLACES = np.arange(1, 8, dtype=np.uint64) * np.uint64(1_000_003)


class TaskModel(Struct, frozen=True):
    """A multinomial logistic model as arrays, with what is usual among the texts it learned from.

    Attributes:
        names: the K classes; the posterior has one more place, for `unknown`.
        dense: shape (K, D + F), of the embedding and the features.
        bag: shape (K, BUCKETS), of the words that occur.
        bias: shape (K,).
        centre, spread: shape (F,), of the features it learned from.
        centroids: shape (K, D), unit vectors; zeros for a class without texts.
        usual, strange: the distance to the nearest centroid at which novelty begins, and is whole.
    """

    names: tuple[str, ...]
    dense: Matrix
    bag: NDArray[np.float32]
    bias: Vector
    centre: Vector
    spread: Vector
    centroids: Matrix
    temperature: float
    usual: float
    strange: float

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the places of a posterior: the K classes, then `unknown`."""
        return (*self.names, UNKNOWN)

    def posterior(self, ids: Ids, embedding: Vector, features: Vector) -> Vector:
        """Return the chance of each class, (K + 1,); what is unlike all classes is `unknown`."""
        scores = self.scores(ids, embedding, features) / self.temperature
        chances = np.exp(scores - scores.max())
        unknown = self.novelty(embedding)
        result: Vector = np.empty(len(chances) + 1)
        result[:-1] = chances * ((1.0 - unknown) / chances.sum())
        result[-1] = unknown
        return result

    def scores(self, ids: Ids, embedding: Vector, features: Vector) -> Vector:
        """Return the unnormalised log-chances of the K classes."""
        known = np.concatenate([EMBEDDING_SCALE * embedding, self.standard(features)])
        found: Vector = self.dense @ known + self.bias
        present = _present(ids)
        count = float(present.sum())
        if count:
            found += (self.bag @ present) * (BAG_SCALE / count**0.5)
        return found

    def standard(self, features: Vector) -> Vector:
        """Return the features as the weights expect them."""
        far = (features - self.centre) / self.spread
        return FEATURE_SCALE * np.minimum(np.maximum(far, -CLIP), CLIP)

    def novelty(self, embedding: Vector) -> float:
        """Return 0 for a text like those learned from, up to 1 for one unlike them all."""
        if not embedding.any():
            return 1.0
        distance = 1.0 - float((self.centroids @ embedding).max())
        return min(max((distance - self.usual) / (self.strange - self.usual), 0.0), 1.0)

    def dump(self) -> bytes:
        """Return the model as an .npz without pickles; the same model gives the same bytes."""
        target = BytesIO()
        np.savez_compressed(
            target,
            names=np.frombuffer("\n".join(self.names).encode(), np.uint8),
            weights=np.hstack([self.dense, self.bag]).astype(np.float16),
            bias=self.bias,
            centre=self.centre,
            spread=self.spread,
            centroids=self.centroids.astype(np.float16),
            numbers=np.array([self.temperature, self.usual, self.strange]),
        )
        return target.getvalue()


def read_tasks(blob: bytes) -> TaskModel:
    """Return the model written by `TaskModel.dump`; its weights were rounded to half precision."""
    with np.load(BytesIO(blob), allow_pickle=False) as table:
        dense, bag = halves(table["weights"].astype(np.float32))
        temperature, usual, strange = table["numbers"].tolist()
        return TaskModel(
            tuple(table["names"].tobytes().decode().split("\n")),
            dense,
            bag,
            table["bias"],
            table["centre"],
            table["spread"],
            table["centroids"].astype(np.float64),
            temperature,
            usual,
            strange,
        )


def halves(weights: NDArray[np.float32]) -> tuple[Matrix, NDArray[np.float32]]:
    """Return the `dense` and the `bag` part of weights that stand side by side, each contiguous."""
    return (
        np.ascontiguousarray(weights[:, :-BUCKETS], np.float64),
        np.ascontiguousarray(weights[:, -BUCKETS:]),
    )


def buckets(ids: Ids) -> NDArray[np.intp]:
    """Return the hashed features of a text: its tokens, their pairs, and its first and last."""
    return np.flatnonzero(_present(ids))


def _present(ids: Ids) -> NDArray[np.float32]:
    """Return 1 for each bucket that a text has something in, (BUCKETS,)."""
    present = np.zeros(BUCKETS, np.float32)
    if len(ids):
        tokens = ids[:READ_TOKENS].astype(np.uint64) + _ONE
        ends = np.concatenate([tokens[:4], tokens[-3:]])
        pairs = tokens[:-1] * _FIRST + tokens[1:] * _SECOND
        keys = np.concatenate([tokens, pairs, ends + _PLACES[: len(ends)]])
        present[(keys * _HASH >> _SHIFT) & _MASK] = 1.0
    return present


def combine(posterior: Vector, *evidence: Vector) -> Vector:
    """Return the posterior after further evidence, each the chances of the same classes, (T,)."""
    result = posterior.copy()
    for likelihood in evidence:
        result *= likelihood
    total = float(result.sum())
    return result / total if total > 0.0 else posterior


def hint(classes: int, declared: int) -> Vector:
    """Return a caller's declaration as evidence: trusted, but not against all odds."""
    evidence = np.full(classes, (1.0 - HINT_TRUST) / max(classes - 1, 1))
    evidence[declared] = HINT_TRUST
    return evidence
