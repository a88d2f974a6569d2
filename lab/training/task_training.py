"""Training of the task model: logistic regression, temperature, novelty thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from zlib import crc32

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from sophia.routing.bandit.context.embedding import TokenIds
from sophia.routing.bandit.context.task_model import (
    EMBEDDING_SCALE,
    FEATURE_CLIP,
    FEATURE_SCALE,
    HASH_BUCKETS,
    TOKEN_SCALE,
    TaskModel,
    split_weights,
)
from sophia.routing.bandit.policy import Vector

Matrix = NDArray[np.float64]
Codes = NDArray[np.intp]

HELD_OUT_EVERY = 5
TEMPERATURES = np.geomspace(0.5, 3.0, 40)


@dataclass(frozen=True)
class EncodedTexts:
    """Inputs of the task model: hashed buckets, embeddings (N, D) and features (N, F)."""

    buckets: Sequence[TokenIds]
    embeddings: Matrix
    features: Matrix

    def select(self, rows: NDArray[np.bool_] | Codes) -> "EncodedTexts":
        """Return the texts in `rows`, a mask or positions."""
        where = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return EncodedTexts(
            [self.buckets[row] for row in where], self.embeddings[rows], self.features[rows]
        )


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the logistic regression; `inverse_penalty` is its C."""

    inverse_penalty: float = 0.3
    max_iterations: int = 80
    use_words: bool = True
    balance_classes: bool = False


# With few texts only surface features generalise; with many, words do too.
TRAINING_CONFIGS = (TrainingConfig(inverse_penalty=1.0, use_words=False), TrainingConfig())


def train_task_model(
    texts: EncodedTexts,
    labels: Codes,
    names: Sequence[str],
    configs: Sequence[TrainingConfig] = TRAINING_CONFIGS,
) -> TaskModel:
    """Return a model of `labels`, (N,), which are positions in `names`, or K for `unknown`.

    A fifth of the texts is held out to choose among `configs` and to fit the temperature; equal
    texts are on the same side. A class without texts gets zero weights and no centroid, so that
    its posterior is close to 0.
    """
    held = _select_held_out(texts, labels)
    best, draft, training = (1.0, np.inf), None, configs[0]
    for candidate in configs:
        fitted = _fit_task_model(texts.select(~held), labels[~held], names, candidate)
        if not held.any():
            return fitted
        result = _fit_temperature(predict_scores(fitted, texts.select(held)), labels[held])
        if draft is None or result[1] < best[1]:
            best, draft, training = result, fitted, candidate
    assert draft is not None
    distance = 1.0 - (texts.select(held).embeddings @ draft.centroids.T).max(axis=1)
    novelty_start, median = (float(one) for one in np.quantile(distance, [0.98, 0.5]))
    final = _fit_task_model(texts, labels, names, training)
    novelty_end = novelty_start + max(novelty_start - median, 0.05)
    return replace(final, temperature=best[0], novelty_start=novelty_start, novelty_end=novelty_end)


def dump_task_model(model: TaskModel) -> bytes:
    """Return a model as `load_task_model` reads it; the same model gives the same bytes."""
    target = BytesIO()
    np.savez_compressed(
        target,
        names=np.frombuffer("\n".join(model.known_tasks).encode(), np.uint8),
        weights=np.hstack([model.dense_weights, model.hash_weights.T]).astype(np.float16),
        bias=model.bias,
        centre=model.feature_mean,
        spread=model.feature_scale,
        centroids=model.centroids.astype(np.float16),
        numbers=np.array([model.temperature, model.novelty_start, model.novelty_end]),
    )
    return target.getvalue()


def _select_held_out(texts: EncodedTexts, labels: Codes) -> NDArray[np.bool_]:
    """Return the mask of held-out texts, which never covers all texts of a class."""
    held = np.array([crc32(np.array(one).tobytes()) % HELD_OUT_EVERY == 0 for one in texts.buckets])
    if held.all() or not held.any():
        held = np.arange(len(labels)) % HELD_OUT_EVERY == 0
    return held & np.isin(labels, labels[~held])


