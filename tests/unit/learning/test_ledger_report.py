"""What is told of a ledger: near the truth of a made-up world, and silent where it cannot tell."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from logged_decisions import ARMS, COSTS, TASKS, TRUTH, fill, plan_of
from sophia.adapters.store.sqlite import SqliteStore
from sophia.core.rows import Intent, LessonRow
from sophia.learning.ledger_report import (
    AS_LOGGED,
    LedgerReport,
    NothingLogged,
    Target,
    report,
)
from sophia.learning.logged import Found, Logged, Word, decisions_of
from sophia.learning.off_policy import Assessment, Comparison, Refused
from sophia.learning.targets import log_of
from sophia.routing.nouns import Plan
from sophia.routing.policies.choose import Exploration, Options, Taste
from sophia.routing.policies.policy import Ratings, Sight

READ = msgspec.json.Decoder(Plan).decode
CHANCES = np.array([0.45, 0.40, 0.15])


def decisions(count: int = 2400, spoken: float = 0.7, seed: int = 0) -> tuple[Logged, ...]:
    """Decisions that knew nothing of the task, by fixed chances."""
    rng = np.random.default_rng(seed)
    options = Options(
        Ratings(np.full(3, 0.6), np.zeros(3)), COSTS, np.ones(3, bool), np.zeros(3)
    )
    made = []
    for number in range(count):
        task, arm = int(rng.integers(2)), int(rng.choice(3, p=CHANCES))
        sight = Sight(TASKS[task], np.zeros(0), np.zeros(0))
        score = float(rng.random() < TRUTH[task, arm])
        word = Word(score, 1.0, ARMS[arm]) if rng.random() < spoken else None
        taste = Taste(0.05, 3e6)
        made.append(
            Logged(number, sight, ARMS, options, taste, Exploration("off"), CHANCES, arm, word)
        )
    return tuple(made)


@pytest.fixture(scope="module")
def told() -> LedgerReport:
    return report(Found(decisions(), 7))


def target(told: LedgerReport, name: str) -> Target:
    return next(one for one in told.targets if one.policy == name)


def test_single_arms_and_the_logger_score_what_they_do() -> None:
    """In the mean over worlds, with words on seven of ten decisions."""
    truth = TRUTH.mean(axis=0)
    wanted = {AS_LOGGED: CHANCES @ truth, "always a/cheap": truth[0], "always b/dear": truth[1]}
    values: dict[str, list[float]] = {name: [] for name in wanted}
    for seed in range(12):
        found = report(Found(decisions(seed=seed), 0), [])
        for name in wanted:
            verdict = target(found, name).verdict
            assert isinstance(verdict, Assessment), name
            values[name].append(verdict.dr.value)
    for name, score in wanted.items():
        assert np.mean(values[name]) == pytest.approx(float(score), abs=0.015)


def test_learning_the_task_pays_and_costs_what_it_takes(told: LedgerReport) -> None:
    """The dear arm for the first task, the cheap one for the second."""
    for name in ("hierarchical", "task_mean"):
        one = target(told, name)
        assert isinstance(one.verdict, Assessment)
        assert one.verdict.dr.value == pytest.approx(0.9, abs=0.04)
        assert isinstance(one.gain, Comparison)
        assert one.gain.difference.low > 0.1
        assert one.cost_usd == pytest.approx((3e5 + 3e6) / 2 / 1e9, rel=0.06)
    assert target(told, AS_LOGGED).gain is None
    assert target(told, AS_LOGGED).cost_usd == pytest.approx(float(CHANCES @ COSTS) / 1e9)


def test_what_the_log_cannot_tell_is_refused(told: LedgerReport) -> None:
    """The weak arm was taken too seldom to be worth two hundred decisions of its own."""
    verdict = target(told, "always c/weak").verdict
    assert isinstance(verdict, Refused)
    assert "200 are needed" in verdict.reason


def test_the_counts_are_those_of_the_ledger(told: LedgerReport) -> None:
    later = decisions()[1200:]
    assert (told.decisions, told.others, told.learned_from, told.judged) == (2400, 7, 1200, 1200)
    assert told.scored == sum(one.word is not None for one in later)
    assert (told.since_ms, told.until_ms) == (1200, 2399)
    assert told.arms == ARMS
    assert told.notes == ()


def test_nothing_is_learned_from_what_is_judged(told: LedgerReport) -> None:
    """Were only the weak arm good from now on, those who learned before would not know."""
    made = decisions()
    later = [
        replace(one, word=None if one.word is None else replace(one.word, score=one.chosen / 2))
        for one in made[1200:]
    ]
    other = report(Found((*made[:1200], *later), 0), ["task_mean"])
    assert target(other, "task_mean").cost_usd == target(told, "task_mean").cost_usd
    verdict = target(other, "task_mean").verdict
    assert isinstance(verdict, Assessment)
    assert verdict.dr.value == pytest.approx(0.25, abs=0.05)


def test_a_learner_needs_words_and_what_it_reads() -> None:
    quiet = report(Found(decisions(600, spoken=0.12), 0))
    assert quiet.targets[0].policy == AS_LOGGED
    assert not {"hierarchical", "task_mean"} & {one.policy for one in quiet.targets}
    assert "Nothing was learned" in quiet.notes[0]

    short = report(Found(decisions(600), 0), ["task_mean", "knn", "random_forest"])
    assert "knn, random_forest" in short.notes[0]
    assert "task_mean" in {one.policy for one in short.targets}


def test_without_a_word_there_is_nothing_to_tell() -> None:
    for made in ((), decisions(10, spoken=0.0)):
        with pytest.raises(NothingLogged, match=f"{len(made)} decisions .* and 3 by others"):
            report(Found(made, 3))


def test_an_arm_that_was_not_offered_changes_nothing() -> None:
    """Where an arm could not be taken, `always` it does what was done."""
    without = decisions(400, spoken=1.0)
    some = [
        replace(
            one,
            arms=ARMS[:2],
            chances=np.array([0.5, 0.5]),
            chosen=min(one.chosen, 1),
            options=replace(one.options, cost=COSTS[:2]),
        )
        if number % 2
        else one
        for number, one in enumerate(without)
    ]
    log, arms = log_of(some)
    assert arms == ARMS
    assert log.propensities[1].tolist() == [0.5, 0.5, 0.0]
    found = report(Found(tuple(some), 0), [])
    weak = target(found, "always c/weak")
    assert weak.verdict.support.outside == 0.0
    offered, as_done = COSTS[2], (COSTS[0] + COSTS[1]) / 2
    assert weak.cost_usd == pytest.approx((offered + as_done) / 2 / 1e9)


def test_silence_is_weighed_and_a_word_on_everything_is_not() -> None:
    log, _ = log_of(decisions(300, spoken=1.0))
    assert log.inverse is None
    log, _ = log_of(decisions(300, spoken=0.5))
    assert log.inverse is not None
    assert log.inverse.mean() == pytest.approx(2, abs=0.4)


async def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Learned decisions with their chances; others are counted only."""
    await fill(tmp_path / "sophia.db", 1_000_000, 40, 1.0, ("learned", "heuristic"))
    store = SqliteStore(tmp_path / "sophia.db")
    found = await decisions_of(store, READ, 0, shared=False)
    none = await decisions_of(store, READ, 1_000_100, shared=False)
    shared = await decisions_of(store, READ, 0, shared=True)
    await store.close()

    assert (len(found.decisions), found.others) == (20, 20)
    assert none == Found((), 0)
    assert len(found.other_ids) == 20
    first = found.decisions[0]
    task = int(first.sight.tasks.argmax())
    draws = np.random.default_rng(0)
    assert task == int(draws.integers(2))
    plan, arm = plan_of(task, float(draws.random()))
    assert plan.evidence is not None
    assert first.chances == pytest.approx([one.propensity for one in plan.evidence.rated])
    assert (first.chosen, first.arms, first.at_ms) == (arm, ARMS, 1_000_000)
    assert first.options.cost.tolist() == COSTS.tolist()
    assert all(one.word and one.word.arm == ARMS[one.chosen] for one in found.decisions)
    assert first.sight.tenant == "k1"
    assert shared.decisions[0].sight.tenant == ""


