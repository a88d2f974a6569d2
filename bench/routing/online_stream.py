"""A table of outcomes as a stream of requests: what a router sees, and what each arm would give."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sophia.learning.tables import Matrix, OutcomeTable
from sophia.routing.embedding import ends, read_embedding
from sophia.routing.policies.hierarchical import Projection
from sophia.routing.policies.policy import Prior, Sight, Vector

FOLDS = 5
COMPONENTS = 25
PRICE = 0.1
TASK_WEIGHT = 5.0
NOISE = 0.06
PRIOR_SD = 0.06
EMBEDDING_SCALE = 4.0


@dataclass(frozen=True)
class Stream:
    """Requests with their sights, and by arm the score, the cost and the cost that is expected.

    `informed` is what the router with all outcomes of all arms would take: for each question the
    arm of the best utility under the task posterior, with means from the other folds.
    """

    name: str
    arms: tuple[str, ...]
    sights: tuple[Sight, ...]
    codes: NDArray[np.intp]
    quality: Matrix
    cost: Matrix
    expected_cost: Matrix
    reference: float
    informed: NDArray[np.intp]
    projection: Projection

    @property
    def utility(self) -> Matrix:
        """Score less 0.1 times the cost over the best arm's mean cost, (N, A)."""
        return self.quality - PRICE * self.cost / self.reference

    @property
    def task_count(self) -> int:
        return len(self.sights[0].tasks)

    def task_means(self) -> Matrix:
        """Return each arm's mean score by true task, (A, T)."""
        return np.stack(
            [self.quality[self.codes == task].mean(axis=0) for task in range(self.task_count)],
            axis=1,
        )


def stream_of(table: OutcomeTable) -> Stream:
    """Return the stream of a table: static embedding, cross-fitted task posterior and costs.

    A task's classifier has seen the other folds only. Without recorded costs all arms cost the
    same. The projection is made of the texts alone.
    """
    embedding = embed([question.text for question in table.questions])
    features = _features(table)
    codes, folds = table.task_codes(), table.folds(FOLDS)
    posterior = _posterior(np.hstack([EMBEDDING_SCALE * embedding, features]), codes, folds)
    cost = np.ones_like(table.quality) if table.cost is None else table.cost
    best = int(table.quality.mean(axis=0).argmax())
    reference = float(cost[:, best].mean())
    utility = table.quality - PRICE * cost / reference
    return Stream(
        table.name,
        table.arms,
        tuple(
            Sight(tasks, vector, surface)
            for tasks, vector, surface in zip(posterior, embedding, features, strict=True)
        ),
        codes,
        table.quality,
        cost,
        _by_task(cost, posterior, folds),
        reference,
        _by_task(utility, posterior, folds).argmax(axis=1),
        _projection(embedding),
    )


def embed(texts: Sequence[str]) -> Matrix:
    """Return the shipped static embedding of `texts`, (N, D)."""
    blob = files("sophia.routing").joinpath("data/embedding.npz").read_bytes()
    static = read_embedding(blob)
    return np.stack([static.vector(static.ids(ends(text))) for text in texts])


def priors_of(
    stream: Stream, kind: str, rng: np.random.Generator, folder: Path | None = None
) -> dict[str, Prior]:
    """Return priors: `noisy` (true task means ± 6 points), `flat`, or `real` (from benchmarks).

    Raises:
        FileNotFoundError: there is no file of real priors for this stream.
    """
    tasks = stream.task_count
    sd = np.full(tasks, PRIOR_SD)
    if kind == "flat":
        return {arm: Prior(np.full(tasks, 0.6), sd) for arm in stream.arms}
    if kind == "real":
        if folder is None or not (path := real_priors(folder, stream.name)).is_file():
            raise FileNotFoundError(f"no benchmark priors for {stream.name}")
        means = json.loads(path.read_text())
        return {arm: Prior(np.full(tasks, means[arm]), sd) for arm in stream.arms}
    truth = stream.task_means()
    guess = np.clip(truth + rng.normal(0.0, NOISE, truth.shape), 0.0, 1.0)
    return {arm: Prior(guess[row], sd) for row, arm in enumerate(stream.arms)}


def real_priors(folder: Path, name: str) -> Path:
    """Return where the benchmark means of a stream's arms would be."""
    return folder / "priors" / f"{'mix2024' if name == 'mix' else name}.json"


def _features(table: OutcomeTable) -> Matrix:
    chars = np.array([len(question.text) for question in table.questions])
    tools = np.array([question.tools for question in table.questions])
    digits = np.array([sum(map(str.isdigit, question.text)) for question in table.questions])
    return np.stack(
        [
            np.log1p(chars) / 5.0 - 1.2,
            np.minimum(tools, 8) / 4.0,
            5.0 * digits / np.maximum(chars, 1),
        ],
        axis=1,
    )


def _posterior(design: Matrix, codes: NDArray[np.intp], folds: NDArray[np.intp]) -> Matrix:
    from sklearn.linear_model import LogisticRegression

    count = int(codes.max()) + 1
    posterior = np.full((len(codes), count), 1.0 / count)
    for fold in range(FOLDS):
        there = folds != fold
        if len(set(codes[there])) < 2 or there.all():
            continue
        model = LogisticRegression(C=3.0, max_iter=300).fit(design[there], codes[there])
        posterior[~there] = 0.0
        posterior[np.ix_(~there, model.classes_)] = model.predict_proba(design[~there])
    return posterior


def _by_task(values: Matrix, posterior: Matrix, folds: NDArray[np.intp]) -> Matrix:
    """Return what to expect by the task posterior, from means of the other folds, (N, A)."""
    expected = np.empty_like(values)
    for fold in range(FOLDS):
        there = folds != fold
        weights, some = posterior[there], values[there]
        means = weights.T @ some + TASK_WEIGHT * some.mean(axis=0)
        means /= weights.sum(axis=0)[:, None] + TASK_WEIGHT
        expected[~there] = posterior[~there] @ means
    return expected


def _projection(embedding: Matrix) -> Projection:
    """Return the first principal components, scaled to unit variance."""
    centre: Vector = embedding.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((embedding - centre).T))
    order = np.argsort(-values)[:COMPONENTS]
    order = order[values[order] > 1e-9]
    # The sign of a component is arbitrary, and must not depend on the machine.
    turned = vectors[:, order] * np.sign(vectors[:, order].sum(axis=0) + 1e-12)
    matrix = turned / np.sqrt(values[order])
    return Projection(matrix, centre @ matrix)
