"""Baselines that train on all outcomes of a fold at once.

Each takes a fold and its table, trains on the questions in `fold.train`, and returns the expected
score of every model on the others, (n, A).
"""

from collections.abc import Callable

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from lab.evaluation.tables import Matrix, OutcomeTable
from lab.training.table_contexts import Fold, TableContext
from sophia.routing.bandit.policy import Vector

PRIOR_MEAN = 0.5
"""The score assumed before any outcome."""

TASK_STRENGTH, MODEL_STRENGTH = 20.0, 5.0
"""Prior strength, in outcomes, of a model's mean within a task and of the overall mean."""

NEIGHBOUR_COUNT, NEIGHBOUR_STRENGTH = 50, 2.0
PENALTY = 300.0
FOREST_TREES, FOREST_MIN_LEAF = 100, 5
ROUNDS, BOOST_MAX_LEAVES, BOOST_LEARNING_RATE, BOOST_MIN_LEAF = 40, 8, 0.08, 30


def task_mean(fold: Fold, table: OutcomeTable) -> Matrix:
    """Return each model's mean score by task, shrunk to the model's mean and the overall mean."""
    quality = table.quality[fold.train]
    train, test = _designs(fold, lambda context: context.task_probabilities)
    weight, total = train.sum(axis=0), train.T @ quality
    count = len(quality)
    overall = (total.sum() + PRIOR_MEAN) / (count * quality.shape[1] + 1.0)
    model = (total.sum(axis=0) + MODEL_STRENGTH * overall) / (count + MODEL_STRENGTH)
    return test @ ((total + TASK_STRENGTH * model) / (weight[:, None] + TASK_STRENGTH))


def knn(fold: Fold, table: OutcomeTable) -> Matrix:
    """Return each model's mean score on the nearest questions, shrunk to its overall mean."""
    quality = table.quality[fold.train]
    train, test = _designs(fold, lambda context: context.embedding)
    found = np.tile(quality.mean(axis=0), (len(test), 1))
    has_text = train.any(axis=1)
    if not has_text.any():
        return found
    # Questions with the same text are one neighbour with several outcomes.
    vectors, place = np.unique(train[has_text], axis=0, return_inverse=True)
    weight = np.bincount(place).astype(np.float64)
    total = np.zeros((len(vectors), quality.shape[1]))
    np.add.at(total, place, quality[has_text])
    count = weight.sum()
    overall = (total.sum() + PRIOR_MEAN) / (count * quality.shape[1] + 1.0)
    model_means = (total.sum(axis=0) + NEIGHBOUR_STRENGTH * overall) / (count + NEIGHBOUR_STRENGTH)
    search = NearestNeighbors(n_neighbors=min(NEIGHBOUR_COUNT, len(vectors)), algorithm="brute")
    test_has_text = test.any(axis=1)
    near = search.fit(vectors).kneighbors(test[test_has_text], return_distance=False)
    local = weight[near].sum(axis=1)[:, None] + NEIGHBOUR_STRENGTH
    found[test_has_text] = (total[near].sum(axis=1) + NEIGHBOUR_STRENGTH * model_means) / local
    return found


def logistic(fold: Fold, table: OutcomeTable, penalty: float = PENALTY) -> Matrix:
    """Return a penalised logistic regression per model on the embedding and the features."""
    train, test = _designs(fold, _embedding_and_features)
    centre, spread = train.mean(axis=0), train.std(axis=0)
    spread = np.where(spread > 1e-9, spread, np.inf)
    # The bias is a column so large that its penalty is 1: it stays finite where all scores are 1.
    bias = penalty**0.5
    train, test = (
        np.column_stack([np.clip((rows - centre) / spread, -4.0, 4.0), np.full(len(rows), bias)])
        for rows in (train, test)
    )
    columns = []
    for quality in table.quality[fold.train].T:
        line = LogisticRegression(C=1.0 / penalty, fit_intercept=False, solver="newton-cholesky")
        # A score of 0.7 counts as 0.7 of a good answer and 0.3 of a bad one.
        good = np.repeat([1, 0], len(train))
        line.fit(np.vstack([train, train]), good, np.concatenate([quality, 1.0 - quality]))
        columns.append(line.predict_proba(test)[:, 1])
    return np.column_stack(columns)


def boosted(fold: Fold, table: OutcomeTable, rounds: int = ROUNDS) -> Matrix:
    """Return gradient-boosted trees per model on the task posterior and the features."""
    train, test = _designs(fold, _tasks_and_features)
    quality = table.quality[fold.train]
    if len(train) < 2 * BOOST_MIN_LEAF:
        return np.tile(quality.mean(axis=0), (len(test), 1))
    columns = [
        HistGradientBoostingRegressor(
            max_iter=rounds,
            max_leaf_nodes=BOOST_MAX_LEAVES,
            learning_rate=BOOST_LEARNING_RATE,
            min_samples_leaf=BOOST_MIN_LEAF,
            early_stopping=False,
            random_state=0,
        )
        .fit(train, column)
        .predict(test)
        for column in quality.T
    ]
    return np.clip(np.column_stack(columns), 0.0, 1.0)


def random_forest(fold: Fold, table: OutcomeTable, trees: int = FOREST_TREES) -> Matrix:
    """Return a random forest that classifies outcomes by model, weighted by score.

    All models answered all questions, so the share of votes for a model is proportional to its
    score.
    """
    train, test = _designs(fold, lambda context: context.features)
    quality = table.quality[fold.train]
    questions, models = quality.shape
    forest = RandomForestClassifier(trees, min_samples_leaf=FOREST_MIN_LEAF, random_state=0).fit(
        np.repeat(train, models, axis=0),
        np.tile(np.arange(models), questions),
        np.maximum(quality.ravel(), 1e-6),
    )
    return np.clip(forest.predict_proba(test) * models * quality.mean(), 0.0, 1.0)


def _designs(fold: Fold, build_row: Callable[[TableContext], Vector]) -> tuple[Matrix, Matrix]:
    """Return the design matrices of the training questions and of the others."""
    rows = np.array([build_row(context) for context in fold.contexts])
    return rows[fold.train], rows[~fold.train]


def _embedding_and_features(context: TableContext) -> Vector:
    return np.concatenate([context.embedding, context.features])


def _tasks_and_features(context: TableContext) -> Vector:
    return np.concatenate([context.task_probabilities, context.features])
