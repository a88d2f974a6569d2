"""The task model: calibrated, able to say that it does not know, and written down exactly."""

import timeit

import numpy as np
import pytest

from sophia.learning.task_training import Texts, Training, posteriors, scores_of, train_tasks
from sophia.routing.tasks import (
    BUCKETS,
    UNKNOWN,
    TaskModel,
    buckets,
    combine,
    hint,
    read_tasks,
)

NAMES = ("apples", "pears", "never seen")


@pytest.fixture(scope="module")
def texts() -> tuple[Texts, np.ndarray]:
    return _texts(600)


@pytest.fixture(scope="module")
def model(texts: tuple[Texts, np.ndarray]) -> TaskModel:
    return train_tasks(texts[0], texts[1], NAMES)


def test_a_posterior_tells_the_classes_apart(
    model: TaskModel, texts: tuple[Texts, np.ndarray]
) -> None:
    fresh, labels = _texts(300, seed=9)
    chances = posteriors(model, fresh)
    assert chances.shape == (300, 4)
    assert chances.sum(axis=1) == pytest.approx(np.ones(300))
    assert (chances[:, :2].argmax(axis=1) == labels).mean() > 0.8
    assert chances[:, 2].max() < 1e-6
    assert model.classes == (*NAMES, UNKNOWN)


def test_its_chances_come_true_as_often_as_they_say(model: TaskModel) -> None:
    fresh, labels = _texts(3000, seed=4)
    chances = posteriors(model, fresh)
    known = chances[:, -1] < 1.0
    chances, labels = chances[known], labels[known]
    sure = chances[:, 1] / chances[:, :2].sum(axis=1)
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0)):
        within = (sure >= low) & (sure < high)
        assert (labels[within] == 1).mean() == pytest.approx(sure[within].mean(), abs=0.07)


def test_what_is_unlike_everything_is_unknown(
    model: TaskModel, texts: tuple[Texts, np.ndarray]
) -> None:
    usual = [model.novelty(vector) for vector in texts[0].embeddings]
    assert np.mean(usual) < 0.05
    odd = -texts[0].embeddings[0]
    assert model.novelty(odd) == 1.0
    assert model.posterior(np.zeros(0, np.intp), odd, texts[0].features[0])[-1] == 1.0
    assert model.novelty(np.zeros(16)) == 1.0


def test_a_model_is_written_and_read_to_the_byte(
    model: TaskModel, texts: tuple[Texts, np.ndarray]
) -> None:
    again = read_tasks(model.dump())
    assert again.dump() == model.dump() == read_tasks(again.dump()).dump()
    assert again.names == NAMES
    assert posteriors(again, texts[0]) == pytest.approx(posteriors(model, texts[0]), abs=0.02)


def test_training_twice_gives_the_same_model(texts: tuple[Texts, np.ndarray]) -> None:
    assert train_tasks(*texts, NAMES).dump() == train_tasks(*texts, NAMES).dump()


def test_one_class_alone_is_certain(texts: tuple[Texts, np.ndarray]) -> None:
    model = train_tasks(texts[0], np.zeros(600, dtype=np.intp), ("only",))
    assert posteriors(model, texts[0])[:, 0].mean() > 0.9


def test_words_are_looked_at_when_they_tell_more() -> None:
    """Vectors and features say nothing here; the tokens do, and the better training is chosen."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 400)
    ids = list(np.column_stack([labels, rng.integers(5, 99, 400)]).astype(np.intp))
    blind = Texts(ids, rng.normal(size=(400, 4)) * 0.01, np.zeros((400, 1)))
    model = train_tasks(blind, labels, ("a", "b"))
    assert (scores_of(model, blind).argmax(axis=1) == labels).mean() > 0.95
    plain = train_tasks(blind, labels, ("a", "b"), [Training(with_bag=False)])
    assert (scores_of(plain, blind).argmax(axis=1) == labels).mean() < 0.7


def test_buckets_are_few_and_steady() -> None:
    found = buckets(np.array([5, 6, 7], np.intp))
    assert found.tolist() == sorted(set(found.tolist()))
    assert len(found) == 3 + 2 + 6
    assert found.max() < BUCKETS
    assert buckets(np.array([5, 6, 7], np.intp)).tolist() == found.tolist()
    assert buckets(np.array([7, 6, 5], np.intp)).tolist() != found.tolist()
    assert len(buckets(np.array([], np.intp))) == 0


def test_a_hint_outweighs_a_doubtful_posterior_and_not_a_certain_one() -> None:
    doubtful, certain = np.array([0.5, 0.3, 0.2]), np.array([0.999, 0.0005, 0.0005])
    told = combine(doubtful, hint(3, 2))
    assert told.sum() == pytest.approx(1.0)
    assert told.argmax() == 2
    assert combine(certain, hint(3, 2)).argmax() == 0


def test_evidence_that_excludes_everything_is_not_heard() -> None:
    posterior = np.array([0.5, 0.5])
    assert combine(posterior, np.zeros(2)).tolist() == [0.5, 0.5]


def test_a_posterior_takes_little_time(
    model: TaskModel, texts: tuple[Texts, np.ndarray]
) -> None:
    """Far above the budget of 100 µs, so that only a different order of work fails."""
    vector, features = texts[0].embeddings[0], texts[0].features[0]
    ids = np.arange(300)
    took = min(timeit.repeat(lambda: model.posterior(ids, vector, features), number=20, repeat=5))
    assert took / 20 < 0.002


def _texts(count: int, seed: int = 0) -> tuple[Texts, np.ndarray]:
    """Return texts of two classes that overlap."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    vectors = rng.normal(size=(count, 16)) * 0.15
    vectors[:, 0] += 1.0
    vectors[:, 1] += np.where(labels == 1, 0.35, -0.35) * rng.normal(0.6, 0.5, count)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    features = rng.normal(size=(count, 3)) + labels[:, None] * [1.0, 0.0, 0.0]
    ids = [rng.integers(0, 500, 12) for _ in range(count)]
    return Texts(ids, vectors, features), labels
