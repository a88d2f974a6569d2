"""Promotion: nobody rises on noise, whoever is broken falls, and every step carries its evidence."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sophia.learning.always_valid import Tally, interval, radius
from sophia.learning.off_policy import Comparison, Estimate, Refused, compare, paired
from sophia.learning.promotion import (
    GATE,
    Contest,
    Gate,
    Ruling,
    Standing,
    Trial,
    consider,
    observe,
    serving,
    share,
)
from sophia.learning.support import Log, Support

GOOD_GROUND = Support(4000, 4000, 2000.0, 5.0, 0.0)
BAD_GROUND = Support(4000, 4000, 50.0, 500.0, 0.0)
SAME = paired(np.linspace(0, 1, 400), np.linspace(0, 1, 400))
assert isinstance(SAME, Comparison)


def gain(value: float, se: float = 0.005, ground: Support = GOOD_GROUND) -> Comparison:
    one = Estimate(value, se, value - 2 * se, value + 2 * se)
    return Comparison(one, one, one, ground)


def trial(contest: Contest, told: Comparison | Refused, abstention: Comparison | Refused = SAME) -> Trial:
    return Trial(contest.seen_ms, contest.seen_ms + 1000, told, abstention)


def looked(contest: Contest, told: Comparison | Refused, **other: object) -> Contest:
    return consider(contest, trial(contest, told, **other), contest.seen_ms + 1000)  # type: ignore[arg-type]


def scores_to_retreat(gap: float) -> int:
    """Return how many live scores of each side retire a challenger that is worse by `gap`.

    Holds with a chance of 1 − `error`, for every way in which scores may vary; about half as many
    do on average. Never more than `patience`.
    """
    low, high = 1, GATE.patience
    while low < high:
        middle = (low + high) // 2
        # Means may be off by a radius each, and the intervals then reach a radius further.
        if 4 * radius(middle, GATE.error / 4) < gap:
            high = middle
        else:
            low = middle + 1
    return low


def fresh(**other: int) -> Contest:
    return Contest("new", "old", seen_ms=5000, **other)


def canary() -> Contest:
    contest = looked(fresh(), gain(0.05))
    assert contest.stage == "canary"
    return contest


def scored(contest: Contest, ours: list[float], theirs: list[float], gate: Gate = GATE) -> Contest:
    for n, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        contest = observe(contest, "challenger", a, n, gate)
        contest = observe(contest, "incumbent", b, n, gate)
    return contest


def champion() -> Contest:
    contest = looked(scored(canary(), [0.8] * 200, [0.8] * 200), gain(0.05))
    assert contest.stage == "champion"
    return contest


def test_the_way_up() -> None:
    """Shadow, canary, champion, settled; each with its share of traffic and its evidence."""
    contest = fresh()
    assert (share(contest), serving(contest)) == (0.0, "old")
    contest = canary()
    assert (share(contest), serving(contest)) == (0.05, "old")
    contest = champion()
    assert (share(contest), serving(contest)) == (0.95, "new")
    contest = scored(contest, [0.8] * 5000, [0.8] * 5000)
    assert (contest.stage, share(contest), serving(contest)) == ("settled", 1.0, "new")
    assert [step.after for step in contest.history] == ["canary", "champion", "settled"]
    first, second, third = (step.evidence for step in contest.history)
    assert isinstance(first, Ruling)
    assert isinstance(second, Ruling)
    assert isinstance(third, Standing)
    assert first.trial.gain == gain(0.05)
    assert 0.03 < first.low < 0.05 < first.high
    assert second.error < first.error
    assert third.challenger.count == 5000


@pytest.mark.parametrize(
    ("told", "abstention"),
    [
        (gain(0.011), SAME),
        (gain(0.05, 0.05), SAME),
        (gain(0.05, ground=Support(999, 999, 900.0, 2.0, 0.0)), SAME),
        (Refused("too little", BAD_GROUND), SAME),
        (gain(0.05), gain(-0.02)),
        (gain(0.05), gain(0.0, 0.02)),
        (gain(0.05), Refused("too little", BAD_GROUND)),
    ],
    ids=["small", "unsure", "few", "refused", "harm", "maybe harm", "harm unknown"],
)
def test_what_is_not_proved_changes_nothing(
    told: Comparison | Refused, abstention: Comparison | Refused
) -> None:
    contest = looked(fresh(), told, abstention=abstention)
    assert contest.stage == "shadow"
    assert contest.looks == 1
    assert contest.history == ()


def test_a_gain_is_proved_only_on_logs_nobody_has_seen() -> None:
    contest = fresh()
    with pytest.raises(ValueError, match="learned from or looked at"):
        consider(contest, Trial(4999, 9000, gain(0.1), SAME), 9000)
    contest = looked(contest, gain(0.0))
    with pytest.raises(ValueError, match="learned from or looked at"):
        consider(contest, Trial(5500, 9000, gain(0.1), SAME), 9000)


def test_a_canary_needs_enough_live_scores_and_a_second_proof() -> None:
    few = looked(scored(canary(), [0.8] * 199, [0.8] * 199), gain(0.05))
    assert few.stage == "canary"
    unproved = looked(scored(canary(), [0.8] * 300, [0.8] * 300), gain(0.0))
    assert unproved.stage == "canary"


def test_every_look_asks_for_more() -> None:
    """The error budget is shared by all looks: the same evidence is worth less at a later one."""
    barely = gain(0.013, 0.005)
    assert looked(fresh(), barely).stage == "canary"
    later = fresh(looks=6)
    assert looked(later, barely).stage == "shadow"


def test_the_bounds_are_student_s_at_what_the_log_is_worth() -> None:
    """At the first look each side may be wrong with half the error: 97.5 % of Student's t."""
    contest = looked(fresh(), gain(0.5, 0.1, Support(4000, 4000, 21.0, 5.0, 0.0)))
    ruling = contest.history[0].evidence
    assert isinstance(ruling, Ruling)
    assert (ruling.look, ruling.error) == (1, 0.025)
    assert ruling.low == pytest.approx(0.5 - 0.1 * 2.086, abs=0.001)
    assert ruling.high == pytest.approx(0.5 + 0.1 * 2.086, abs=0.001)


