"""Learning anew hears the few who speak for all: silence does not make a model look bad."""

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from logged_decisions import ARMS, TASKS, plan_of
from sophia.compose.learning import first_steps
from sophia.config import Learning
from sophia.core.ids import Ids
from sophia.core.rows import Intent, LessonRow
from sophia.learning.lessons import lessons_of
from sophia.learning.refit import refit
from sophia.learning.silence import Counts, counts_of
from sophia.routing.nouns import Plan
from sophia.routing.policies.policy import Sight
from sophia.testing.memory import MemoryStore

READ = msgspec.json.Decoder(Plan).decode
TRUTH = 0.75


async def ledger(share: float, count: int = 1500) -> MemoryStore:
    """One in `share` is asked about and answered for; unhappy users speak thrice as often."""
    rng, store, ids, number = np.random.default_rng(5), MemoryStore(), Ids(lambda: 10**12), 0
    for _ in range(count):
        plan, arm = plan_of(int(rng.integers(2)), float(rng.random()))
        asked, good = bool(rng.random() < share), bool(rng.random() < TRUTH)
        assert plan.evidence is not None
        plan = replace(plan, evidence=replace(plan.evidence, asked=asked))
        id = ids.next()
        row = Intent(id, "k", "2026-01-01", ARMS[arm], "u", 1, 1, msgspec.json.encode(plan))
        await store.reserve(row)
        channels = ["judge"] if asked else []
        channels += ["score"] if rng.random() < (0.1 if good else 0.3) else []
        for channel in (*channels, "validator"):
            number += 1
            quality = float(good) if channel != "validator" else 0.9
            lesson = LessonRow(number, id, "k", ARMS[arm], quality, 1.0, "learned", 1, True, channel)
            await store.add_lesson(lesson)
    return store


async def learned(store: MemoryStore, counts: Counts) -> float:
    """Return what is expected of the arm that answered most, after learning anew."""
    live, _ = first_steps(Learning(share_keys=True))
    live.know(ARMS)
    rows = [pair for pair in await lessons_of(store, READ, shared=True) if pair[1].word]
    stands = [counts.by_decision.get(row.decision_id, 1.0) for row, _ in rows]
    _, learner = refit(live, [one for _, one in rows], stands)
    arms = [row.arm for row, _ in rows]
    usual = max(set(arms), key=arms.count)
    sight = Sight(TASKS[0], np.zeros(0), np.zeros(0))
    return float(learner.rate(sight, [usual]).quality[0])


async def test_what_is_learned_anew_is_nearer_to_the_truth_than_what_the_unhappy_say() -> None:
    store = await ledger(share=0.12)
    counts = await counts_of(store, READ)
    assert counts.means is not None and counts.means.by == "score"
    assert counts.means.asked is not None
    assert counts.means.plain.value < TRUTH - 0.08
    assert counts.means.weighted.value == pytest.approx(TRUTH, abs=0.05)
    plain, weighed = await learned(store, Counts({})), await learned(store, counts)
    assert plain < TRUTH - 0.06
    assert abs(weighed - TRUTH) < 0.5 * abs(plain - TRUTH)


async def test_counts_are_one_in_the_mean_and_bounded_and_signs_are_no_words() -> None:
    store = await ledger(share=0.12)
    counts = await counts_of(store, READ)
    values = np.array(list(counts.by_decision.values()))
    assert values.mean() == pytest.approx(1.0) and values.max() < 6.0
    rows = await lessons_of(store, READ, shared=True)
    words = {row.decision_id for row, _ in rows if row.channel != "validator"}
    assert counts.by_decision.keys() == words


async def test_one_odd_voice_does_not_decide() -> None:
    """Of the second task hardly anybody speaks: who does counts for more, up to a bound."""
    rng, store, ids = np.random.default_rng(5), MemoryStore(), Ids(lambda: 10**12)
    rare = set()
    for number in range(1, 1501):
        task = number % 2
        plan, arm = plan_of(task, 0.3)
        id = ids.next()
        row = Intent(id, "k", "2026-01-01", ARMS[arm], "u", 1, 1, msgspec.json.encode(plan))
        await store.reserve(row)
        if rng.random() < (0.03 if task else 0.9):
            rare |= {id} if task else set()
            await store.add_lesson(LessonRow(number, id, "k", ARMS[arm], 1.0, 1.0, "learned", 1))
    counts = (await counts_of(store, READ)).by_decision
    values = np.array(list(counts.values()))
    assert values.mean() == pytest.approx(1.0)
    assert 4.0 < min(counts[id] for id in rare) <= values.max() < 9.0


async def test_an_empty_ledger_counts_nothing() -> None:
    assert await counts_of(MemoryStore(), READ) == Counts({})