async def test_several_words_are_averaged_by_their_weight(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "sophia.db")
    plan, arm = plan_of(0, 0.1)
    row = Intent(16, "k1", "2026-01-01", ARMS[arm], "u", 1, 5, msgspec.json.encode(plan))
    await store.reserve(row)
    for number, (score, weight) in enumerate(((0.0, 0.0), (1.0, 0.75), (0.0, 0.25)), 1):
        await store.add_lesson(LessonRow(number, 16, "k1", "z", score, weight, "learned", 6))
    found = await decisions_of(store, READ, 0, shared=True)
    await store.close()
    assert found.decisions[0].word == Word(0.75, 1.0, "z")


async def test_signs_are_no_words_and_a_judges_word_is_known_as_such(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "sophia.db")
    plan, arm = plan_of(0, 0.1)
    assert plan.evidence is not None
    raw = msgspec.json.encode(replace(plan, evidence=replace(plan.evidence, asked=True)))
    said = {16: ["validator"], 32: ["judge", "retry"], 48: ["judge", "thumb"]}
    for number, (id, channels) in enumerate(said.items()):
        await store.reserve(Intent(id, "k1", "2026-01-01", ARMS[arm], "u", 1, 5, raw))
        for place, channel in enumerate(channels, 2 * number + 1):
            score = 0.5 if channel == "judge" else 0.0
            row = LessonRow(place, id, "k1", "z", score, 1.0, "learned", 6, channel=channel)
            await store.add_lesson(row)
    found = await decisions_of(store, READ, 0, shared=True)
    await store.close()
    assert [one.asked for one in found.decisions] == [True] * 3
    assert [one.word for one in found.decisions] == [
        None,
        Word(0.5, 1.0, "z", 0.5, others=False),
        Word(0.25, 2.0, "z", 0.5, others=True),
    ]


async def test_a_model_with_tools_is_an_arm_of_its_own(tmp_path: Path) -> None:
    """It is read as such, and `always` a model is meant in every mode."""
    store = SqliteStore(tmp_path / "sophia.db")
    for number, mode in ((1, ""), (2, "tools")):
        plan, arm = plan_of(0, 0.5, mode=mode)
        id, raw = number * 16, msgspec.json.encode(plan)
        await store.reserve(Intent(id, "k1", "2026-01-01", ARMS[arm], "u", 1, number, raw))
        row = LessonRow(number, id, "k1", "z", 1.0, 1.0, "learned", 6)
        await store.add_lesson(row)
    found = await decisions_of(store, READ, 0, shared=True)
    await store.close()
    plain, tools = found.decisions
    assert plain.arms == ARMS
    assert tools.arms == tuple(f"{arm}#tools" for arm in ARMS)
    assert plain.chosen == tools.chosen

    told = report(Found((*decisions(300, 1.0), *[tools] * 300), 0), [])
    assert len(told.arms) == 3
    assert all(arm.endswith("#tools") for arm in told.arms)
    cheap = target(told, "always a/cheap")
    assert cheap.cost_usd == pytest.approx(COSTS[0] / 1e9)
    mixed = report(Found((tools, *decisions(2, 1.0), tools), 0), [])
    assert target(mixed, "always b/dear").cost_usd == pytest.approx(COSTS[1] / 1e9)
