"""Policies that are trained in batches predict as their trainers do, and pass the battery."""

from collections.abc import Callable
from functools import partial

import msgspec
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier

from sophia.learning import batch_training
from sophia.learning.batch_training import train_boosted, train_forest, train_logistic
from sophia.routing.policies.boosted import Boosted
from sophia.routing.policies.knn import Neighbours
from sophia.routing.policies.lessons import Kept
from sophia.routing.policies.logistic import Logistic
from sophia.routing.policies.policy import Learner, Lesson, Ratings, Sight, Vector
from sophia.routing.policies.random_forest import ENOUGH, RandomForest
from sophia.routing.policies.task_mean import TaskMean
from sophia.testing.check_policy import ARMS, SHAPE, check_learner, check_policy, lessons_of

FOREST = partial(train_forest, trees=7)
BOOSTED = partial(train_boosted, rounds=6)
LEARNERS: dict[str, Callable[[], Learner]] = {
    "task_mean": lambda: TaskMean(SHAPE.tasks),
    "knn": lambda: Neighbours(5, 20),
    "logistic": lambda: Logistic(train_logistic),
    "boosted": lambda: Boosted(BOOSTED),
    "random_forest": lambda: RandomForest(FOREST),
}


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS.keys())
def test_a_learner_passes_the_battery(make: Callable[[], Learner]) -> None:
    check_learner(make)


@pytest.mark.parametrize("kind", [Logistic, Boosted, RandomForest])
def test_without_a_trainer_it_declines(kind: Callable[[], Learner]) -> None:
    check_policy(kind)
    learner = kind()
    learner.fit(lessons_of(150, SHAPE))
    assert learner.rate(_sight([0.0, 0.0, 0.0]), ARMS) is None


@pytest.mark.parametrize("kind", [Logistic, Boosted, RandomForest, TaskMean, Neighbours])
def test_bytes_of_something_else_are_refused(kind: type[Learner]) -> None:
    with pytest.raises(msgspec.DecodeError):
        kind.restore(b"\x93\x01\x02\x03")


def test_the_forest_votes_as_scikit_learn_does() -> None:
    """Labels are arms, whatever their order; a vote is the share that `predict_proba` says."""
    lessons = _lessons(400)
    policy = RandomForest(FOREST)
    policy.fit(lessons)
    arms = list(dict.fromkeys(lesson.arm for lesson in lessons))
    model = RandomForestClassifier(7, min_samples_leaf=batch_training.LEAF, random_state=0)
    model.fit(
        [lesson.sight.features for lesson in lessons],
        [arms.index(lesson.arm) for lesson in lessons],
        np.maximum([lesson.quality for lesson in lessons], 1e-6),
    )
    for row in np.random.default_rng(2).normal(size=(50, 3)):
        expected = model.predict_proba([row])[0]
        votes = policy.votes(_sight(row))
        assert [votes[arms[label]] for label in model.classes_] == pytest.approx(
            expected, abs=1e-12
        )


def test_the_forest_waits_for_a_hundred_outcomes() -> None:
    policy = RandomForest(FOREST)
    policy.fit(_lessons(ENOUGH - 1))
    assert policy.rate(_sight([0.0, 0.0, 0.0]), ["b"]) is None
    assert policy.votes(_sight([0.0, 0.0, 0.0])) == {}
    policy.fit(_lessons(ENOUGH))
    assert policy.rate(_sight([0.0, 0.0, 0.0]), ["b"]) is not None


def test_the_forest_does_not_prefer_an_arm_for_being_tried_often() -> None:
    """An arm that was tried nine times as often has most votes, but no much better rating."""
    rng = np.random.default_rng(5)
    lessons = [
        Lesson(_sight(rng.normal(size=3)), "often" if number % 10 else "seldom", 0.6)
        for number in range(600)
    ]
    policy = RandomForest(FOREST)
    policy.fit(lessons)
    rows = rng.normal(size=(200, 3))
    often, seldom = np.mean([_quality(policy, row, "often", "seldom") for row in rows], axis=0)
    assert often == pytest.approx(0.6, abs=0.03)
    assert seldom == pytest.approx(0.6, abs=0.12)
    assert np.mean([policy.votes(_sight(row))["seldom"] for row in rows]) < 0.15


def test_boosted_trees_say_what_scikit_learn_says() -> None:
    lessons = _lessons(500)
    policy = Boosted(BOOSTED)
    policy.fit(lessons)
    own = [lesson for lesson in lessons if lesson.arm == "c"]
    model = HistGradientBoostingRegressor(
        max_iter=6,
        max_leaf_nodes=batch_training.LEAVES,
        learning_rate=batch_training.RATE,
        min_samples_leaf=batch_training.BOOST_LEAF,
        early_stopping=False,
        random_state=0,
    ).fit(
        [np.concatenate([one.sight.tasks, one.sight.features]) for one in own],
        [one.quality for one in own],
    )
    for row in np.random.default_rng(3).normal(size=(30, 3)):
        sight = _sight(row)
        design = np.concatenate([sight.tasks, sight.features])
        expected = np.clip(model.predict([design]), 0, 1)
        assert _quality(policy, row, "c") == pytest.approx(expected, abs=1e-9)


