"""The policies that are compared, each made anew for every fold, and the lines drawn beside them."""

from collections.abc import Callable

import numpy as np

from sophia.learning.batch_training import train_boosted, train_forest, train_logistic
from sophia.learning.table_sights import Fold, task_means
from sophia.learning.tables import Matrix, OutcomeTable
from sophia.routing.policies.boosted import Boosted
from sophia.routing.policies.hierarchical import Hierarchical, Shape
from sophia.routing.policies.knn import Neighbours
from sophia.routing.policies.linucb import LinUcb
from sophia.routing.policies.logistic import Logistic
from sophia.routing.policies.policy import Learner, Lesson
from sophia.routing.policies.random_forest import RandomForest
from sophia.routing.policies.task_mean import TaskMean

Make = Callable[[Fold], Learner]

TOLD_STRENGTH = 10.0


def _hierarchical(fold: Fold, *, text: bool) -> Hierarchical:
    sight = fold.sights[0]
    shape = Shape(len(sight.tasks), len(sight.embedding), len(sight.features))
    return Hierarchical(shape, None, None, fold.projection if text else None)


POLICIES: dict[str, Make] = {
    "hierarchical": lambda fold: _hierarchical(fold, text=True),
    "hierarchical_no_text": lambda fold: _hierarchical(fold, text=False),
    "task_mean": lambda fold: TaskMean(len(fold.sights[0].tasks)),
    "linucb": lambda fold: LinUcb(fold.projection),
    "knn": lambda fold: Neighbours(),
    "logistic": lambda fold: Logistic(train_logistic),
    "boosted": lambda fold: Boosted(train_boosted),
    "random_forest": lambda fold: RandomForest(train_forest),
}


def expect(table: OutcomeTable, fold: Fold, policy: str) -> Matrix:
    """Return what a policy expects of every arm on the questions it has not seen, (n, A)."""
    learner = POLICIES[policy](fold)
    learner.fit(
        [
            Lesson(fold.sights[row], arm, float(table.quality[row, column]))
            for row in np.flatnonzero(fold.train)
            for column, arm in enumerate(table.arms)
        ]
    )
    usual = table.quality[fold.train].mean(axis=0)
    expected = []
    for row in np.flatnonzero(~fold.train):
        ratings = learner.rate(fold.sights[row], table.arms)
        expected.append(usual if ratings is None else ratings.quality)
    return np.array(expected)


def told_task(table: OutcomeTable, train: np.ndarray) -> tuple[Matrix, Matrix]:
    """Return quality and cost by the true task of the questions that are not in `train`."""
    told = np.eye(len(table.tasks))[table.task_codes()]
    cost = np.ones_like(table.quality) if table.cost is None else table.cost
    return (
        told[~train] @ task_means(told[train], table.quality[train], TOLD_STRENGTH),
        told[~train] @ task_means(told[train], cost[train], TOLD_STRENGTH),
    )
