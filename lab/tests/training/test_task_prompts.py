"""The prompts of the task model: every class in every language, and a test set kept apart."""

import re
from importlib.resources import files

import pytest
import yaml

from lab.training.far_texts import make_far_texts
from lab.training.task_model import (
    PROMPTS,
    calibrate,
    evaluate_test_prompts,
    read_taxonomy,
    read_test_prompts,
    read_written_prompts,
)
from sophia.routing.bandit.context.task_model import TaskModel, load_task_model

LANGUAGES = {"ar", "de", "en", "es", "fr", "hi", "it", "ja", "pl", "pt", "zh"}
MAX_OVERLAP = 0.3


@pytest.fixture(scope="module")
def model() -> TaskModel:
    return load_task_model(files("sophia.routing").joinpath("data/tasks.npz").read_bytes())


def word_triples(text: str) -> frozenset[object]:
    words = re.findall(r"\w+", text.lower())
    if len(words) < 6:
        return frozenset(words)
    return frozenset(zip(words, words[1:], words[2:]))  # noqa: B905 - three views of one list


def test_every_class_has_prompts_in_every_language() -> None:
    classes = set(read_taxonomy())
    written = {path.stem: yaml.safe_load(path.read_text()) for path in PROMPTS.glob("prompts/*")}
    assert set(written) == LANGUAGES
    for prompts in written.values():
        assert set(prompts) == classes
        assert all(len(set(some)) == len(some) >= 2 for some in prompts.values())
    by_language, far = read_test_prompts()
    assert set(by_language) == LANGUAGES
    assert {question.task for question in by_language["en"]} == classes
    assert sum(map(len, by_language.values())) >= 600
    assert len(far) >= 60


def test_no_test_prompt_resembles_a_training_prompt() -> None:
    by_language, _ = read_test_prompts()
    trained = [word_triples(question.text) for question in read_written_prompts(read_taxonomy())]
    for some in by_language.values():
        for question in some:
            own = word_triples(question.text)
            overlap = max(len(own & other) / max(len(own | other), 1) for other in trained)
            assert overlap <= MAX_OVERLAP, question.text


def test_the_shipped_model_knows_the_prompts_of_another_author(model: TaskModel) -> None:
    """As the model card says: classes in English and ten languages, far texts, calibration."""
    report = evaluate_test_prompts(model)
    assert report["english"]["correct"] >= 0.75
    assert report["other_languages"]["correct"] >= 0.65
    assert report["far_unknown"] >= 0.6
    assert calibrate(model)[1] <= 0.05


def test_far_texts_are_made_up_the_same_way_again() -> None:
    one, two = (make_far_texts(40, ["alpha", "beta"]) for _ in range(2))
    assert one == two
    assert len(set(one)) > 35