def predict_posteriors(model: TaskModel, texts: EncodedTexts) -> Matrix:
    """Return the posterior of each text, (N, K + 1)."""
    return np.array(
        [
            model.posterior(buckets, vector, features)
            for buckets, vector, features in zip(
                texts.buckets, texts.embeddings, texts.features, strict=True
            )
        ]
    )


def predict_scores(model: TaskModel, texts: EncodedTexts) -> Matrix:
    """Return the logits of each text, (N, K + 1)."""
    return np.array(
        [
            model.logits(buckets, vector, features)
            for buckets, vector, features in zip(
                texts.buckets, texts.embeddings, texts.features, strict=True
            )
        ]
    )


def _fit_task_model(
    texts: EncodedTexts, labels: Codes, names: Sequence[str], training: TrainingConfig
) -> TaskModel:
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    centre, spread = texts.features.mean(axis=0), texts.features.std(axis=0)
    spread = np.where(spread > 1e-6, spread, np.inf)
    standard = FEATURE_SCALE * np.clip(
        (texts.features - centre) / spread, -FEATURE_CLIP, FEATURE_CLIP
    )
    parts = [sparse.csr_matrix(np.hstack([EMBEDDING_SCALE * texts.embeddings, standard]))]
    if training.use_words:
        parts.append(_build_bags(texts.buckets))
    size = texts.embeddings.shape[1] + texts.features.shape[1]
    weights = np.zeros((len(names) + 1, size + HASH_BUCKETS), np.float32)
    bias: Vector = np.full(len(names) + 1, -30.0)
    present = np.unique(labels)
    if len(present) == 1:
        bias[present] = 0.0
    else:
        fitted = LogisticRegression(
            C=training.inverse_penalty,
            max_iter=training.max_iterations,
            tol=1e-3,
            class_weight="balanced" if training.balance_classes else None,
        )
        _fit_without_warnings(fitted, sparse.hstack(parts).tocsr(), labels)
        found, start = fitted.coef_, fitted.intercept_
        if len(present) == 2:
            found, start = np.vstack([-found / 2, found / 2]), np.array([-start[0], start[0]]) / 2
        weights[present, : found.shape[1]] = found
        bias[present] = start
    centroids = np.zeros((len(names), texts.embeddings.shape[1]))
    for label in present[present < len(names)]:
        mean = texts.embeddings[labels == label].mean(axis=0)
        centroids[label] = mean / max(float(np.sqrt(mean @ mean)), 1e-9)
    dense_weights, hash_weights = split_weights(weights)
    return TaskModel(
        known_tasks=tuple(names),
        dense_weights=dense_weights,
        hash_weights=hash_weights,
        bias=bias,
        feature_mean=centre,
        feature_scale=spread,
        centroids=centroids,
        temperature=1.0,
        novelty_start=0.5,
        novelty_end=1.0,
    )


def _fit_without_warnings(fitted: object, design: object, labels: Codes) -> None:
    """Fit without the convergence warning, since `max_iterations` bounds the time on purpose."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit(design, labels)  # type: ignore[attr-defined] # sklearn has no types


def _build_bags(places: Sequence[TokenIds]) -> object:
    from scipy import sparse

    sizes = np.array([len(one) for one in places])
    values = np.repeat(TOKEN_SCALE / np.sqrt(np.maximum(sizes, 1)), sizes)
    columns = np.concatenate(places) if places else np.empty(0, np.intp)
    edges = np.concatenate([[0], np.cumsum(sizes)])
    return sparse.csr_matrix((values, columns, edges), shape=(len(places), HASH_BUCKETS))


def _fit_temperature(scores: Matrix, labels: Codes) -> tuple[float, float]:
    """Return the temperature of the lowest log loss, and that loss in nats."""
    losses = []
    for temperature in TEMPERATURES:
        scaled = scores / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        norm = np.log(np.exp(scaled).sum(axis=1))
        losses.append(float((norm - scaled[np.arange(len(labels)), labels]).mean()))
    best = int(np.argmin(losses))
    return float(TEMPERATURES[best]), losses[best]
