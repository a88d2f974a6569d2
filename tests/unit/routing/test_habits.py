"""How arms answer is learned answer by answer, of one size, whatever came before."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from sophia.routing.forecast import Answer, Asked, Forecast
from sophia.routing.habits import HALF_LIFE_MS, Habits, Saved, newer
from sophia.routing.timing import Pace
from sophia.routing.usual import beta_range, pack_usual, usual_of

TASKS = 4
FAST, SLOW = "a/fast", "b/slow"
PACES = {FAST: Pace(500.0, 5.0), SLOW: Pace(2000.0, 25.0)}
HOUR = int(HALF_LIFE_MS)
MODES = [f"{FAST}#tools", f"{FAST}#tools:high", f"{FAST}#tools:high@price", f"{SLOW}#@price"]


def knowing(*more: str) -> Habits:
    habits = Habits(TASKS)
    habits.know(PACES | {arm: PACES.get(arm.partition("#")[0], Pace()) for arm in more})
    return habits


def task(number: int) -> np.ndarray:
    return np.eye(TASKS)[number]


def answer(arm: str, tokens: int = 300, total_ms: float = 4000.0, **more: object) -> Answer:
    fields = {"tasks": task(0), "expected": 300, "first_ms": None, **more}
    return Answer(arm, tokens=tokens, total_ms=total_ms, **fields)  # type: ignore[arg-type]


def foresee(habits: Habits, arm: str, number: int = 0, tokens: float = 300.0, *, stream: bool = False) -> Forecast:
    return habits.forecast([arm], Asked(task(number), np.array([tokens]), stream))


def drawn(told: Random, first_ms: float, token_ms: float, tokens: int, scatter: float) -> float:
    return (first_ms + token_ms * tokens) * math.exp(told.gauss(0.0, scatter))


def test_before_anything_was_seen_a_profile_is_believed() -> None:
    habits = knowing()
    assert foresee(habits, FAST).time[0] == pytest.approx(math.log(500 + 5 * 300))
    assert foresee(habits, SLOW, stream=True).time[0] == pytest.approx(math.log(2000))
    assert foresee(habits, FAST).length[0] == pytest.approx(math.exp(0.15))


def test_the_time_of_an_answer_grows_with_its_length() -> None:
    """First content and each token are told apart from whole answers of various lengths alone."""
    habits, told = knowing(), Random(1)
    for _ in range(400):
        tokens = told.randint(20, 900)
        took = drawn(told, 1500.0, 12.0, tokens, 0.15)
        habits.answered(answer(FAST, tokens, took, expected=tokens))
    for tokens in (30, 800):
        expected = math.log(1500 + 12 * tokens)
        assert foresee(habits, FAST, tokens=tokens).time[0] == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize("stream", [False, True])
def test_ninety_five_answers_in_a_hundred_come_within_the_time_that_is_told(stream: bool) -> None:
    told, inside, below, count = Random(2), 0, 0, 0
    for _ in range(12):
        habits = knowing()
        first, token = math.exp(told.gauss(6.5, 0.6)), math.exp(told.gauss(2.5, 0.5))
        for number in range(150):
            begun = first * math.exp(told.gauss(0.0, 0.35))
            tokens = max(int(200 * math.exp(told.gauss(0.0, 0.4))), 1)
            took = begun + token * tokens
            forecast = foresee(habits, FAST, stream=stream)
            if number >= 20:
                actual = math.log(begun if stream else took)
                inside += actual <= forecast.time[0] + 1.645 * forecast.spread[0]
                below += actual <= forecast.time[0]
                count += 1
            habits.answered(answer(FAST, tokens, took, first_ms=begun if stream else None))
    assert 0.92 <= inside / count <= 0.99
    assert 0.42 <= below / count <= 0.58


def test_lengths_are_told_apart_by_task_and_by_arm() -> None:
    habits, told = knowing(), Random(3)
    for number in range(400):
        arm, kind = (FAST, SLOW)[number % 2], number // 2 % 2
        usual = (100, 600)[kind] * (1, 3)[number % 2]
        tokens = int(usual * math.exp(told.gauss(0.0, 0.3)))
        habits.answered(answer(arm, tokens, tasks=task(kind)))
    for arm, factor in ((FAST, 1), (SLOW, 3)):
        for kind, usual in enumerate((100, 600)):
            mean = usual * factor * math.exp(0.045)
            assert 300 * foresee(habits, arm, kind).length[0] == pytest.approx(mean, rel=0.2)
    # What is common goes for those of whom nothing was seen.
    assert 100 < 300 * foresee(habits, "c/new", 0).length[0] < 300 * foresee(habits, "c/new", 1).length[0]


def test_what_is_known_better_is_doubted_less() -> None:
    habits = knowing()
    before = foresee(habits, FAST)
    for _ in range(50):
        habits.answered(answer(FAST))
    after = foresee(habits, FAST)
    assert after.unsure[0] < 0.4 * before.unsure[0]
    assert after.vague[0] < 0.4 * before.vague[0]
    assert after.spread[0] < before.spread[0]


def test_an_absurd_answer_moves_an_arm_only_so_far() -> None:
    def after(tokens: int, total_ms: float) -> Forecast:
        habits = knowing()
        for _ in range(60):
            habits.answered(answer(FAST))
        habits.answered(answer(FAST, tokens, total_ms))
        return foresee(habits, FAST)

    usual, odd, absurd = after(300, 4000.0), after(30_000, 100_000.0), after(10**8, 3_500_000.0)
    assert absurd.length[0] == pytest.approx(odd.length[0], rel=0.02)
    assert absurd.length[0] < 1.3 * usual.length[0]
    assert absurd.time[0] < usual.time[0] + 0.3


def test_an_answer_that_was_cut_short_says_only_how_long_it_was_at_least() -> None:
    habits = knowing()
    before = foresee(habits, FAST).length[0]
    habits.answered(answer(FAST, 16, cut=True))
    assert foresee(habits, FAST).length[0] == before
    habits.answered(answer(FAST, 3000, cut=True))
    assert foresee(habits, FAST).length[0] > before


def test_a_model_that_was_never_seen_goes_by_how_wrong_beliefs_were() -> None:
    """Else those that were asked once would look fast or slow beside those that never were."""
    habits = knowing()
    for _ in range(60):
        habits.answered(answer(FAST, 300, (500 + 5 * 300) / 20))
    told, believed = foresee(habits, SLOW).time[0], math.log(2000 + 25 * 300)
    assert told == pytest.approx(believed - math.log(20), abs=0.4)
    assert foresee(habits, SLOW).spread[0] > foresee(habits, FAST).spread[0]


def test_a_way_of_calling_a_model_that_was_never_seen_goes_by_its_others() -> None:
    habits = knowing(f"{FAST}#tools")
    for _ in range(30):
        habits.answered(answer(FAST, 300, 9000.0))
    plain, tools = foresee(habits, FAST), foresee(habits, f"{FAST}#tools")
    assert tools.time[0] == pytest.approx(plain.time[0], abs=0.05)
    assert tools.vague[0] > plain.vague[0]


def test_failures_count_by_half_after_an_hour() -> None:
    habits = knowing()
    for _ in range(10):
        habits.tried(FAST, HOUR, failed=True)
    failing = foresee(habits, FAST)
    assert failing.fails[0] / failing.tries[0] == pytest.approx(10.2 / 20)
    habits.tried(SLOW, 2 * HOUR, failed=False)
    later = foresee(habits, FAST)
    assert later.fails[0] / later.tries[0] == pytest.approx(5.2 / 15)
    assert foresee(habits, SLOW).fails[0] / foresee(habits, SLOW).tries[0] < 0.02


def test_an_attempt_that_fails_is_late_whatever_the_limit() -> None:
    habits = knowing()
    for _ in range(30):
        habits.tried(FAST, HOUR, failed=True)
    late = foresee(habits, FAST).late(10**9)[0]
    assert late == pytest.approx(30.2 / 40, abs=1e-6)


@given(st.floats(10, 1e6), st.floats(10, 1e6))
def test_a_longer_limit_is_missed_no_oftener(one: float, other: float) -> None:
    forecast = foresee(knowing(), FAST)
    low, high = sorted((one, other))
    assert 0.0 <= forecast.late(high)[0] <= forecast.late(low)[0] <= 1.0


_ANSWERS = st.builds(
    answer,
    st.sampled_from([FAST, SLOW, *MODES, "nobody"]),
    st.integers(0, 100_000),
    st.floats(0.1, 1e7),
    tasks=st.sampled_from([None, task(0), np.full(TASKS, 0.25)]),
    expected=st.integers(0, 4000),
    first_ms=st.none() | st.floats(0.0, 1e5),
    cut=st.booleans(),
)


@given(st.lists(_ANSWERS, max_size=30), st.lists(_ANSWERS, max_size=10))
def test_what_was_written_down_goes_on_as_if_nothing_had_happened(
    before: list[Answer], after: list[Answer]
) -> None:
    habits = knowing(f"{FAST}#tools")
    for number, one in enumerate(before):
        habits.answered(one)
        habits.tried(one.arm, number, failed=bool(number % 3))
    written = msgpack.encode(habits.saved())
    again = Habits.of(msgpack.decode(written, type=Saved))
    assert msgpack.encode(again.saved()) == written
    for one in after:
        habits.answered(one)
        again.answered(one)
    for stream in (False, True):
        arms = [FAST, SLOW, *MODES, "nobody"]
        asked = Asked(task(1), np.full(len(arms), 300.0), stream)
        one, other = habits.forecast(arms, asked), again.forecast(arms, asked)
        for name in Forecast.__struct_fields__:
            found = getattr(one, name)
            assert np.isfinite(found).all()
            assert found.tolist() == getattr(other, name).tolist()


def test_memory_does_not_grow_with_answers_or_with_names() -> None:
    habits = knowing()
    size = len(msgpack.encode(habits.saved()))
    for number in range(500):
        habits.answered(answer(FAST))
        habits.answered(answer(f"made/up-{number}"))
        habits.tried(f"made/up-{number}", number, failed=True)
    assert habits.arms == (FAST, SLOW)
    assert len(msgpack.encode(habits.saved())) < 1.2 * size


def test_an_effort_or_a_choice_of_providers_is_followed_apart_from_the_first_answer_on() -> None:
    """Until then it goes by the same call without it, and the number of such arms is bounded."""
    habits = knowing()
    for _ in range(20):
        habits.answered(answer(FAST, 200))
    high = f"{FAST}#reasoning:high@price"
    assert foresee(habits, f"{FAST}#:high").length[0] == foresee(habits, FAST).length[0]
    habits.know({f"{FAST}#reasoning": PACES[FAST]})
    for _ in range(20):
        habits.answered(answer(high, 3000))
    assert foresee(habits, high).length[0] > 4 * foresee(habits, FAST).length[0]
    for number in range(5000):
        habits.tried(f"{FAST}#@{number}", 1, failed=True)
    assert len(habits.arms) < 1100


def test_of_two_memories_the_longer_one_stands_for_each_arm() -> None:
    mine, theirs = knowing(), knowing("c/probed")
    for _ in range(20):
        mine.answered(answer(FAST, 300, 9000.0))
        theirs.answered(answer("c/probed", 300, 700.0))
    both = Habits.of(newer(mine.saved(), theirs.saved()))
    assert (both.seen(FAST), both.seen("c/probed"), both.seen(SLOW)) == (20, 20, 0)


@pytest.mark.parametrize(("fails", "tries"), [(0.2, 10.0), (3.2, 110.0), (30.2, 60.0), (0.2, 5010.0)])
def test_the_range_of_a_failure_rate_holds_nine_tenths_of_it(fails: float, tries: float) -> None:
    low, high = beta_range(fails, tries)
    sample = np.random.default_rng(1).beta(fails, tries - fails, 200_000)
    assert np.mean(sample < low) == pytest.approx(0.05, abs=0.004)
    assert np.mean(sample > high) == pytest.approx(0.05, abs=0.004)


def test_what_is_told_is_what_was_foreseen() -> None:
    habits = knowing()
    for _ in range(20):
        habits.answered(answer(FAST, 300, 3000.0))
    forecast = habits.forecast([FAST, SLOW], Asked(task(0), np.full(2, 300.0)))
    fast, slow = usual_of(pack_usual(forecast, np.array([1000.0, 2000.0])))
    assert fast.p50_ms == pytest.approx(3000, rel=0.1)
    assert fast.p50_range_ms[0] < fast.p50_ms < fast.p50_range_ms[1] < fast.p95_ms < slow.p95_ms
    assert fast.cost_sd_nano < slow.cost_sd_nano
    assert fast.failure_range[0] < fast.failure_rate < fast.failure_range[1]
    assert usual_of(b"") == ()