def test_a_logistic_line_finds_the_chances() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(4000, 3))
    chances = 1.0 / (1.0 + np.exp(-(2.0 * rows[:, 0] - rows[:, 1] + 0.5)))
    policy = Logistic(partial(train_logistic, penalty=1e-3))
    policy.fit(
        [
            Lesson(_sight(row), "a", float(draw < chance))
            for row, chance, draw in zip(rows, chances, rng.random(4000), strict=True)
        ]
    )
    for row, chance in zip(rows[:40], chances[:40], strict=True):
        assert _quality(policy, row, "a")[0] == pytest.approx(chance, abs=0.07)


def test_a_task_mean_is_drawn_to_the_arm_s_own() -> None:
    policy = TaskMean(2, strength=10.0)
    for _ in range(10):
        policy.learn_one(Lesson(_sight([], [1.0, 0.0]), "a", 1.0))
    for _ in range(10):
        policy.learn_one(Lesson(_sight([], [0.5, 0.5]), "a", 0.0, task=1))
    overall = (10 + 0.5) / 21
    arm = (10 + 5 * overall) / 25
    first, second = (10 + 10 * arm) / 20, (10 * arm) / 20
    assert _said(policy, [1.0, 0.0]) == pytest.approx(first)
    assert _said(policy, [0.0, 1.0]) == pytest.approx(second)
    assert _said(policy, [0.3, 0.7]) == pytest.approx(0.3 * first + 0.7 * second)
    assert _said(policy, [1.0, 0.0], "stranger") == pytest.approx(overall)


def test_a_weight_counts_as_so_many_outcomes() -> None:
    once, thrice = TaskMean(1), TaskMean(1)
    once.learn_one(Lesson(_sight([], [1.0]), "a", 0.9, weight=3.0))
    for _ in range(3):
        thrice.learn_one(Lesson(_sight([], [1.0]), "a", 0.9))
    assert _said(once, [1.0]) == pytest.approx(_said(thrice, [1.0]))


def test_neighbours_are_the_most_alike() -> None:
    policy = Neighbours(neighbours=3, memory=100)
    for angle, quality in ((0.0, 1.0), (0.1, 1.0), (0.2, 1.0), (1.5, 0.0), (1.6, 0.0), (1.7, 0.0)):
        policy.learn_one(Lesson(_turned(angle), "a", quality))
    near, far = policy.rate(_turned(0.1), ["a"]), policy.rate(_turned(1.6), ["a"])
    assert near is not None
    assert far is not None
    assert near.quality[0] == pytest.approx((3 + 2 * 0.5) / 5, abs=0.01)
    assert far.quality[0] == pytest.approx((0 + 2 * 0.5) / 5, abs=0.01)


def test_the_oldest_neighbours_are_forgotten() -> None:
    policy = Neighbours(neighbours=2, memory=4)
    for number in range(10):
        policy.learn_one(Lesson(_turned(number / 10), "a", float(number >= 6)))
    old = policy.rate(_turned(0.0), ["a"])
    assert old is not None
    assert old.quality[0] > 0.5
    again = Neighbours.restore(policy.snapshot())
    for one in (policy, again):
        one.learn_one(Lesson(_turned(1.0), "b", 0.3))
    assert again.snapshot() == policy.snapshot()


def test_several_arms_of_one_request_are_one_neighbour() -> None:
    policy = Neighbours(neighbours=1, memory=4)
    for arm in ARMS:
        policy.learn_one(Lesson(_turned(0.3), arm, 1.0))
    assert len(policy._rows) == 1


def test_kept_lessons_are_bounded_and_whole() -> None:
    kept = Kept(memory=10)
    for number in range(25):
        lesson = Lesson(_sight([float(number)]), f"arm{number % 3}", number / 25)
        kept.keep(lesson, lesson.sight.features)
    examples = kept.examples()
    assert 10 <= len(examples.quality) <= 20
    for row, arm, quality in zip(examples.row, examples.arm, examples.quality, strict=True):
        number = int(examples.designs[row][0])
        assert examples.arms[arm] == f"arm{number % 3}"
        assert quality == number / 25
    assert Kept.unpack(kept.pack(), 10).pack() == kept.pack()


def _lessons(count: int) -> list[Lesson]:
    """Return outcomes of three arms, met in no order of names, each good at something else."""
    rng = np.random.default_rng(count)
    lessons = []
    for number in range(count):
        row = rng.normal(size=3)
        arm = ("c", "a", "b")[number % 3]
        good = row[{"a": 0, "b": 1, "c": 2}[arm]] > 0
        lessons.append(Lesson(_sight(row), arm, float(rng.random() < (0.9 if good else 0.2))))
    return lessons


def _sight(features: Vector | list[float], tasks: list[float] | None = None) -> Sight:
    return Sight(np.array(tasks or [0.25, 0.75]), np.zeros(8), np.array(features))


def _turned(angle: float) -> Sight:
    return Sight(np.array([1.0]), np.array([np.cos(angle), np.sin(angle)]), np.zeros(1))


def _quality(policy: Learner, row: Vector, *arms: str) -> Vector:
    ratings = policy.rate(_sight(row), arms)
    assert isinstance(ratings, Ratings)
    return ratings.quality


def _said(policy: TaskMean, tasks: list[float], arm: str = "a") -> float:
    ratings = policy.rate(_sight([], tasks), [arm])
    assert ratings is not None
    return float(ratings.quality[0])
