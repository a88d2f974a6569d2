"""An arm that gets worse is noticed soon, and one that does not is left alone."""

import numpy as np
import pytest

from sophia.routing.drift import Alarm, Alertness, Watch, evidence, forget, watch

ALERTNESS = Alertness()


def _until_alarm(rate: float, believed: float, seed: int, count: int = 4000) -> int | None:
    """Return after how many outcomes an arm believed to be right so often raises an alarm."""
    rng = np.random.default_rng(seed)
    state = Watch()
    for number in range(count):
        right = float(rng.uniform() < rate)
        found = evidence(right, believed, 0.02, ALERTNESS)
        state, alarm = watch(state, "arm", number % 5, found, ALERTNESS)
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
    state = Watch()
    for _ in range(100):
        state, alarm = watch(state, "arm", 0, -0.3, ALERTNESS)
        assert alarm is None
    assert not state.sums, "and who does well takes no memory"


def test_a_loss_on_one_task_is_told_apart_from_a_loss_of_all() -> None:
    """Other tasks' good outcomes keep the arm as a whole above suspicion."""
    state, alarms = Watch(), []
    for number in range(120):
        found = 1.5 if number % 6 == 0 else -0.35
        state, alarm = watch(state, "arm", 4 if number % 6 == 0 else 0, found, ALERTNESS)
        alarms += [alarm] if alarm else []
    assert alarms
    assert set(alarms) == {Alarm("arm", 4)}


def test_after_an_alarm_counting_begins_anew_and_others_go_on() -> None:
    state = Watch()
    state, _ = watch(state, "other", 1, 2.0, ALERTNESS)
    before = state.sums["other", 1]
    alarm = None
    while alarm is None:
        state, alarm = watch(state, "arm", None, 2.0, ALERTNESS)
    assert alarm == Alarm("arm", None)
    assert not any(arm == "arm" for arm, _ in state.sums)
    assert state.sums["other", 1] == before > 0.0


def test_a_removed_arm_is_watched_no_longer() -> None:
    state = Watch({("a", None): 1.0, ("a", 2): 3.0, ("b", None): 2.0})
    assert forget(state, "a").sums == {("b", None): 2.0}


def test_evidence_is_the_likelihood_ratio_of_the_loss() -> None:
    alert = Alertness(loss=0.5)
    assert evidence(1.0, 0.8, 0.0, alert) == pytest.approx(np.log(0.4 / 0.8))
    assert evidence(0.0, 0.8, 0.0, alert) == pytest.approx(np.log(0.6 / 0.2))
    halfway = evidence(0.5, 0.8, 0.0, alert)
    assert halfway == pytest.approx((np.log(0.5) + np.log(3.0)) / 2)
    assert evidence(0.0, 0.8, 0.1, alert) == pytest.approx(evidence(0.0, 0.7, 0.0, alert))
    assert evidence(0.0, 1.0, 0.0, alert) == evidence(0.0, 0.97, 0.0, alert) < 3.0
