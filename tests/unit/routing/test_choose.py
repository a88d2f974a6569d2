"""The choice: exact propensities, bounded exploring, only over arms that may be explored."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.routing.policies.choose import (
    Exploration,
    Options,
    Taste,
    best_chances,
    choose,
    price_of,
    utilities,
)
from sophia.routing.policies.policy import Ratings

MODES = ("off", "softmax", "thompson")
unit = st.floats(0.0, 1.0)
draws = st.floats(0.0, 1.0, exclude_max=True)


@st.composite
def options(draw: st.DrawFn) -> Options:
    arms = draw(st.integers(1, 8))

    def column(low: float, high: float) -> np.ndarray:
        return np.array(draw(st.lists(st.floats(low, high), min_size=arms, max_size=arms)))

    return Options(
        Ratings(column(0.0, 1.0), column(0.0, 0.3)),
        column(0.0, 5.0),
        np.array(draw(st.lists(st.booleans(), min_size=arms, max_size=arms))),
        column(0.0, 1.0) if draw(st.booleans()) else None,
        draw(st.integers(0, arms - 1)) if draw(st.booleans()) else None,
    )


@st.composite
def explorations(draw: st.DrawFn) -> Exploration:
    return Exploration(
        draw(st.sampled_from(MODES)),
        draw(st.floats(0.001, 1.0)),
        draw(st.floats(0.0, 2.0)),
        draw(st.floats(0.0, 0.5)),
        draw(unit),
        draw(st.floats(0.0, 3.0)),
    )


tastes = st.builds(Taste, unit, st.floats(0.1, 5.0), unit, st.floats(0.0, 0.3))


@given(options(), tastes, explorations(), draws)
def test_propensities_are_a_distribution_over_arms_that_may_be_taken(
    some: Options, taste: Taste, how: Exploration, draw: float
) -> None:
    choice = choose(some, taste, how, draw)
    assert choice.propensities.sum() == pytest.approx(1.0, abs=1e-12)
    assert (choice.propensities >= 0.0).all()
    taken = np.flatnonzero(choice.propensities)
    assert all(some.explorable[arm] or arm == choice.best for arm in taken)
    assert choice.propensity == choice.propensities[choice.arm] > 0.0
    assert choice.best == utilities(some, taste).argmax()


@given(options(), tastes, explorations(), draws)
def test_exploring_keeps_within_its_share_and_its_cost(
    some: Options, taste: Taste, how: Exploration, draw: float
) -> None:
    choice = choose(some, taste, how, draw)
    assert 1.0 - choice.propensities[choice.best] <= how.share + 1e-9
    assert choice.extra_cost <= how.extra * some.cost[choice.best] + 1e-9
    expected = choice.propensities @ some.cost - some.cost[choice.best]
    assert choice.extra_cost == pytest.approx(expected, abs=1e-9)


@given(options(), tastes, explorations(), draws)
def test_the_same_draw_makes_the_same_choice(
    some: Options, taste: Taste, how: Exploration, draw: float
) -> None:
    one, other = choose(some, taste, how, draw), choose(some, taste, how, draw)
    assert one.arm == other.arm
    assert np.array_equal(one.propensities, other.propensities)


@given(options(), unit, unit)
def test_turning_the_dial_to_best_never_takes_a_cheaper_or_worse_arm(
    some: Options, one: float, other: float
) -> None:
    low, high = sorted((10 * one, 10 * other))
    off = Exploration("off")
    plain = Options(some.ratings, some.cost, some.explorable)
    thrifty = choose(plain, Taste(price_of(low)), off, 0.5)
    lavish = choose(plain, Taste(price_of(high)), off, 0.5)
    assert some.cost[lavish.arm] >= some.cost[thrifty.arm] - 1e-9
    assert some.ratings.quality[lavish.arm] >= some.ratings.quality[thrifty.arm] - 1e-9


def test_draws_come_out_as_often_as_the_propensities_say() -> None:
    some = _pair(sd=0.1)
    how = Exploration("thompson", floor=0.1)
    wanted = choose(some, Taste(), how, 0.0).propensities
    drawn = [choose(some, Taste(), how, (number + 0.5) / 2000).arm for number in range(2000)]
    assert np.bincount(drawn, minlength=2) / 2000 == pytest.approx(wanted, abs=1e-3)
    assert 0.2 < wanted[1] < 0.4


def test_an_arm_is_drawn_as_often_as_it_is_the_best() -> None:
    """Thompson's probabilities are those of the Gaussians themselves."""
    rng = np.random.default_rng(5)
    for arms in (2, 5, 20):
        mean, sd = rng.normal(0.7, 0.05, arms), rng.uniform(0.01, 0.1, arms)
        drawn = (mean + sd * rng.normal(size=(100_000, arms))).argmax(axis=1)
        often = np.bincount(drawn, minlength=arms) / 100_000
        assert best_chances(mean, sd) == pytest.approx(often, abs=0.006)
    assert best_chances(np.array([0.5, 0.9]), np.zeros(2)).tolist() == [0.0, 1.0]
    assert best_chances(np.array([0.9, 0.9]), np.zeros(2)).tolist() == [0.5, 0.5]


