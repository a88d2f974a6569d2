"""The choice: exact propensities, bounded exploring, only over arms that may be explored."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sophia.routing.bandit.choose import (
    QUALITY_BIAS_PRESETS,
    ChoiceSet,
    best_arm_probabilities,
    choose_arm,
    compute_utilities,
    cost_weight,
    expect_best_cost,
)
from sophia.routing.bandit.policy import ArmRatings
from sophia.routing.types import Exploration, UtilityWeights

MODES = ("off", "softmax", "thompson")
unit = st.floats(0.0, 1.0)
draws = st.floats(0.0, 1.0, exclude_max=True)


@st.composite
def options(draw: st.DrawFn) -> ChoiceSet:
    arms = draw(st.integers(1, 8))

    def column(low: float, high: float) -> np.ndarray:
        return np.array(draw(st.lists(st.floats(low, high), min_size=arms, max_size=arms)))

    return ChoiceSet(
        ratings=ArmRatings(column(0.0, 1.0), column(0.0, 0.3)),
        cost=column(0.0, 5.0),
        explorable=np.array(draw(st.lists(st.booleans(), min_size=arms, max_size=arms))),
        late_probability=column(0.0, 1.0),
        failure_probability=column(0.0, 1.0),
        current_arm=draw(st.integers(0, arms - 1)) if draw(st.booleans()) else None,
    )


@st.composite
def explorations(draw: st.DrawFn) -> Exploration:
    return Exploration(
        mode=draw(st.sampled_from(MODES)),
        temperature=draw(st.floats(0.001, 1.0)),
        sd_scale=draw(st.floats(0.0, 2.0)),
        floor=draw(st.floats(0.0, 0.5)),
        max_share=draw(unit),
        max_extra_cost=draw(st.floats(0.0, 3.0)),
    )


tastes = st.builds(UtilityWeights, unit, st.floats(0.1, 5.0), unit, st.floats(0.0, 0.3))


@given(options(), tastes, explorations(), draws)
def test_propensities_are_a_distribution_over_arms_that_may_be_taken(
    some: ChoiceSet, taste: UtilityWeights, how: Exploration, draw: float
) -> None:
    choice = choose_arm(some, taste, how, draw)
    assert choice.propensities.sum() == pytest.approx(1.0, abs=1e-12)
    assert (choice.propensities >= 0.0).all()
    taken = np.flatnonzero(choice.propensities)
    assert all(some.explorable[arm] or arm == choice.best for arm in taken)
    assert choice.propensity == choice.propensities[choice.arm] > 0.0
    assert choice.best == compute_utilities(some, taste).argmax()


@given(options(), tastes, explorations(), draws)
def test_exploring_keeps_within_its_share_and_its_cost(
    some: ChoiceSet, taste: UtilityWeights, how: Exploration, draw: float
) -> None:
    choice = choose_arm(some, taste, how, draw)
    assert 1.0 - choice.propensities[choice.best] <= how.max_share + 1e-9
    extra_cost = choice.propensities @ some.cost - some.cost[choice.best]
    assert extra_cost <= how.max_extra_cost * some.cost[choice.best] + 1e-9


@given(options(), tastes, explorations(), draws)
def test_the_same_draw_makes_the_same_choice(
    some: ChoiceSet, taste: UtilityWeights, how: Exploration, draw: float
) -> None:
    one, other = choose_arm(some, taste, how, draw), choose_arm(some, taste, how, draw)
    assert one.arm == other.arm
    assert np.array_equal(one.propensities, other.propensities)


@given(options(), unit, unit)
def test_a_higher_quality_bias_never_takes_a_cheaper_or_worse_arm(
    some: ChoiceSet, one: float, other: float
) -> None:
    low, high = sorted((10 * one, 10 * other))
    off = Exploration(mode="off")
    plain = replace(some, current_arm=None)
    thrifty = choose_arm(plain, UtilityWeights(cost_weight(low)), off, 0.5)
    lavish = choose_arm(plain, UtilityWeights(cost_weight(high)), off, 0.5)
    assert some.cost[lavish.arm] >= some.cost[thrifty.arm] - 1e-9
    assert some.ratings.quality[lavish.arm] >= some.ratings.quality[thrifty.arm] - 1e-9


def _expected_cost(*arms: tuple[float, float, float]) -> float:
    """Return the expected cost of the best of arms with a quality, its sd and a cost."""
    quality, sd, cost = np.array(arms).T
    return expect_best_cost(ArmRatings(quality, sd), cost)


def test_the_price_of_money_is_what_the_best_arm_is_expected_to_cost() -> None:
    """An arm that is surely worse says nothing of it, and one that may be as good as much."""
    best, worse, twin = (0.9, 0.05, 800.0), (0.5, 0.05, 8.0), (0.9, 0.05, 400.0)
    assert _expected_cost(best) == 800.0
    assert _expected_cost(best, worse) == pytest.approx(800.0, rel=1e-3)
    assert _expected_cost(best, twin) == pytest.approx(600.0)
    between = (0.9 - 0.025, 0.05, 0.0)
    assert _expected_cost(best, between) == pytest.approx(800.0 / (1.0 + np.exp(-1.0)))


def test_no_single_belief_sets_the_price_of_money() -> None:
    """Two arms that change places by a hair change it by a hair, however sure their ratings are."""
    for sd in (0.2, 0.05, 0.0):
        one, other = (
            _expected_cost((0.8 + change, sd, 1000.0), (0.8, sd, 10.0)) for change in (1e-4, -1e-4)
        )
        assert one > other > 0.98 * one


def test_the_price_of_money_is_never_zero() -> None:
    assert _expected_cost((0.8, 0.1, 0.0), (0.7, 0.1, 0.0)) == 1.0


def test_arms_are_drawn_as_often_as_their_propensities() -> None:
    some = _pair(sd=0.1)
    how = Exploration(mode="thompson", floor=0.1)
    wanted = choose_arm(some, UtilityWeights(), how, 0.0).propensities
    drawn = [
        choose_arm(some, UtilityWeights(), how, (number + 0.5) / 2000).arm for number in range(2000)
    ]
    assert np.bincount(drawn, minlength=2) / 2000 == pytest.approx(wanted, abs=1e-3)
    assert 0.2 < wanted[1] < 0.4


def test_an_arm_is_drawn_as_often_as_it_is_the_best() -> None:
    """Thompson's probabilities are those of the Gaussians themselves."""
    rng = np.random.default_rng(5)
    for arms in (2, 5, 20):
        mean, sd = rng.normal(0.7, 0.05, arms), rng.uniform(0.01, 0.1, arms)
        drawn = (mean + sd * rng.normal(size=(100_000, arms))).argmax(axis=1)
        often = np.bincount(drawn, minlength=arms) / 100_000
        assert best_arm_probabilities(mean, sd) == pytest.approx(often, abs=0.006)
    assert best_arm_probabilities(np.array([0.5, 0.9]), np.zeros(2)).tolist() == [0.0, 1.0]
    assert best_arm_probabilities(np.array([0.9, 0.9]), np.zeros(2)).tolist() == [0.5, 0.5]


