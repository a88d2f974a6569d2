"""What each policy expects of every arm on questions it has not seen, after learning the others."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from sophia.learning.batch_training import train_boosted, train_forest, train_logistic
from sophia.learning.table_sights import Fold, task_means
from sophia.learning.tables import Matrix, OutcomeTable
from sophia.routing.policies.boosted import Boosted
from sophia.routing.policies.hierarchical import Hierarchical, Projection, Shape
from sophia.routing.policies.knn import Neighbours
from sophia.routing.policies.linucb import LinUcb
from sophia.routing.policies.logistic import Logistic
from sophia.routing.policies.policy import Learner, Lesson, Sight
from sophia.routing.policies.random_forest import RandomForest
from sophia.routing.policies.task_mean import TaskMean

Make = Callable[[Sight, Projection], Learner]

TOLD_STRENGTH = 10.0


def _hierarchical(sight: Sight, projection: Projection) -> Learner:
    shape = Shape(len(sight.tasks), len(sight.embedding), len(sight.features))
    return Hierarchical(shape, None, None, projection)


POLICIES: Mapping[str, Make] = MappingProxyType(
    {
        "hierarchical": _hierarchical,
        "task_mean": lambda sight, projection: TaskMean(len(sight.tasks)),
        "knn": lambda sight, projection: Neighbours(),
        "logistic": lambda sight, projection: Logistic(train_logistic),
        "boosted": lambda sight, projection: Boosted(train_boosted),
        "random_forest": lambda sight, projection: RandomForest(train_forest),
        "linucb": lambda sight, projection: LinUcb(projection),
    }
)
"""The policies that outcomes alone can teach, by name, each made for sights of such a shape."""


def expect(
    table: OutcomeTable, fold: Fold, policy: str, policies: Mapping[str, Make] = POLICIES
) -> Matrix:
    """Return what a policy expects of every arm on the questions it has not seen, (n, A)."""
    learner = policies[policy](fold.sights[0], fold.projection)
    learner.fit(
        [
            Lesson(fold.sights[row], arm, score)
            for row in np.flatnonzero(fold.train)
            for arm, score in zip(table.arms, table.quality[row].tolist(), strict=True)
        ]
    )
    # Who declines leaves each arm at its usual score.
    usual = table.quality[fold.train].mean(axis=0)
    expected = []
    for row in np.flatnonzero(~fold.train):
        ratings = learner.rate(fold.sights[row], table.arms)
        expected.append(usual if ratings is None else ratings.quality)
    return np.array(expected)


def told_task(table: OutcomeTable, train: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
    """Return quality and cost by the true task of the questions that are not in `train`."""
    told = np.eye(len(table.tasks))[table.task_codes()]
    cost = np.ones_like(table.quality) if table.cost is None else table.cost
    return (
        told[~train] @ task_means(told[train], table.quality[train], TOLD_STRENGTH),
        told[~train] @ task_means(told[train], cost[train], TOLD_STRENGTH),
    )
