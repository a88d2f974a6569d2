"""Baselines learn planted effects and match their definitions."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from check_policy import ARMS, check_policy, make_contexts
from lab.baselines.batch import boosted, knn, logistic, random_forest, task_mean
from lab.baselines.linucb import LinUcb
from lab.evaluation.tables import OutcomeTable, Question
from lab.training.table_contexts import Fold, Projection, TableContext
from sophia.routing.bandit.policy import Lesson

Matrix = NDArray[np.float64]


def fold_and_table(
    quality: Matrix, held_out: int = 1, *, tasks: Matrix | None = None,
    embeddings: Matrix | None = None, features: Matrix | None = None,
) -> tuple[Fold, OutcomeTable]:  # fmt: skip
    """Return a table with the last `held_out` questions held out."""
    count = len(quality)
    parts = (tasks, embeddings, features)
    blank = (np.ones((count, 1)), np.zeros((count, 2)), np.zeros((count, 1)))
    rows = [
        value if value is not None else default for value, default in zip(parts, blank, strict=True)
    ]
    train = np.arange(count) < count - held_out
    projection = Projection(np.zeros((rows[1].shape[1], 0)), np.zeros(0))
    contexts = tuple(
        TableContext(tasks, embedding=embedding, features=features)
        for tasks, embedding, features in zip(*rows, strict=True)
    )
    questions = tuple(Question(str(at), "", "t") for at in range(count))
    arms = tuple("abcdefg"[: quality.shape[1]])
    nothing = np.full_like(quality, np.nan)
    table = OutcomeTable("t", questions, arms, quality, None, nothing, ("t",) * count)
    return Fold(train, contexts, np.ones_like(quality), projection), table


def make_world(count: int = 1000) -> tuple[Fold, OutcomeTable, Matrix]:
    """Return a table of three models, each good at one of three features, and true chances."""
    rng = np.random.default_rng(4)
    features = rng.normal(size=(count, 3))
    chances = 1.0 / (1.0 + np.exp(-2.0 * features))
    quality = (rng.random((count, 3)) < chances).astype(float)
    fold, table = fold_and_table(quality, 100, features=features)
    return fold, table, chances[-100:]


@pytest.mark.parametrize("baseline", [boosted, random_forest, logistic])
def test_the_effect_of_features_is_learned(baseline: object) -> None:
    """The error against the true probabilities is far below that of the mean."""
    fold, table, chances = make_world()
    found = baseline(fold, table)  # type: ignore[operator]
    means = table.quality[fold.train].mean(axis=0)
    assert found.shape == chances.shape and found.min() >= 0.0 and found.max() <= 1.0
    assert np.abs(found - chances).mean() < 0.65 * np.abs(means - chances).mean()


def test_a_logistic_line_with_a_small_penalty_is_the_true_one() -> None:
    fold, table, chances = make_world(4000)
    assert logistic(fold, table, penalty=1e-3) == pytest.approx(chances, abs=0.09)


def test_a_model_that_is_always_right_has_a_finite_line() -> None:
    fold, table, _ = make_world(200)
    sure = replace(table, quality=np.ones_like(table.quality))
    assert (logistic(fold, sure) > 0.9).all()


def test_few_questions_give_boosted_trees_the_mean() -> None:
    fold, table = fold_and_table(np.array([[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 10 + [[0.5, 0.5]]))
    assert boosted(fold, table) == pytest.approx(0.5)


def test_a_task_mean_is_shrunk_to_the_model_mean_and_the_overall_mean() -> None:
    """Ten good answers on one task and ten bad ones on another; the posterior mixes both."""
    quality = np.array([[1.0]] * 10 + [[0.0]] * 10 + [[0.5]])
    tasks = np.array([[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 10 + [[0.3, 0.7]])
    overall = (10 + 0.5) / 21
    model = (10 + 5 * overall) / 25
    first, second = (10 + 20 * model) / 30, (20 * model) / 30
    fold, table = fold_and_table(quality, tasks=tasks)
    assert task_mean(fold, table)[0, 0] == pytest.approx(0.3 * first + 0.7 * second)


def test_neighbours_are_the_nearest_questions() -> None:
    """Fifty near questions are good, fifty far ones bad; results are shrunk to the overall mean."""
    angles = np.array([*np.linspace(0.0, 0.2, 50), *np.linspace(1.5, 1.7, 50), 0.1, 1.6])
    embeddings = np.column_stack([np.cos(angles), np.sin(angles)])
    quality = np.array([[1.0]] * 50 + [[0.0]] * 50 + [[0.5]] * 2)
    fold, table = fold_and_table(quality, 2, embeddings=embeddings)
    assert knn(fold, table).ravel() == pytest.approx([51 / 52, 1 / 52], abs=0.001)


def test_equal_texts_are_one_neighbour_and_without_text_there_are_none() -> None:
    embeddings = np.array([[1.0, 0.0]] * 60 + [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    quality = np.array([[1.0]] * 60 + [[0.0], [0.3], [0.5], [0.5]])
    fold, table = fold_and_table(quality, 2, embeddings=embeddings)
    near, none = knn(fold, table).ravel()
    assert near == pytest.approx(60 / 61, abs=0.01)
    assert none == pytest.approx(quality[:62].mean())
    blank = fold_and_table(quality, 2)
    assert knn(*blank).ravel() == pytest.approx(quality[:62].mean())


def test_linucb_passes_the_policy_checks_and_learns() -> None:
    rng = np.random.default_rng(3)
    projection = Projection(rng.normal(size=(8, 4)), rng.normal(size=4))
    check_policy(lambda: LinUcb(projection), _with_embeddings)
    policy = LinUcb(projection)
    context = TableContext(np.ones(1), embedding=np.eye(8)[0], features=np.zeros(1))
    before = policy.rate(context, ARMS[:1])
    for _ in range(20):
        policy.learn_one(Lesson(context, ARMS[0], 1.0))
    after = policy.rate(context, ARMS[:1])
    assert after.quality[0] > 0.9 > before.quality[0] and after.sd[0] < before.sd[0]


def _with_embeddings(count: int) -> list[TableContext]:
    """Return contexts with embeddings, every fifth without text."""
    rng = np.random.default_rng(7)
    return [
        TableContext(
            context.task_probabilities,
            context.novelty,
            context.tenant,
            embedding=rng.normal(size=8) * (number % 5 != 4),
            features=rng.uniform(size=3),
        )
        for number, context in enumerate(make_contexts(count))
    ]
