"""An arm that gets worse is noticed soon, and one that does not is left alone."""

import numpy as np
import pytest

from sophia.routing.bandit.drift import (
    QUALITY_LOSS,
    DriftAlarm,
    DriftState,
    log_likelihood_ratio,
    update_drift,
)


def _until_alarm(rate: float, believed: float, seed: int, count: int = 4000) -> int | None:
    """Return after how many outcomes an arm believed to be right so often raises an alarm."""
    rng = np.random.default_rng(seed)
    state = DriftState()
    for number in range(count):
        right = float(rng.uniform() < rate)
        found = log_likelihood_ratio(right, believed, 0.02)
        state, alarm = update_drift(state, "arm", number % 5, found)
        if alarm is not None:
            return number + 1
    return None


@pytest.mark.parametrize("believed", [0.7, 0.85, 0.95])
def test_a_loss_of_four_in_ten_right_answers_is_noticed_within_a_hundred(believed: float) -> None:
    delays = [_until_alarm(0.6 * believed, believed, seed) for seed in range(20)]
    assert all(delay is not None and delay <= 100 for delay in delays)


@pytest.mark.parametrize("believed", [0.6, 0.9])
def test_a_steady_arm_hardly_ever_raises_an_alarm(believed: float) -> None:
    false = [_until_alarm(believed, believed, seed) for seed in range(20)]
    assert sum(alarm is not None for alarm in false) <= 4


def test_getting_better_is_no_alarm_and_no_credit() -> None:
    state = DriftState()
    for _ in range(100):
        state, alarm = update_drift(state, "arm", 0, -0.3)
        assert alarm is None
    assert not state.sums, "an arm that does well takes no memory"


def test_a_loss_on_one_task_is_told_apart_from_a_loss_of_all() -> None:
    """Other tasks' good outcomes keep the arm as a whole above suspicion."""
    state, alarms = DriftState(), []
    for number in range(120):
        found = 1.5 if number % 6 == 0 else -0.35
        state, alarm = update_drift(state, "arm", 4 if number % 6 == 0 else 0, found)
        alarms += [alarm] if alarm else []
    assert alarms
    assert set(alarms) == {DriftAlarm("arm", 4)}


def test_after_an_alarm_counting_begins_anew_and_others_go_on() -> None:
    state = DriftState()
    state, _ = update_drift(state, "other", 1, 2.0)
    before = state.sums["other", 1]
    alarm = None
    while alarm is None:
        state, alarm = update_drift(state, "arm", 0, 2.0)
    assert alarm == DriftAlarm("arm", None)
    assert not any(arm == "arm" for arm, _ in state.sums)
    assert state.sums["other", 1] == before > 0.0


def test_evidence_is_the_likelihood_ratio_of_the_loss() -> None:
    after = 0.8 * (1.0 - QUALITY_LOSS)
    right, wrong = np.log(after / 0.8), np.log((1.0 - after) / 0.2)
    assert log_likelihood_ratio(1.0, 0.8, 0.0) == pytest.approx(right)
    assert log_likelihood_ratio(0.0, 0.8, 0.0) == pytest.approx(wrong)
    assert log_likelihood_ratio(0.5, 0.8, 0.0) == pytest.approx((right + wrong) / 2)
    uncertain, lower = log_likelihood_ratio(0.0, 0.8, 0.1), log_likelihood_ratio(0.0, 0.7, 0.0)
    assert uncertain == pytest.approx(lower)
    certain = log_likelihood_ratio(0.0, 1.0, 0.0)
    assert certain == log_likelihood_ratio(0.0, 0.97, 0.0) < 3.0
