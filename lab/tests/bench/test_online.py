"""The online benchmark on synthetic data: policies learn, and changes are detected."""

import numpy as np
import pytest

from bench.routing.online import OnlineRun, compute_references, headroom, run
from bench.routing.online_scenarios import run_budget, run_degradation, run_new_model
from bench.routing.online_stream import Stream
from lab.training.table_contexts import Projection, TableContext

REQUESTS = 1200
SKILL = np.array([[0.95, 0.35, 0.6], [0.4, 0.95, 0.6], [0.55, 0.55, 0.55]])
COST = np.array([0.3, 0.3, 1.0])


@pytest.fixture(scope="module")
def stream() -> Stream:
    """Two specialists and an expensive arm that is good at nothing, on three tasks."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, REQUESTS)
    quality = (rng.uniform(size=(REQUESTS, 3)) < SKILL.T[codes]).astype(float)
    cost = COST * rng.uniform(0.8, 1.2, (REQUESTS, 3))
    contexts = tuple(
        TableContext(0.85 * np.eye(3)[code] + 0.05, embedding=np.eye(4)[code], features=np.zeros(2))
        for code in codes
    )
    reference = float(cost[:, quality.mean(axis=0).argmax()].mean())
    return Stream(
        "synthetic",
        ("first", "second", "expensive"),
        contexts,
        codes,
        quality,
        cost,
        np.tile(COST, (REQUESTS, 1)),
        reference,
        np.array([0, 1, 0])[codes],
        Projection(np.eye(4)[:, :3], np.zeros(3)),
    )


def test_a_learner_closes_most_of_the_headroom_and_one_without_context_does_not(
    stream: Stream,
) -> None:
    contextual = run(stream, OnlineRun("hierarchical", "flat", seeds=2))
    blind = run(stream, OnlineRun("thompson, no context", "flat", seeds=2))
    assert contextual.online_headroom.mean > 0.7
    assert contextual.online_headroom.mean > blind.online_headroom.mean + 0.1


def test_the_same_seeds_give_the_same_result(stream: Stream) -> None:
    plan = OnlineRun("hierarchical", "noisy", 0.5, seeds=2)
    assert run(stream, plan) == run(stream, plan)


def test_references_are_ordered_by_their_information(stream: Stream) -> None:
    known = compute_references(stream)
    assert known.random < known.best_fixed < known.informed
    assert known.informed <= known.known_task + 1e-9 < known.oracle


def test_a_new_model_is_adopted_and_a_degraded_arm_is_detected(stream: Stream) -> None:
    assert run_new_model(stream, 0.2, 1).requests[0] is not None
    failing = run_degradation(stream, 1)
    assert failing.alarms[0] is not None
    assert failing.cost == [0.0]


def test_a_budget_is_used_and_never_exceeded(stream: Stream) -> None:
    kept = run_budget(stream, 1.05 * float(COST.min() / stream.reference), 1)
    assert kept.breaches == 0
    assert 0.9 < kept.spent[0] <= 1.05


def test_headroom_is_measured_between_random_choice_and_full_information() -> None:
    parts = np.array([[0.8, 0.6, 0.9], [0.7, 0.6, 0.9]])
    found = headroom(parts)
    assert found.mean == pytest.approx(0.5)
    assert found.low < 0.5 < found.high
    assert headroom(parts[:1]).mean == pytest.approx(2 / 3)
    assert np.isnan(headroom(parts[:1]).low)
