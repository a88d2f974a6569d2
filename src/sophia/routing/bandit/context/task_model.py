"""The task model: a calibrated posterior over task classes, with a class `unknown`."""

from io import BytesIO

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.routing.bandit.context.embedding import TokenIds
from sophia.routing.bandit.policy import Matrix, Vector

HASH_BUCKETS = 2048
MAX_HASHED_TOKENS = 400
FEATURE_CLIP = 4.0
EMBEDDING_SCALE, FEATURE_SCALE, TOKEN_SCALE = 4.0, 0.5, 4.0
UNKNOWN_TASK = "unknown"
DECLARED_TRUST = 0.9
"""The probability of the task type that a caller declares, before the text."""

_HASH_FACTOR = np.uint64(2654435761)
_PAIR_FIRST_FACTOR, _PAIR_SECOND_FACTOR = np.uint64(31_337), np.uint64(7_919)
_ONE, _SHIFT, _MASK = np.uint64(1), np.uint64(8), np.uint64(HASH_BUCKETS - 1)
_POSITION_OFFSETS = np.arange(1, 8, dtype=np.uint64) * np.uint64(1_000_003)


class TaskModel(Struct, frozen=True, kw_only=True):
    """A multinomial logistic model, with the distances that are usual among its training texts.

    Attributes:
        known_tasks: the K classes; the posterior has one more place, for `unknown`.
        dense_weights: shape (K, D + F), of the embedding and the features.
        token_weights: shape (K, BUCKETS), of the hashed words.
        bias: shape (K,).
        feature_mean, feature_scale: shape (F,), of the training features.
        centroids: shape (K, D), unit vectors; zeros for a class without texts.
        temperature: divides the scores.
        novelty_start, novelty_end: distances to the nearest centroid of novelty 0 and 1.
    """

    known_tasks: tuple[str, ...]
    dense_weights: Matrix
    token_weights: NDArray[np.float32]
    bias: Vector
    feature_mean: Vector
    feature_scale: Vector
    centroids: Matrix
    temperature: float
    novelty_start: float
    novelty_end: float

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the places of a posterior: the K classes, then `unknown`."""
        return (*self.known_tasks, UNKNOWN_TASK)

    def posterior(self, ids: TokenIds, embedding: Vector, features: Vector) -> Vector:
        """Return the probability of each class, (K + 1,); novel texts are `unknown`."""
        scores = self.logits(ids, embedding, features) / self.temperature
        weights = np.exp(scores - scores.max())
        unknown = self.novelty(embedding)
        result: Vector = np.empty(len(weights) + 1)
        result[:-1] = weights * ((1.0 - unknown) / weights.sum())
        result[-1] = unknown
        return result

    def logits(self, ids: TokenIds, embedding: Vector, features: Vector) -> Vector:
        """Return the unnormalised log-probabilities of the K classes."""
        dense = np.concatenate([EMBEDDING_SCALE * embedding, self.standardize(features)])
        scores: Vector = self.dense_weights @ dense + self.bias
        buckets = hash_tokens(ids)
        count = float(buckets.sum())
        if count:
            scores += (self.token_weights @ buckets) * (TOKEN_SCALE / count**0.5)
        return scores

    def standardize(self, features: Vector) -> Vector:
        """Return the features as the weights expect them."""
        scaled = (features - self.feature_mean) / self.feature_scale
        return FEATURE_SCALE * np.minimum(np.maximum(scaled, -FEATURE_CLIP), FEATURE_CLIP)

    def novelty(self, embedding: Vector) -> float:
        """Return 0 for a text like the training texts, up to 1 for one unlike them all."""
        if not embedding.any():
            return 1.0
        distance = 1.0 - float((self.centroids @ embedding).max())
        share = (distance - self.novelty_start) / (self.novelty_end - self.novelty_start)
        return min(max(share, 0.0), 1.0)


def load_task_model(blob: bytes) -> TaskModel:
    """Return the model in `blob`, an .npz with weights in half precision."""
    with np.load(BytesIO(blob), allow_pickle=False) as table:
        dense, tokens = split_weights(table["weights"].astype(np.float32))
        temperature, novelty_start, novelty_end = table["numbers"].tolist()
        return TaskModel(
            known_tasks=tuple(table["names"].tobytes().decode().split("\n")),
            dense_weights=dense,
            token_weights=tokens,
            bias=table["bias"],
            feature_mean=table["centre"],
            feature_scale=table["spread"],
            centroids=table["centroids"].astype(np.float64),
            temperature=temperature,
            novelty_start=novelty_start,
            novelty_end=novelty_end,
        )


def split_weights(weights: NDArray[np.float32]) -> tuple[Matrix, NDArray[np.float32]]:
    """Split weights, (K, D + F + BUCKETS), into `dense_weights` and `token_weights`."""
    return (
        np.ascontiguousarray(weights[:, :-HASH_BUCKETS], np.float64),
        np.ascontiguousarray(weights[:, -HASH_BUCKETS:]),
    )


def hash_tokens(ids: TokenIds) -> NDArray[np.float32]:
    """Return 1 for each bucket of a text's tokens, pairs and ends, else 0, (BUCKETS,)."""
    buckets = np.zeros(HASH_BUCKETS, np.float32)
    if len(ids):
        tokens = ids[:MAX_HASHED_TOKENS].astype(np.uint64) + _ONE
        ends = np.concatenate([tokens[:4], tokens[-3:]])
        pairs = tokens[:-1] * _PAIR_FIRST_FACTOR + tokens[1:] * _PAIR_SECOND_FACTOR
        keys = np.concatenate([tokens, pairs, ends + _POSITION_OFFSETS[: len(ends)]])
        buckets[(keys * _HASH_FACTOR >> _SHIFT) & _MASK] = 1.0
    return buckets


def combine_evidence(posterior: Vector, likelihood: Vector) -> Vector:
    """Return the posterior after further evidence, (T,), unless it excludes every class."""
    result = posterior * likelihood
    total = float(result.sum())
    return result / total if total > 0.0 else posterior
