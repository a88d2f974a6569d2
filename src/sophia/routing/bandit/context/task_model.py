"""The task model: a calibrated posterior over task classes, with a class `unknown`."""

from io import BytesIO

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.routing.bandit.context.embedding import TokenIds
from sophia.routing.bandit.policy import Matrix, Vector

HASH_BUCKETS = 16_384
MAX_HASHED_TOKENS = 400
HASHED_HEAD, HASHED_TAIL = 600, 200
"""Characters of a text whose sequences are hashed."""
FEATURE_CLIP = 4.0
EMBEDDING_SCALE, FEATURE_SCALE, TOKEN_SCALE = 4.0, 0.25, 8.0
UNKNOWN_TASK = "unknown"
DECLARED_TRUST = 0.9
"""The probability of the task type that a caller declares, before the text."""

_HASH_FACTOR = np.uint64(2654435761)
_PAIR_FIRST_FACTOR, _PAIR_SECOND_FACTOR = np.uint64(31_337), np.uint64(7_919)
_ONE, _SHIFT, _MASK = np.uint64(1), np.uint64(8), np.uint64(HASH_BUCKETS - 1)
_SPACE = np.uint64(32)
_SEQUENCE_LENGTHS = (2, 3, 4, 5)
_SEQUENCE_FACTOR, _SEQUENCE_OFFSET = np.uint64(1_048_583), np.uint64(7_777_777)
_POSITION_OFFSETS = np.arange(1, 8, dtype=np.uint64) * np.uint64(1_000_003)


class TaskModel(Struct, frozen=True, kw_only=True):
    """A multinomial logistic model, with the distances that are usual among its training texts.

    Attributes:
        known_tasks: the K classes; the posterior has one more place, for `unknown`.
        dense_weights: shape (K + 1, D + F), of the embedding and the features.
        hash_weights: shape (BUCKETS, K + 1), of the hashed words and character sequences.
        bias: shape (K + 1,).
        feature_mean, feature_scale: shape (F,), of the training features.
        centroids: shape (K, D), unit vectors; zeros for a class without texts.
        temperature: divides the scores.
        novelty_start, novelty_end: distances to the nearest centroid of novelty 0 and 1.
    """

    known_tasks: tuple[str, ...]
    dense_weights: Matrix
    hash_weights: NDArray[np.float32]
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

    def posterior(self, buckets: TokenIds, embedding: Vector, features: Vector) -> Vector:
        """Return the probability of each class, (K + 1,); novel texts are `unknown`."""
        scores = self.logits(buckets, embedding, features) / self.temperature
        weights: Vector = np.exp(scores - scores.max())
        novelty = self.novelty(embedding)
        weights *= (1.0 - novelty) / weights.sum()
        weights[-1] += novelty
        return weights

    def logits(self, buckets: TokenIds, embedding: Vector, features: Vector) -> Vector:
        """Return the unnormalised log-probabilities of the K classes and of `unknown`."""
        dense = np.concatenate([EMBEDDING_SCALE * embedding, self.standardize(features)])
        scores: Vector = self.dense_weights @ dense + self.bias
        if len(buckets):
            summed = self.hash_weights.take(buckets, axis=0).sum(axis=0)
            scores += summed * (TOKEN_SCALE / len(buckets) ** 0.5)
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
        dense, hashed = split_weights(table["weights"].astype(np.float32))
        temperature, novelty_start, novelty_end = table["numbers"].tolist()
        return TaskModel(
            known_tasks=tuple(table["names"].tobytes().decode().split("\n")),
            dense_weights=dense,
            hash_weights=hashed,
            bias=table["bias"],
            feature_mean=table["centre"],
            feature_scale=table["spread"],
            centroids=table["centroids"].astype(np.float64),
            temperature=temperature,
            novelty_start=novelty_start,
            novelty_end=novelty_end,
        )


def split_weights(weights: NDArray[np.float32]) -> tuple[Matrix, NDArray[np.float32]]:
    """Split weights, (K + 1, D + F + BUCKETS), into `dense_weights` and `hash_weights`."""
    return (
        np.ascontiguousarray(weights[:, :-HASH_BUCKETS], np.float64),
        np.ascontiguousarray(weights[:, -HASH_BUCKETS:].T),
    )


def hash_text(ids: TokenIds, text: str) -> TokenIds:
    """Return the buckets of a text's tokens, pairs, ends and character sequences, in order.

    Tokens serve English, of which the vocabulary is; sequences of characters every language.
    """
    keys = [_hash_characters(text)]
    if len(ids):
        tokens = ids[:MAX_HASHED_TOKENS].astype(np.uint64) + _ONE
        ends = np.concatenate([tokens[:4], tokens[-3:]])
        pairs = tokens[:-1] * _PAIR_FIRST_FACTOR + tokens[1:] * _PAIR_SECOND_FACTOR
        keys += [tokens, pairs, ends + _POSITION_OFFSETS[: len(ends)]]
    found = np.zeros(HASH_BUCKETS, np.bool_)
    found[(np.concatenate(keys) * _HASH_FACTOR >> _SHIFT) & _MASK] = True
    return np.flatnonzero(found)


def _hash_characters(text: str) -> NDArray[np.uint64]:
    if len(text) > HASHED_HEAD + HASHED_TAIL:
        text = f"{text[:HASHED_HEAD]} {text[-HASHED_TAIL:]}"
    raw = f" {text.lower()} ".encode("utf-32-le", "replace")
    codes = np.maximum(np.frombuffer(raw, np.uint32).astype(np.uint64), _SPACE)
    keys, key = [], codes
    for length in _SEQUENCE_LENGTHS:
        key = key[:-1] * _SEQUENCE_FACTOR + codes[length - 1 :] + _SEQUENCE_OFFSET
        keys.append(key)
    return np.concatenate(keys)


def combine_evidence(posterior: Vector, likelihood: Vector) -> Vector:
    """Return the posterior after further evidence, (T,), unless it excludes every class."""
    result = posterior * likelihood
    total = float(result.sum())
    return result / total if total > 0.0 else posterior