def test_who_lost_before_must_win_by_more() -> None:
    told = gain(0.0125, 0.005)
    assert looked(fresh(), told).stage == "canary"
    assert looked(fresh(defeats=1), told).stage == "shadow"


def test_no_gain_worth_having_is_retired_at_once() -> None:
    contest = looked(fresh(), gain(0.0, 0.0005))
    assert contest.stage == "retired"
    assert contest.history[-1].reason == "no gain worth having on unseen logs"


def test_worse_on_logs_is_retired_and_so_is_undecided_for_too_long() -> None:
    contest = looked(fresh(), gain(-0.05))
    assert contest.stage == "retired"
    assert contest.history[-1].reason == "worse than the incumbent on unseen logs"
    contest = fresh()
    for _ in range(GATE.looks):
        assert contest.stage == "shadow"
        contest = looked(contest, gain(0.0))
    assert contest.stage == "retired"


@pytest.mark.parametrize("start", [canary, champion])
def test_a_worse_challenger_steps_back_from_any_stage(start: object) -> None:
    contest = scored(start(), [0.2] * 400, [0.8] * 400)  # type: ignore[operator]
    assert contest.stage == "retired"
    assert (share(contest), serving(contest)) == (0.0, "old")
    stands = contest.history[-1].evidence
    assert isinstance(stands, Standing)
    assert stands.challenger.high < stands.incumbent.low


def test_after_the_end_nothing_moves() -> None:
    contest = looked(fresh(), gain(-0.05))
    assert observe(contest, "challenger", 1.0, 0) == contest
    assert looked(contest, gain(0.9)) == contest
    assert observe(fresh(), "challenger", 0.0, 0) == fresh()


def test_a_score_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        observe(canary(), "challenger", 1.5, 0)
    with pytest.raises(ValueError, match="from 0 to 1"):
        observe(canary(), "incumbent", math.nan, 0)


