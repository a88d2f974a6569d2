"""Expected scores of every policy on the held-out questions of a fold."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from lab.baselines.batch import boosted, knn, logistic, random_forest, task_mean
from lab.baselines.linucb import LinUcb
from lab.evaluation.tables import Matrix, OutcomeTable
from lab.training.table_contexts import Fold, compute_task_means
from sophia.routing.bandit.policy import Lesson
from sophia.routing.bandit.quality.hierarchical import HierarchicalPolicy

Forecast = Callable[[Fold, OutcomeTable], Matrix]
"""A function that learns from `fold.train` and returns expected scores of the others, (n, A)."""

TASK_MEAN_STRENGTH = 10.0


def hierarchical(fold: Fold, table: OutcomeTable) -> Matrix:
    """Return the forecast of the product's policy."""
    return _fit_and_rate(HierarchicalPolicy(len(fold.contexts[0].task_probabilities)), fold, table)


LEARNERS: Mapping[str, Forecast] = MappingProxyType(
    {
        "hierarchical": hierarchical,
        "task_mean": task_mean,
        "knn": knn,
        "logistic": logistic,
        "boosted": boosted,
        "random_forest": random_forest,
        "linucb": lambda fold, table: _fit_and_rate(LinUcb(fold.projection), fold, table),
    }
)
"""The policies that can be trained on outcomes alone, by name."""


def predict_from_true_task(table: OutcomeTable, train: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
    """Return quality and cost by the true task of the questions that are not in `train`."""
    task_indicators = np.eye(len(table.tasks))[table.task_codes()]
    cost = np.ones_like(table.quality) if table.cost is None else table.cost
    return (
        task_indicators[~train]
        @ compute_task_means(task_indicators[train], table.quality[train], TASK_MEAN_STRENGTH),
        task_indicators[~train]
        @ compute_task_means(task_indicators[train], cost[train], TASK_MEAN_STRENGTH),
    )


def _fit_and_rate(learner: HierarchicalPolicy | LinUcb, fold: Fold, table: OutcomeTable) -> Matrix:
    """Return the forecast of a policy that learns outcomes one by one."""
    learner.fit(
        [
            Lesson(fold.contexts[row], arm, score)
            for row in np.flatnonzero(fold.train)
            for arm, score in zip(table.arms, table.quality[row].tolist(), strict=True)
        ]
    )
    held = np.flatnonzero(~fold.train)
    return np.array([learner.rate(fold.contexts[row], table.arms).quality for row in held])
