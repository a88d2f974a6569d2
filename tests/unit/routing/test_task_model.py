"""The shipped task model: a posterior for every request, and `unknown` for what it never saw."""

import timeit
from importlib.resources import files

import numpy as np
import pytest

from sophia.learning.online.packaged import load_task_names
from sophia.routing.bandit.context.embedding import TokenIds, load_embedding_model
from sophia.routing.bandit.context.surface import build_feature_vector
from sophia.routing.bandit.context.task_model import (
    DECLARED_TRUST,
    HASH_BUCKETS,
    HASHED_HEAD,
    HASHED_TAIL,
    UNKNOWN_TASK,
    TaskModel,
    combine_evidence,
    hash_text,
    load_task_model,
)
from sophia.routing.bandit.policy import Vector
from sophia.routing.features.extract import extract_features
from sophia.routing.types import Hints, Prompt

DATA = files("sophia.routing").joinpath("data")
TEXT = "Write a Python function that merges two sorted lists, and tests for it."


@pytest.fixture(scope="module")
def model() -> TaskModel:
    return load_task_model(DATA.joinpath("tasks.npz").read_bytes())


@pytest.fixture(scope="module")
def asked() -> tuple[TokenIds, Vector, Vector]:
    """Buckets, embedding and features of a request for code."""
    prompt = Prompt(text=TEXT, chars=len(TEXT), utf8_bytes=len(TEXT))
    embedding = load_embedding_model(DATA.joinpath("embedding.npz").read_bytes())
    ids = embedding.tokenize(TEXT)
    features = build_feature_vector(prompt, extract_features(prompt, Hints()), TEXT)
    return hash_text(ids, TEXT), embedding.embed(ids), features


def test_a_posterior_is_a_distribution_that_names_the_task(
    model: TaskModel, asked: tuple[TokenIds, Vector, Vector]
) -> None:
    chances = model.posterior(*asked)
    assert chances.sum() == pytest.approx(1.0) and chances.min() >= 0.0
    assert model.classes[int(chances.argmax())] == "code-writing"
    assert model.classes == (*model.known_tasks, UNKNOWN_TASK) == tuple(load_task_names())


def test_what_is_unlike_everything_is_unknown(
    model: TaskModel, asked: tuple[TokenIds, Vector, Vector]
) -> None:
    _, vector, features = asked
    assert model.novelty(vector) < 0.5
    assert model.novelty(-vector) == 1.0
    assert model.novelty(np.zeros_like(vector)) == 1.0
    assert model.posterior(np.zeros(0, np.intp), -vector, features)[-1] == 1.0


def buckets(text: str, *ids: int) -> list[int]:
    return hash_text(np.array(ids, np.intp), text).tolist()


def test_buckets_are_few_and_deterministic() -> None:
    """They tell which tokens there are and in which order."""
    tokens = set(buckets("", 5, 6, 7)) - set(buckets(""))
    assert len(tokens) == 3 + 2 + 6
    assert buckets("", 5, 6, 7) == buckets("", 5, 6, 7) != buckets("", 7, 6, 5)
    found = buckets(TEXT, *range(300))
    assert found == sorted(set(found)) and found[0] >= 0 and found[-1] < HASH_BUCKETS


def test_characters_tell_texts_of_every_script_apart_but_not_cases() -> None:
    """The vocabulary is English; a text without any known token is not without evidence."""
    assert buckets("Über Ärger") == buckets("über ärger") != buckets("über berge")
    assert len(buckets("你好吗")) >= 5
    assert buckets("你好吗") != buckets("吗好你")
    assert buckets("\ud800")


def test_of_a_long_text_the_beginning_and_the_end_count() -> None:
    head, tail = "a" * HASHED_HEAD, "z" * HASHED_TAIL
    assert buckets(f"{head}middle{tail}") == buckets(f"{head} another one {tail}")
    assert buckets(f"{head[1:]}b middle{tail}") != buckets(f"{head} middle{tail}")
    assert buckets(f"{head}middle{tail[1:]}b") != buckets(f"{head}middle{tail}")


def test_evidence_outweighs_an_uncertain_posterior_and_not_a_certain_one() -> None:
    uncertain, certain = np.array([0.5, 0.3, 0.2]), np.array([0.999, 0.0005, 0.0005])
    declared = np.array([0.05, 0.05, DECLARED_TRUST])
    adjusted = combine_evidence(uncertain, declared)
    assert adjusted.sum() == pytest.approx(1.0)
    assert adjusted.argmax() == 2
    assert combine_evidence(certain, declared).argmax() == 0


def test_evidence_that_excludes_everything_is_ignored() -> None:
    posterior = np.array([0.5, 0.5])
    assert combine_evidence(posterior, np.zeros(2)).tolist() == [0.5, 0.5]


def test_a_posterior_takes_little_time(
    model: TaskModel, asked: tuple[TokenIds, Vector, Vector]
) -> None:
    """Far above the budget of 100 µs, so that only a different order of work fails."""
    _, vector, features = asked
    ids = np.arange(300)
    took = min(timeit.repeat(lambda: model.posterior(ids, vector, features), number=20, repeat=5))
    assert took / 20 < 0.002