def test_the_floor_reaches_every_explorable_arm_and_no_other() -> None:
    arms = ChoiceSet(
        ratings=ArmRatings(np.array([0.9, 0.1, 0.1, 0.1]), np.full(4, 1e-4)),
        cost=np.ones(4),
        explorable=np.array([True, True, True, False]),
        late_probability=np.zeros(4),
        failure_probability=np.zeros(4),
    )
    choice = choose_arm(arms, UtilityWeights(), Exploration(mode="thompson", floor=0.03), 0.0)
    assert choice.propensities == pytest.approx([0.98, 0.01, 0.01, 0.0])
    assert (
        choose_arm(arms, UtilityWeights(), Exploration(mode="off", floor=0.03), 0.99).propensity
        == 1.0
    )


def test_an_arm_on_trial_gets_the_probability_set_aside_for_it() -> None:
    some = ChoiceSet(
        ratings=ArmRatings(np.array([0.9, 0.1]), np.zeros(2)),
        cost=np.ones(2),
        explorable=np.array([True, False]),
        late_probability=np.zeros(2),
        failure_probability=np.zeros(2),
        trial=(1, 0.25),
    )
    choice = choose_arm(some, UtilityWeights(), Exploration(mode="thompson"), 0.9)
    assert choice.propensities == pytest.approx([0.75, 0.25])
    assert choice.arm == 1
    assert choice.best == 0


def test_cost_lateness_and_leaving_a_conversation_are_paid_in_quality() -> None:
    some = ChoiceSet(
        ratings=ArmRatings(np.array([0.9, 0.8]), np.zeros(2)),
        cost=np.array([4.0, 1.0]),
        explorable=np.ones(2, dtype=bool),
        late_probability=np.array([0.5, 0.0]),
        failure_probability=np.zeros(2),
        current_arm=1,
    )
    taste = UtilityWeights(cost=0.1, reference_cost=2.0, lateness=0.2, switching=0.03)
    assert compute_utilities(some, taste) == pytest.approx([0.9 - 0.2 - 0.1 - 0.03, 0.8 - 0.05])


def test_a_larger_sd_scale_explores_more() -> None:
    timid = choose_arm(
        _pair(sd=0.05), UtilityWeights(), Exploration(mode="thompson", sd_scale=0.2), 0.0
    )
    bold = choose_arm(
        _pair(sd=0.05), UtilityWeights(), Exploration(mode="thompson", sd_scale=2.0), 0.0
    )
    assert timid.propensities[1] < 0.01
    assert bold.propensities[1] > 0.3


def test_softmax_falls_by_a_factor_of_e_with_each_temperature() -> None:
    choice = choose_arm(
        _pair(sd=0.0), UtilityWeights(), Exploration(mode="softmax", temperature=0.05), 0.0
    )
    assert choice.propensities[0] / choice.propensities[1] == pytest.approx(np.e)


def test_the_quality_bias_goes_from_cheap_to_best() -> None:
    weights = {name: cost_weight(bias) for name, bias in QUALITY_BIAS_PRESETS.items()}
    assert weights == pytest.approx({"cheap": 1.0, "balanced": 0.1, "best": 0.01})
    for wrong in (-0.1, 10.1, float("nan")):
        with pytest.raises(ValueError, match="quality bias"):
            cost_weight(wrong)


def _pair(sd: float) -> ChoiceSet:
    return ChoiceSet(
        ratings=ArmRatings(np.array([0.85, 0.80]), np.full(2, sd)),
        cost=np.zeros(2),
        explorable=np.ones(2, dtype=bool),
        late_probability=np.zeros(2),
        failure_probability=np.zeros(2),
    )
