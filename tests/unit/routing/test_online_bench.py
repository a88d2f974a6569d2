"""The online bench on a made-up world: who learns gains, and what changes is noticed."""

import numpy as np
import pytest
from bench.routing.online import Plan, headroom, references, run
from bench.routing.online_scenarios import budget, decay, newcomer
from bench.routing.online_stream import Stream

from sophia.routing.policies.hierarchical import Projection
from sophia.routing.policies.policy import Sight

REQUESTS = 1200
SKILL = np.array([[0.95, 0.35, 0.6], [0.4, 0.95, 0.6], [0.55, 0.55, 0.55]])
COST = np.array([0.3, 0.3, 1.0])


@pytest.fixture(scope="module")
def stream() -> Stream:
    """Two specialists and a dear arm that is good at nothing, on three tasks."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, REQUESTS)
    quality = (rng.uniform(size=(REQUESTS, 3)) < SKILL.T[codes]).astype(float)
    cost = COST * rng.uniform(0.8, 1.2, (REQUESTS, 3))
    sights = tuple(
        Sight(0.85 * np.eye(3)[code] + 0.05, np.eye(4)[code], np.zeros(2)) for code in codes
    )
    reference = float(cost[:, quality.mean(axis=0).argmax()].mean())
    return Stream(
        "made up",
        ("first", "second", "dear"),
        sights,
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
    knowing = run(stream, Plan("hierarchical", "flat", seeds=2))
    blind = run(stream, Plan("thompson, no context", "flat", seeds=2))
    assert knowing.online_headroom.mean > 0.7
    assert knowing.online_headroom.mean > blind.online_headroom.mean + 0.1


def test_the_same_seeds_give_the_same_result(stream: Stream) -> None:
    plan = Plan("hierarchical", "noisy", 0.5, seeds=2)
    assert run(stream, plan) == run(stream, plan)


def test_references_stand_in_their_order(stream: Stream) -> None:
    known = references(stream)
    assert known.random < known.best_fixed < known.informed
    assert known.informed <= known.told_task + 1e-9 < known.oracle


def test_a_newcomer_is_found_and_a_failing_arm_is_noticed(stream: Stream) -> None:
    assert newcomer(stream, 0.2, 1).requests[0] is not None
    failing = decay(stream, 1)
    assert failing.alarms[0] is not None
    assert failing.cost == [0.0]


def test_a_budget_is_used_and_never_overrun(stream: Stream) -> None:
    kept = budget(stream, 1.05 * float(COST.min() / stream.reference), 1)
    assert kept.breaches == 0
    assert 0.9 < kept.spent[0] <= 1.05


def test_headroom_is_measured_from_chance_to_all_knowing() -> None:
    parts = np.array([[0.8, 0.6, 0.9], [0.7, 0.6, 0.9]])
    found = headroom(parts)
    assert found.mean == pytest.approx(0.5)
    assert found.low < 0.5 < found.high
    assert headroom(parts[:1]).mean == pytest.approx(2 / 3)
    assert np.isnan(headroom(parts[:1]).low)