def test_noise_is_promoted_no_more_often_than_stated() -> None:
    """A challenger with no gain, looked at twelve times, 6,000 times over."""
    rng = np.random.default_rng(1)
    rose = promoted = 0
    for _ in range(6000):
        contest = fresh()
        stages = {"shadow"}
        while contest.stage in {"shadow", "canary"}:
            contest = looked(contest, gain(rng.normal(GATE.margin, 0.005)))
            contest = replace(contest, ours=Tally(300, 240), theirs=Tally(300, 240))
            stages.add(contest.stage)
        rose += "canary" in stages
        promoted += contest.stage == "champion"
    assert rose <= 6000 * GATE.error
    assert rose > 60, "the simulation would not notice a gate that never opens"
    assert promoted <= rose / 5


def test_a_real_gain_is_promoted_and_noise_is_not_from_logs_of_decisions() -> None:
    """The gate on top of the estimator that feeds it: 4,000 logged decisions a look."""
    rng = np.random.default_rng(3)
    rose = {0.0: 0, 0.08: 0}
    for better in rose:
        truth = np.array([0.7, 0.7 + better, 0.6])
        for _ in range(60):
            arms = rng.integers(0, 3, 4000)
            rewards = (rng.random(4000) < truth[arms]).astype(float)
            log = Log(np.zeros((4000, 1)), arms, np.full((4000, 3), 1 / 3), rewards)
            old, new = np.tile([0.8, 0.1, 0.1], (4000, 1)), np.tile([0.1, 0.8, 0.1], (4000, 1))
            rose[better] += looked(fresh(), compare(log, new, old)).stage == "canary"
    assert rose[0.0] <= 4
    assert rose[0.08] >= 40


@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_live_intervals_hold_at_every_look(seed: int, mean: float) -> None:
    """In 100 worlds of 1,000 scores each, watched throughout."""
    rng = np.random.default_rng(seed)
    scores = (rng.random((100, 1000)) < mean).cumsum(axis=1)
    counts = np.arange(1, 1001)
    half = np.array([radius(int(n), 0.05) for n in counts])
    wrong = (np.abs(scores / counts - mean) > half).any(axis=1).sum()
    assert wrong <= 13


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=50))
def test_an_interval_holds_its_mean_and_narrows(scores: list[float]) -> None:
    tally = Tally()
    for score in scores:
        tally = tally.plus(score)
    one = interval(tally, 0.05)
    assert 0 <= one.low <= one.mean <= one.high <= 1
    assert radius(tally.count + 1, 0.05) < radius(tally.count, 0.05)
    assert radius(10, 0.01) > radius(10, 0.05)


@given(st.sampled_from([0.15, 0.3, 0.6]), st.integers(0, 1000), st.booleans())
def test_a_broken_challenger_is_out_within_the_stated_number_of_scores(
    gap: float, seed: int, live: bool
) -> None:
    """Whatever the order of luck, in the canary stage and after promotion."""
    rng = np.random.default_rng(seed)
    contest = champion() if live else canary()
    limit = scores_to_retreat(gap)
    ours = (rng.random(limit) < 0.85 - gap).astype(float).tolist()
    theirs = (rng.random(limit) < 0.85).astype(float).tolist()
    assert scored(contest, ours, theirs).stage == "retired"


def test_the_stated_number_of_scores() -> None:
    assert scores_to_retreat(0.85) < 100
    assert scores_to_retreat(0.4) < 500
    for gap in (0.2, 0.4, 0.85):
        count = scores_to_retreat(gap)
        assert 4 * radius(count, GATE.error / 4) < gap <= 4 * radius(count - 1, GATE.error / 4)
    assert scores_to_retreat(0.01) == GATE.patience
    gate = Gate(patience=300)
    contest = scored(canary(), [0.5] * 300, [0.5] * 300, gate)
    assert (contest.stage, contest.history[-1].reason) == ("retired", "no gain was proved in time")


def test_one_that_is_no_worse_is_hardly_ever_sent_back() -> None:
    rng = np.random.default_rng(9)
    back = 0
    for _ in range(60):
        scores = (rng.random((2, 1000)) < 0.8).astype(float).tolist()
        back += scored(canary(), *scores).stage == "retired"
    assert back <= 3
