"""Training of the task model: calibrated, deterministic, with an unknown class."""

import numpy as np
import pytest

from lab.training.task_training import (
    EncodedTexts,
    TrainingConfig,
    dump_task_model,
    predict_posteriors,
    predict_scores,
    train_task_model,
)
from sophia.routing.bandit.context.task_model import UNKNOWN_TASK, TaskModel, load_task_model

NAMES = ("apples", "pears", "never seen")


@pytest.fixture(scope="module")
def texts() -> tuple[EncodedTexts, np.ndarray]:
    return _texts(600)


@pytest.fixture(scope="module")
def model(texts: tuple[EncodedTexts, np.ndarray]) -> TaskModel:
    return train_task_model(texts[0], texts[1], NAMES)


def test_a_posterior_separates_the_classes(
    model: TaskModel, texts: tuple[EncodedTexts, np.ndarray]
) -> None:
    fresh, labels = _texts(300, seed=9)
    chances = predict_posteriors(model, fresh)
    assert chances.shape == (300, 4)
    assert chances.sum(axis=1) == pytest.approx(np.ones(300))
    assert (chances[:, :2].argmax(axis=1) == labels).mean() > 0.8
    assert chances[:, 2].max() < 1e-6
    assert model.classes == (*NAMES, UNKNOWN_TASK)


def test_its_probabilities_are_calibrated(model: TaskModel) -> None:
    fresh, labels = _texts(3000, seed=4)
    chances = predict_posteriors(model, fresh)
    known = chances[:, -1] < 1.0
    chances, labels = chances[known], labels[known]
    sure = chances[:, 1] / chances[:, :2].sum(axis=1)
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0)):
        within = (sure >= low) & (sure < high)
        assert (labels[within] == 1).mean() == pytest.approx(sure[within].mean(), abs=0.07)


def test_a_novel_text_is_unknown(model: TaskModel, texts: tuple[EncodedTexts, np.ndarray]) -> None:
    novelties = [model.novelty(vector) for vector in texts[0].embeddings]
    assert np.mean(novelties) < 0.05
    odd = -texts[0].embeddings[0]
    assert model.novelty(odd) == 1.0
    assert model.posterior(np.zeros(0, np.intp), odd, texts[0].features[0])[-1] == 1.0
    assert model.novelty(np.zeros(16)) == 1.0


def test_a_model_is_written_and_read_to_the_byte(
    model: TaskModel, texts: tuple[EncodedTexts, np.ndarray]
) -> None:
    written = dump_task_model(model)
    again = load_task_model(written)
    assert dump_task_model(again) == written
    assert again.known_tasks == NAMES
    assert predict_posteriors(again, texts[0]) == pytest.approx(
        predict_posteriors(model, texts[0]), abs=0.02
    )


def test_training_twice_gives_the_same_model(texts: tuple[EncodedTexts, np.ndarray]) -> None:
    first, second = (train_task_model(*texts, NAMES) for _ in range(2))
    assert dump_task_model(first) == dump_task_model(second)


def test_one_class_alone_is_certain(texts: tuple[EncodedTexts, np.ndarray]) -> None:
    model = train_task_model(texts[0], np.zeros(600, dtype=np.intp), ("only",))
    assert predict_posteriors(model, texts[0])[:, 0].mean() > 0.9


def test_words_are_used_when_they_are_informative() -> None:
    """Only tokens are informative here, and the configuration with words is chosen."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 400)
    ids = list(np.column_stack([labels, rng.integers(5, 99, 400)]).astype(np.intp))
    blind = EncodedTexts(ids, rng.normal(size=(400, 4)) * 0.01, np.zeros((400, 1)))
    model = train_task_model(blind, labels, ("a", "b"))
    assert (predict_scores(model, blind).argmax(axis=1) == labels).mean() > 0.95
    plain = train_task_model(blind, labels, ("a", "b"), [TrainingConfig(use_words=False)])
    assert (predict_scores(plain, blind).argmax(axis=1) == labels).mean() < 0.7


def _texts(count: int, seed: int = 0) -> tuple[EncodedTexts, np.ndarray]:
    """Return texts of two classes that overlap."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    vectors = rng.normal(size=(count, 16)) * 0.15
    vectors[:, 0] += 1.0
    vectors[:, 1] += np.where(labels == 1, 0.35, -0.35) * rng.normal(0.6, 0.5, count)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    features = rng.normal(size=(count, 3)) + labels[:, None] * [1.0, 0.0, 0.0]
    ids = [rng.integers(0, 500, 12) for _ in range(count)]
    return EncodedTexts(ids, vectors, features), labels