def test_the_floor_reaches_every_explorable_arm_and_no_other() -> None:
    arms = Options(
        Ratings(np.array([0.9, 0.1, 0.1, 0.1]), np.full(4, 1e-4)),
        np.ones(4),
        np.array([True, True, True, False]),
    )
    choice = choose(arms, Taste(), Exploration("thompson", floor=0.03), 0.0)
    assert choice.propensities == pytest.approx([0.98, 0.01, 0.01, 0.0])
    assert choose(arms, Taste(), Exploration("off", floor=0.03), 0.99).propensity == 1.0


def test_an_arm_on_trial_gets_the_probability_set_aside_for_it() -> None:
    some = Options(
        Ratings(np.array([0.9, 0.1]), np.zeros(2)),
        np.ones(2),
        np.array([True, False]),
        trial=(1, 0.25),
    )
    choice = choose(some, Taste(), Exploration("thompson"), 0.9)
    assert choice.propensities == pytest.approx([0.75, 0.25])
    assert choice.arm == 1
    assert choice.best == 0


def test_cost_lateness_and_leaving_a_conversation_are_paid_in_quality() -> None:
    some = Options(
        Ratings(np.array([0.9, 0.8]), np.zeros(2)),
        np.array([4.0, 1.0]),
        np.ones(2, dtype=bool),
        np.array([0.5, 0.0]),
        current=1,
    )
    taste = Taste(price=0.1, reference=2.0, lateness=0.2, switching=0.03)
    assert utilities(some, taste) == pytest.approx([0.9 - 0.2 - 0.1 - 0.03, 0.8 - 0.05])


def test_boldness_widens_what_may_be_the_best() -> None:
    timid = choose(_pair(sd=0.05), Taste(), Exploration("thompson", boldness=0.2), 0.0)
    bold = choose(_pair(sd=0.05), Taste(), Exploration("thompson", boldness=2.0), 0.0)
    assert timid.propensities[1] < 0.01
    assert bold.propensities[1] > 0.3


def test_softmax_falls_by_a_factor_of_e_with_each_temperature() -> None:
    choice = choose(_pair(sd=0.0), Taste(), Exploration("softmax", temperature=0.05), 0.0)
    assert choice.propensities[0] / choice.propensities[1] == pytest.approx(np.e)


def test_the_dial_goes_from_cheap_to_best() -> None:
    assert price_of("cheap") == price_of(0) == pytest.approx(1.0)
    assert price_of("balanced") == price_of(5.0) == pytest.approx(0.1)
    assert price_of("best") == price_of(10) == pytest.approx(0.01)
    for wrong in (-0.1, 10.1, "dear", float("nan")):
        with pytest.raises(ValueError, match="dial"):
            price_of(wrong)  # type: ignore[arg-type]


def _pair(sd: float) -> Options:
    return Options(
        Ratings(np.array([0.85, 0.80]), np.full(2, sd)), np.zeros(2), np.ones(2, dtype=bool)
    )
