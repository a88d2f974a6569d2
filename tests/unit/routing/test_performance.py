"""Length, latency and failures of arms are learned answer by answer, in bounded time and memory."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from sophia.routing.bandit.performance.forecast import AnswerMeasurement, Forecast
from sophia.routing.bandit.performance.latency import SpeedPrior
from sophia.routing.bandit.performance.model import (
    FAILURE_HALF_LIFE_MS,
    PerformanceModel,
    PerformanceState,
    merge_performance_states,
)
from sophia.routing.bandit.performance.summary import (
    beta_interval,
    pack_summaries,
    unpack_summaries,
)

TASKS = 4
FAST, SLOW = "a/fast", "b/slow"
SPEEDS = {FAST: SpeedPrior(500.0, 5.0), SLOW: SpeedPrior(2000.0, 25.0)}
HOUR = int(FAILURE_HALF_LIFE_MS)
MODES = [f"{FAST}#tools", f"{FAST}#tools:high", f"{FAST}#tools:high@price", f"{SLOW}#@price"]


def with_arms(*more: str) -> PerformanceModel:
    performance = PerformanceModel(TASKS)
    performance.set_speed_priors(
        SPEEDS | {arm: SPEEDS.get(arm.partition("#")[0], SpeedPrior()) for arm in more}
    )
    return performance


def task(number: int) -> np.ndarray:
    return np.eye(TASKS)[number]


def answer(
    arm: str, tokens: int = 300, total_ms: float = 4000.0, **more: object
) -> AnswerMeasurement:
    fields = {"task_probabilities": task(0), "expected_tokens": 300, **more}
    return AnswerMeasurement(arm=arm, completion_tokens=tokens, total_ms=total_ms, **fields)  # type: ignore[arg-type]


def forecast_one(
    performance: PerformanceModel,
    arm: str,
    number: int = 0,
    tokens: float = 300.0,
    *,
    stream: bool = False,
) -> Forecast:
    return performance.forecast([arm], task(number), np.array([tokens]), stream=stream)


def drawn(told: Random, first_ms: float, token_ms: float, tokens: int, scatter: float) -> float:
    return (first_ms + token_ms * tokens) * math.exp(told.gauss(0.0, scatter))


def test_before_anything_was_seen_a_profile_is_believed() -> None:
    performance = with_arms()
    assert forecast_one(performance, FAST).log_time[0] == pytest.approx(math.log(500 + 5 * 300))
    assert forecast_one(performance, SLOW, stream=True).log_time[0] == pytest.approx(math.log(2000))
    assert forecast_one(performance, FAST).length_ratio[0] == pytest.approx(math.exp(0.15))


def test_the_time_of_an_answer_grows_with_its_length() -> None:
    """First content and each token are told apart from whole answers of various lengths alone."""
    performance, told = with_arms(), Random(1)
    for _ in range(400):
        tokens = told.randint(20, 900)
        took = drawn(told, 1500.0, 12.0, tokens, 0.15)
        performance.update_answer(answer(FAST, tokens, took, expected_tokens=tokens))
    for tokens in (30, 800):
        expected = math.log(1500 + 12 * tokens)
        assert forecast_one(performance, FAST, tokens=tokens).log_time[0] == pytest.approx(
            expected, abs=0.15
        )


@pytest.mark.parametrize("stream", [False, True])
def test_ninety_five_answers_in_a_hundred_come_within_the_time_that_is_told(stream: bool) -> None:
    told, inside, below, count = Random(2), 0, 0, 0
    for _ in range(12):
        performance = with_arms()
        first, token = math.exp(told.gauss(6.5, 0.6)), math.exp(told.gauss(2.5, 0.5))
        for number in range(150):
            begun = first * math.exp(told.gauss(0.0, 0.35))
            tokens = max(int(200 * math.exp(told.gauss(0.0, 0.4))), 1)
            took = begun + token * tokens
            forecast = forecast_one(performance, FAST, stream=stream)
            if number >= 20:
                actual = math.log(begun if stream else took)
                inside += actual <= forecast.log_time[0] + 1.645 * forecast.log_time_sd[0]
                below += actual <= forecast.log_time[0]
                count += 1
            performance.update_answer(
                answer(FAST, tokens, took, first_content_ms=begun if stream else None)
            )
    assert 0.92 <= inside / count <= 0.99
    assert 0.42 <= below / count <= 0.58


def test_lengths_are_told_apart_by_task_and_by_arm() -> None:
    performance, told = with_arms(), Random(3)
    for number in range(400):
        arm, kind = (FAST, SLOW)[number % 2], number // 2 % 2
        usual = (100, 600)[kind] * (1, 3)[number % 2]
        tokens = int(usual * math.exp(told.gauss(0.0, 0.3)))
        performance.update_answer(answer(arm, tokens, task_probabilities=task(kind)))
    for arm, factor in ((FAST, 1), (SLOW, 3)):
        for kind, usual in enumerate((100, 600)):
            mean = usual * factor * math.exp(0.045)
            assert 300 * forecast_one(performance, arm, kind).length_ratio[0] == pytest.approx(
                mean, rel=0.2
            )
    # What is common goes for those of whom nothing was seen.
    assert (
        100
        < 300 * forecast_one(performance, "c/new", 0).length_ratio[0]
        < 300 * forecast_one(performance, "c/new", 1).length_ratio[0]
    )


def test_what_is_known_better_is_doubted_less() -> None:
    performance = with_arms()
    before = forecast_one(performance, FAST)
    for _ in range(50):
        performance.update_answer(answer(FAST))
    after = forecast_one(performance, FAST)
    assert after.log_length_variance[0] < 0.4 * before.log_length_variance[0]
    assert after.log_time_variance[0] < 0.4 * before.log_time_variance[0]
    assert after.log_time_sd[0] < before.log_time_sd[0]


def test_an_absurd_answer_moves_an_arm_only_so_far() -> None:
    def after(tokens: int, total_ms: float) -> Forecast:
        performance = with_arms()
        for _ in range(60):
            performance.update_answer(answer(FAST))
        performance.update_answer(answer(FAST, tokens, total_ms))
        return forecast_one(performance, FAST)

    usual, odd, absurd = after(300, 4000.0), after(30_000, 100_000.0), after(10**8, 3_500_000.0)
    assert absurd.length_ratio[0] == pytest.approx(odd.length_ratio[0], rel=0.02)
    assert absurd.length_ratio[0] < 1.3 * usual.length_ratio[0]
    assert absurd.log_time[0] < usual.log_time[0] + 0.3


def test_an_answer_that_was_cut_short_says_only_how_long_it_was_at_least() -> None:
    performance = with_arms()
    before = forecast_one(performance, FAST).length_ratio[0]
    performance.update_answer(answer(FAST, 16, truncated=True))
    assert forecast_one(performance, FAST).length_ratio[0] == before
    performance.update_answer(answer(FAST, 3000, truncated=True))
    assert forecast_one(performance, FAST).length_ratio[0] > before


def test_a_model_that_was_never_seen_goes_by_how_wrong_beliefs_were() -> None:
    """Else those that were asked once would look fast or slow beside those that never were."""
    performance = with_arms()
    for _ in range(60):
        performance.update_answer(answer(FAST, 300, (500 + 5 * 300) / 20))
    told, believed = forecast_one(performance, SLOW).log_time[0], math.log(2000 + 25 * 300)
    assert told == pytest.approx(believed - math.log(20), abs=0.4)
    assert (
        forecast_one(performance, SLOW).log_time_sd[0]
        > forecast_one(performance, FAST).log_time_sd[0]
    )


def test_a_way_of_calling_a_model_that_was_never_seen_goes_by_its_others() -> None:
    performance = with_arms(f"{FAST}#tools")
    for _ in range(30):
        performance.update_answer(answer(FAST, 300, 9000.0))
    plain, tools = forecast_one(performance, FAST), forecast_one(performance, f"{FAST}#tools")
    assert tools.log_time[0] == pytest.approx(plain.log_time[0], abs=0.05)
    assert tools.log_time_variance[0] > plain.log_time_variance[0]


def test_failures_count_by_half_after_an_hour() -> None:
    performance = with_arms()
    for _ in range(10):
        performance.update_attempt(FAST, HOUR, failed=True)
    failing = forecast_one(performance, FAST)
    assert failing.failures[0] / failing.attempts[0] == pytest.approx(10.2 / 20)
    performance.update_attempt(SLOW, 2 * HOUR, failed=False)
    later = forecast_one(performance, FAST)
    assert later.failures[0] / later.attempts[0] == pytest.approx(5.2 / 15)
    assert (
        forecast_one(performance, SLOW).failures[0] / forecast_one(performance, SLOW).attempts[0]
        < 0.02
    )


def test_an_attempt_that_fails_is_late_whatever_the_limit() -> None:
    performance = with_arms()
    for _ in range(30):
        performance.update_attempt(FAST, HOUR, failed=True)
    late = forecast_one(performance, FAST).late_probability(10**9)[0]
    assert late == pytest.approx(30.2 / 40, abs=1e-6)


@given(st.floats(10, 1e6), st.floats(10, 1e6))
def test_a_longer_limit_is_missed_no_oftener(one: float, other: float) -> None:
    forecast = forecast_one(with_arms(), FAST)
    low, high = sorted((one, other))
    assert 0.0 <= forecast.late_probability(high)[0] <= forecast.late_probability(low)[0] <= 1.0


_ANSWERS = st.builds(
    answer,
    st.sampled_from([FAST, SLOW, *MODES, "nobody"]),
    st.integers(0, 100_000),
    st.floats(0.1, 1e7),
    task_probabilities=st.sampled_from([None, task(0), np.full(TASKS, 0.25)]),
    expected_tokens=st.integers(0, 4000),
    first_content_ms=st.none() | st.floats(0.0, 1e5),
    truncated=st.booleans(),
)


@given(st.lists(_ANSWERS, max_size=30), st.lists(_ANSWERS, max_size=10))
def test_what_was_written_down_goes_on_as_if_nothing_had_happened(
    before: list[AnswerMeasurement], after: list[AnswerMeasurement]
) -> None:
    performance = with_arms(f"{FAST}#tools")
    for number, one in enumerate(before):
        performance.update_answer(one)
        performance.update_attempt(one.arm, number, failed=bool(number % 3))
    written = msgpack.encode(performance.dump_state())
    again = PerformanceModel.from_state(msgpack.decode(written, type=PerformanceState))
    assert msgpack.encode(again.dump_state()) == written
    for one in after:
        performance.update_answer(one)
        again.update_answer(one)
    for stream in (False, True):
        arms = [FAST, SLOW, *MODES, "nobody"]
        tokens = np.full(len(arms), 300.0)
        one, other = (
            known.forecast(arms, task(1), tokens, stream=stream) for known in (performance, again)
        )
        for name in Forecast.__struct_fields__:
            found = getattr(one, name)
            assert np.isfinite(found).all()
            assert found.tolist() == getattr(other, name).tolist()


def test_memory_does_not_grow_with_answers_or_with_names() -> None:
    performance = with_arms()
    size = len(msgpack.encode(performance.dump_state()))
    for number in range(500):
        performance.update_answer(answer(FAST))
        performance.update_answer(answer(f"made/up-{number}"))
        performance.update_attempt(f"made/up-{number}", number, failed=True)
    assert [state.arm for state in performance.dump_state().arms] == ["", FAST, SLOW]
    assert len(msgpack.encode(performance.dump_state())) < 1.2 * size


def test_an_effort_or_a_choice_of_providers_is_followed_apart_from_the_first_answer_on() -> None:
    """Until then it goes by the same call without it, and the number of such arms is bounded."""
    performance = with_arms()
    for _ in range(20):
        performance.update_answer(answer(FAST, 200))
    high = f"{FAST}#reasoning:high@price"
    assert (
        forecast_one(performance, f"{FAST}#:high").length_ratio[0]
        == forecast_one(performance, FAST).length_ratio[0]
    )
    performance.set_speed_priors({f"{FAST}#reasoning": SPEEDS[FAST]})
    for _ in range(20):
        performance.update_answer(answer(high, 3000))
    assert (
        forecast_one(performance, high).length_ratio[0]
        > 4 * forecast_one(performance, FAST).length_ratio[0]
    )
    for number in range(5000):
        performance.update_attempt(f"{FAST}#@{number}", 1, failed=True)
    assert len(performance.dump_state().arms) < 1100


def test_of_two_memories_the_longer_one_stands_for_each_arm() -> None:
    mine, other = with_arms(), with_arms("c/probed")
    for _ in range(20):
        mine.update_answer(answer(FAST, 300, 9000.0))
        other.update_answer(answer("c/probed", 300, 700.0))
    both = PerformanceModel.from_state(
        merge_performance_states(mine.dump_state(), other.dump_state())
    )
    assert (both.count_timed(FAST), both.count_timed("c/probed"), both.count_timed(SLOW)) == (
        20,
        20,
        0,
    )


@pytest.mark.parametrize(
    ("fails", "tries"), [(0.2, 10.0), (3.2, 110.0), (30.2, 60.0), (0.2, 5010.0)]
)
def test_the_range_of_a_failure_rate_holds_nine_tenths_of_it(fails: float, tries: float) -> None:
    low, high = beta_interval(fails, tries)
    sample = np.random.default_rng(1).beta(fails, tries - fails, 200_000)
    assert np.mean(sample < low) == pytest.approx(0.05, abs=0.004)
    assert np.mean(sample > high) == pytest.approx(0.05, abs=0.004)


def test_what_is_told_is_what_was_foreseen() -> None:
    performance = with_arms()
    for _ in range(20):
        performance.update_answer(answer(FAST, 300, 3000.0))
    forecast = performance.forecast([FAST, SLOW], task(0), np.full(2, 300.0))
    fast, slow = unpack_summaries(pack_summaries(forecast, np.array([1000.0, 2000.0])))
    assert fast.p50_ms == pytest.approx(3000, rel=0.1)
    assert fast.p50_range_ms[0] < fast.p50_ms < fast.p50_range_ms[1] < fast.p95_ms < slow.p95_ms
    assert fast.cost_sd_nano < slow.cost_sd_nano
    assert fast.failure_range[0] < fast.failure_rate < fast.failure_range[1]
    assert unpack_summaries(b"") == ()
