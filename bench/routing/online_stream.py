"""A table of outcomes as a stream of requests: what a router sees, and what each arm would give."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sophia.learning.table_sights import fold_of, projection_of, read_texts
from sophia.learning.tables import Matrix, OutcomeTable
from sophia.routing.policies.hierarchical import Projection
from sophia.routing.policies.policy import Prior, Sight
from sophia.routing.policies.pooling import pooled

Tell = Callable[[float], None]

FOLDS = 5
PRICE = 0.1
TASK_WEIGHT = 5.0
NOISE = 0.06
PRIOR_SD = 0.06


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
        usual = self.quality.mean(axis=0)
        kept = [self.quality[self.codes == task] for task in range(self.task_count)]
        return np.stack([some.mean(axis=0) if len(some) else usual for some in kept], axis=1)


def stream_of(table: OutcomeTable, tell: Tell = lambda share: None) -> Stream:
    """Return the stream of a table, each request seen as by a gateway that learned the other folds.

    What is learned there is the task's posterior and the arms' usual cost by task; without
    recorded costs all arms cost the same. The projection is made of the texts alone.
    """
    texts = read_texts(table)
    folds = table.folds(FOLDS)
    sights: dict[int, Sight] = {}
    expected_cost = np.ones_like(table.quality)
    for number in range(FOLDS):
        there = folds == number
        if there.any() and not there.all():
            fold = fold_of(table, texts, ~there)
            sights.update((int(row), fold.sights[row]) for row in np.flatnonzero(there))
            expected_cost[there] = fold.costs[there]
        tell((number + 1) / FOLDS)
    seen = tuple(sights[row] for row in range(len(folds)))
    cost = np.ones_like(table.quality) if table.cost is None else table.cost
    reference = float(cost[:, int(table.quality.mean(axis=0).argmax())].mean())
    utility = table.quality - PRICE * cost / reference
    posterior = np.stack([sight.tasks for sight in seen])
    return Stream(
        table.name,
        table.arms,
        seen,
        table.task_codes(),
        table.quality,
        cost,
        expected_cost,
        reference,
        _by_task(utility, posterior, folds).argmax(axis=1),
        projection_of(texts.embeddings),
    )


def priors_of(
    stream: Stream, kind: str, rng: np.random.Generator, folder: Path | None = None
) -> dict[str, Prior]:
    """Return priors: `noisy` (true task means ± 6 points), `flat`, or `real` (from benchmarks).

    The noisy ones stand for a table of benchmark scores, and are pooled as such.

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
    return pooled({arm: Prior(guess[row], sd) for row, arm in enumerate(stream.arms)})


def real_priors(folder: Path, name: str) -> Path:
    """Return where the benchmark means of a stream's arms would be."""
    return folder / "priors" / f"{'mix2024' if name == 'mix' else name}.json"


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
