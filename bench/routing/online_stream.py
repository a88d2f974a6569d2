"""A table of outcomes as a stream of requests with contexts and outcomes of every arm."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.routing.pooling import denoise_priors
from lab.evaluation.tables import Matrix, OutcomeTable
from lab.training.table_contexts import (
    Projection,
    TableContext,
    build_fold,
    encode_questions,
    fit_projection,
)
from sophia.routing.bandit.policy import Prior

ReportProgress = Callable[[float], None]

FOLDS = 5
PRICE = 0.1
TASK_WEIGHT = 5.0
NOISE = 0.06
PRIOR_SD = 0.06


@dataclass(frozen=True)
class Stream:
    """Contexts of requests, and score, cost and expected cost by arm.

    `informed` is the choice of a router that knows the outcomes of all arms on the other folds: the
    arm of the highest expected utility under each question's task posterior.
    """

    name: str
    arms: tuple[str, ...]
    contexts: tuple[TableContext, ...]
    task_ids: NDArray[np.intp]
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
        return len(self.contexts[0].task_probabilities)

    def task_means(self) -> Matrix:
        """Return each arm's mean score by true task, (A, T)."""
        mean_by_arm = self.quality.mean(axis=0)
        kept = [self.quality[self.task_ids == task] for task in range(self.task_count)]
        return np.stack([some.mean(axis=0) if len(some) else mean_by_arm for some in kept], axis=1)


def build_stream(
    table: OutcomeTable, report_progress: ReportProgress = lambda share: None
) -> Stream:
    """Return the stream of a table, with contexts and expected costs trained on the other folds.

    Without recorded costs all arms cost the same. The projection is fitted to the texts alone.
    """
    texts = encode_questions(table.questions)
    folds = table.assign_folds(FOLDS)
    contexts: dict[int, TableContext] = {}
    expected_cost = np.ones_like(table.quality)
    for number in range(FOLDS):
        there = folds == number
        if there.any() and not there.all():
            fold = build_fold(table, texts, ~there)
            contexts.update((int(row), fold.contexts[row]) for row in np.flatnonzero(there))
            expected_cost[there] = fold.expected_costs[there]
        report_progress((number + 1) / FOLDS)
    ordered = tuple(contexts[row] for row in range(len(folds)))
    cost = np.ones_like(table.quality) if table.cost is None else table.cost
    reference = float(cost[:, int(table.quality.mean(axis=0).argmax())].mean())
    utility = table.quality - PRICE * cost / reference
    posterior = np.stack([context.task_probabilities for context in ordered])
    return Stream(
        table.name,
        table.arms,
        ordered,
        table.task_codes(),
        table.quality,
        cost,
        expected_cost,
        reference,
        expect_by_task(utility, posterior, folds).argmax(axis=1),
        fit_projection(texts.embeddings),
    )


def build_priors(
    stream: Stream, kind: str, rng: np.random.Generator, folder: Path | None = None
) -> dict[str, Prior]:
    """Return priors: `noisy` (true task means ± 6 points), `flat`, or `real` (from benchmarks).

    The noisy ones simulate a table of benchmark scores, and are denoised like one.

    Raises:
        FileNotFoundError: this stream has no file of real priors.
    """
    tasks = stream.task_count
    sd = np.full(tasks, PRIOR_SD)
    if kind == "flat":
        return {arm: Prior(np.full(tasks, 0.6), sd) for arm in stream.arms}
    if kind == "real":
        if folder is None or not (path := priors_path(folder, stream.name)).is_file():
            raise FileNotFoundError(f"no benchmark priors for {stream.name}")
        means = json.loads(path.read_text())
        return {arm: Prior(np.full(tasks, means[arm]), sd) for arm in stream.arms}
    truth = stream.task_means()
    guess = np.clip(truth + rng.normal(0.0, NOISE, truth.shape), 0.0, 1.0)
    return denoise_priors({arm: Prior(guess[row], sd) for row, arm in enumerate(stream.arms)})


def priors_path(folder: Path, name: str) -> Path:
    """Return the path of the benchmark means of a stream's arms."""
    return folder / "priors" / f"{'mix2024' if name == 'mix' else name}.json"


def expect_by_task(values: Matrix, posterior: Matrix, folds: NDArray[np.intp]) -> Matrix:
    """Return expected values by task posterior from means of the other folds, (N, A)."""
    expected = np.empty_like(values)
    for fold in range(FOLDS):
        there = folds != fold
        weights, some = posterior[there], values[there]
        means = weights.T @ some + TASK_WEIGHT * some.mean(axis=0)
        means /= weights.sum(axis=0)[:, None] + TASK_WEIGHT
        expected[~there] = posterior[~there] @ means
    return expected
