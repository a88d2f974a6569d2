"""Retraining weights feedback by non-response: silence does not make a model look bad."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from logged_decisions import ARMS, TASKS, plan_of
from sophia.adapters.store.store import SqlStore
from sophia.core.ids import IdGenerator
from sophia.core.rows import AttemptIntent, LessonRow
from sophia.learning.online.build import build_policy
from sophia.learning.online.catch_up import load_lessons
from sophia.learning.operations.retrain import compute_feedback_weights, refit_learner
from sophia.routing.bandit.policy import PolicyContext
from sophia.routing.types import Plan
from stores import open_test_store, write_rows

TRUTH = 0.75


def build_intent(id: int, model: str, plan: Plan) -> AttemptIntent:
    """Return the stored decision for `model`."""
    return AttemptIntent(
        attempt_id=id,
        key_id="k",
        window="2026-01-01",
        model=model,
        upstream="u",
        held_nano=1,
        at_ms=1,
        plan=msgspec.json.encode(plan),
    )


@asynccontextmanager
async def ledger(folder: Path, share: float, count: int = 1500) -> AsyncIterator[SqlStore]:
    """A share of the answers is judged; unhappy users give feedback three times as often."""
    rng, ids, number, rows = np.random.default_rng(5), IdGenerator(lambda: 10**12), 0, []
    for _ in range(count):
        plan, arm = plan_of(int(rng.integers(2)), float(rng.random()))
        sampled, good = bool(rng.random() < share), bool(rng.random() < TRUTH)
        assert plan.trace is not None
        plan = replace(plan, trace=replace(plan.trace, judge_sampled=sampled))
        id = ids.next()
        rows.append(build_intent(id, ARMS[arm], plan))
        channels = ["judge"] if sampled else []
        channels += ["score"] if rng.random() < (0.1 if good else 0.3) else []
        for channel in (*channels, "validator"):
            number += 1
            quality = float(good) if channel != "validator" else 0.9
            lesson = LessonRow(
                number=number,
                decision_id=id,
                key_id="k",
                arm=ARMS[arm],
                quality=quality,
                weight=1.0,
                policy="learned",
                at_ms=1,
                first=True,
                channel=channel,
            )
            rows.append(lesson)
    write_rows(folder / "sophia.db", rows)
    async with open_test_store(folder) as store:
        yield store


async def learned(store: SqlStore, weights: dict[int, float]) -> float:
    """Return the expected quality of the most frequent arm after retraining."""
    live = build_policy(shared=True)
    live.add_models(ARMS)
    rows = [pair for pair in await load_lessons(store, shared=True) if pair[1].explicit]
    stands = [weights.get(row.decision_id, 1.0) for row, _ in rows]
    _, learner = refit_learner(live, [lesson for _, lesson in rows], stands)
    arms = [row.arm for row, _ in rows]
    usual = max(set(arms), key=arms.count)
    sight = PolicyContext(TASKS[0])
    return float(learner.rate(sight, [usual]).quality[0])


async def test_retraining_is_nearer_to_the_truth_than_the_plain_feedback(tmp_path: Path) -> None:
    async with ledger(tmp_path, share=0.12) as store:
        weights, means = await compute_feedback_weights(store)
        assert means is not None and means.basis == "score"
        assert means.judge_sampled is not None
        assert means.unweighted.value < TRUTH - 0.08
        assert means.weighted.value == pytest.approx(TRUTH, abs=0.05)
        plain, weighed = await learned(store, {}), await learned(store, weights)
        assert plain < TRUTH - 0.06
        assert abs(weighed - TRUTH) < 0.5 * abs(plain - TRUTH)


async def test_weights_are_one_on_average_and_bounded_and_for_explicit_feedback_only(
    tmp_path: Path,
) -> None:
    async with ledger(tmp_path, share=0.12) as store:
        weights, _ = await compute_feedback_weights(store)
        values = np.array(list(weights.values()))
        assert values.mean() == pytest.approx(1.0) and values.max() < 6.0
        rows = await load_lessons(store, shared=True)
        words = {row.decision_id for row, _ in rows if row.channel != "validator"}
        assert weights.keys() == words


async def test_a_single_unusual_score_does_not_decide(tmp_path: Path) -> None:
    """The second task hardly gets feedback, which counts for more, up to a bound."""
    rng, ids = np.random.default_rng(5), IdGenerator(lambda: 10**12)
    rare, rows = set(), []
    for number in range(1, 1501):
        task = number % 2
        plan, arm = plan_of(task, 0.3)
        id = ids.next()
        rows.append(build_intent(id, ARMS[arm], plan))
        if rng.random() < (0.03 if task else 0.9):
            rare |= {id} if task else set()
            rows.append(
                LessonRow(
                    number=number,
                    decision_id=id,
                    key_id="k",
                    arm=ARMS[arm],
                    quality=1.0,
                    weight=1.0,
                    policy="learned",
                    at_ms=1,
                )
            )
    write_rows(tmp_path / "sophia.db", rows)
    async with open_test_store(tmp_path) as store:
        weights, _ = await compute_feedback_weights(store)
    values = np.array(list(weights.values()))
    assert values.mean() == pytest.approx(1.0)
    assert 4.0 < min(weights[id] for id in rare) <= values.max() < 9.0


async def test_an_empty_ledger_has_no_weights(tmp_path: Path) -> None:
    async with open_test_store(tmp_path) as store:
        assert await compute_feedback_weights(store) == ({}, None)
