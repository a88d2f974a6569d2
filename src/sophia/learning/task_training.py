"""Training of the task model: logistic regression, a temperature and the usual distances."""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from sophia.routing.embedding import Ids
from sophia.routing.policies.policy import Vector
from sophia.routing.tasks import (
    BAG_SCALE,
    BUCKETS,
    CLIP,
    EMBEDDING_SCALE,
    FEATURE_SCALE,
    TaskModel,
    buckets,
    halves,
)

Matrix = NDArray[np.float64]
Codes = NDArray[np.intp]

HELD_OUT = 5
TEMPERATURES = np.geomspace(0.5, 3.0, 40)


@dataclass(frozen=True)
class Texts:
    """What is known of texts: token ids, embeddings (N, D) and features (N, F)."""

    ids: Sequence[Ids]
    embeddings: Matrix
    features: Matrix

    def take(self, rows: NDArray[np.bool_] | Codes) -> "Texts":
        """Return some of the texts."""
        where = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return Texts([self.ids[row] for row in where], self.embeddings[rows], self.features[rows])


@dataclass(frozen=True)
class Training:
    """How to train: `strength` is the inverse penalty, `patience` the most steps."""

    strength: float = 0.3
    patience: int = 80
    with_bag: bool = True
    balanced: bool = False


# Few texts speak by their surface, many by their words too.
TRAININGS = (Training(strength=1.0, with_bag=False), Training())


def train_tasks(
    texts: Texts, labels: Codes, names: Sequence[str], trainings: Sequence[Training] = TRAININGS
) -> TaskModel:
    """Return a model of `labels`, (N,), which are positions in `names`.

    A fifth of the texts is held out to choose among `trainings` and to set the temperature; the
    same text is never on both sides. A class without texts gets no weight and no centroid: the
    posterior hardly ever names it.
    """
    held = _held_out(texts, labels)
    best, draft, training = (1.0, np.inf), None, trainings[0]
    for candidate in trainings:
        fitted = _fitted(texts.take(~held), labels[~held], names, candidate)
        if not held.any():
            return fitted
        result = _temperature(scores_of(fitted, texts.take(held)), labels[held])
        if draft is None or result[1] < best[1]:
            best, draft, training = result, fitted, candidate
    assert draft is not None
    distance = 1.0 - (texts.take(held).embeddings @ draft.centroids.T).max(axis=1)
    usual, middle = (float(one) for one in np.quantile(distance, [0.98, 0.5]))
    final = _fitted(texts, labels, names, training)
    strange = usual + max(usual - middle, 0.05)
    return replace(final, temperature=best[0], usual=usual, strange=strange)


def _held_out(texts: Texts, labels: Codes) -> NDArray[np.bool_]:
    """Return which texts are held out; never all of a class, of which nothing would be learned."""
    held = np.array([crc32(np.array(ids).tobytes()) % HELD_OUT == 0 for ids in texts.ids])
    if held.all() or not held.any():
        held = np.arange(len(labels)) % HELD_OUT == 0
    return held & np.isin(labels, labels[~held])


def posteriors(model: TaskModel, texts: Texts) -> Matrix:
    """Return the posterior of each text, (N, K + 1)."""
    return np.array(
        [
            model.posterior(ids, vector, features)
            for ids, vector, features in zip(
                texts.ids, texts.embeddings, texts.features, strict=True
            )
        ]
    )


def scores_of(model: TaskModel, texts: Texts) -> Matrix:
    """Return the unnormalised log-chances of each text, (N, K)."""
    return np.array(
        [
            model.scores(ids, vector, features)
            for ids, vector, features in zip(
                texts.ids, texts.embeddings, texts.features, strict=True
            )
        ]
    )


def _fitted(texts: Texts, labels: Codes, names: Sequence[str], training: Training) -> TaskModel:
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    centre, spread = texts.features.mean(axis=0), texts.features.std(axis=0)
    spread = np.where(spread > 1e-6, spread, np.inf)
    standard = FEATURE_SCALE * np.clip((texts.features - centre) / spread, -CLIP, CLIP)
    parts = [sparse.csr_matrix(np.hstack([EMBEDDING_SCALE * texts.embeddings, standard]))]
    if training.with_bag:
        parts.append(_bag(texts.ids))
    size = texts.embeddings.shape[1] + texts.features.shape[1]
    weights = np.zeros((len(names), size + BUCKETS), np.float32)
    bias: Vector = np.full(len(names), -30.0)
    present = np.unique(labels)
    if len(present) == 1:
        bias[present] = 0.0
    else:
        fitted = LogisticRegression(
            C=training.strength,
            max_iter=training.patience,
            tol=1e-3,
            class_weight="balanced" if training.balanced else None,
        )
        _quietly(fitted, sparse.hstack(parts).tocsr(), labels)
        found, start = fitted.coef_, fitted.intercept_
        if len(present) == 2:
            found, start = np.vstack([-found / 2, found / 2]), np.array([-start[0], start[0]]) / 2
        weights[present, : found.shape[1]] = found
        bias[present] = start
    centroids = np.zeros((len(names), texts.embeddings.shape[1]))
    for label in present:
        mean = texts.embeddings[labels == label].mean(axis=0)
        centroids[label] = mean / max(float(np.sqrt(mean @ mean)), 1e-9)
    return TaskModel(
        tuple(names), *halves(weights), bias, centre, spread, centroids, 1.0, usual=0.5, strange=1.0
    )


def _quietly(fitted: object, design: object, labels: Codes) -> None:
    """Fit without the warning that the steps ran out, which is how the time is bounded."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit(design, labels)  # type: ignore[attr-defined] # sklearn has no types


def _bag(ids: Sequence[Ids]) -> object:
    from scipy import sparse

    places = [buckets(one) for one in ids]
    sizes = np.array([len(one) for one in places])
    values = np.repeat(BAG_SCALE / np.sqrt(np.maximum(sizes, 1)), sizes)
    columns = np.concatenate(places) if places else np.empty(0, np.intp)
    edges = np.concatenate([[0], np.cumsum(sizes)])
    return sparse.csr_matrix((values, columns, edges), shape=(len(ids), BUCKETS))


def _temperature(scores: Matrix, labels: Codes) -> tuple[float, float]:
    """Return the temperature under which the labels are likeliest, and the loss there, in nats."""
    losses = []
    for temperature in TEMPERATURES:
        scaled = scores / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        norm = np.log(np.exp(scaled).sum(axis=1))
        losses.append(float((norm - scaled[np.arange(len(labels)), labels]).mean()))
    best = int(np.argmin(losses))
    return float(TEMPERATURES[best]), losses[best]
