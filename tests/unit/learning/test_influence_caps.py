"""Abuse of feedback: no key moves the routing of others beyond a stated bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.learning.feedback.influence_caps import (
    DAILY_WEIGHT_CAP,
    DAY_MS,
    MAX_MEAN_WEIGHT,
    PRIOR_SEATS,
    TRIM_DIVISOR,
    InfluenceLimiter,
    compute_effective_weight,
    compute_robust_mean,
)

share = st.floats(0, 1)
mean = st.tuples(share, st.floats(0, 1e9))
means = st.lists(mean, max_size=30)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["k", "l", "m"]),
            st.sampled_from(["x", "y"]),
            st.integers(0, 3 * DAY_MS),
            st.floats(0, 1e6),
        ),
        max_size=60,
    )
)
def test_no_key_passes_its_cap(offers: list[tuple[str, str, int, float]]) -> None:
    """The total granted per day and arm is bounded for every sequence of outcomes."""
    limiter = InfluenceLimiter()
    totals: dict[tuple[object, ...], float] = {}
    for key, arm, at_ms, weight in sorted(offers, key=lambda offer: offer[2]):
        granted = limiter.grant(key, arm, at_ms, weight)
        assert 0 <= granted <= weight + 1e-9
        window = (at_ms // DAY_MS, key, arm)
        totals[window] = totals.get(window, 0) + granted
    assert all(total <= DAILY_WEIGHT_CAP + 1e-9 for total in totals.values())


@given(st.floats(0, 1e5), st.floats(0, 1e5))
def test_granted_weight_is_concave_and_capped(weight: float, more: float) -> None:
    assert compute_effective_weight(weight) <= min(weight, DAILY_WEIGHT_CAP) + 1e-9
    assert compute_effective_weight(weight + more) >= compute_effective_weight(weight)
    middle = compute_effective_weight(weight + more / 2)
    assert (
        2 * middle
        >= compute_effective_weight(weight) + compute_effective_weight(weight + more) - 1e-9
    )


def test_an_ordinary_key_is_hardly_slowed() -> None:
    limiter = InfluenceLimiter()
    assert 9.9 < sum(limiter.grant("k", "arm", n, 1.0) for n in range(10)) < 10


def test_a_flood_does_not_use_up_other_keys_arms_or_days() -> None:
    limiter = InfluenceLimiter()
    for n in range(20_000):
        limiter.grant("k", "arm", n, 1.0)
    assert limiter.grant("k", "arm", 1, 1.0) < 1e-6
    for key, arm, at_ms in (("l", "arm", 1), ("k", "other", 1), ("k", "arm", DAY_MS)):
        assert limiter.grant(key, arm, at_ms, 1.0) > 0.98


@given(st.lists(st.floats(0.01, 3.0), min_size=1, max_size=40), st.data())
def test_a_limiter_that_counts_past_grants_goes_on_as_if_never_stopped(
    weights: list[float], data: st.DataObject
) -> None:
    """A restart gives no key more weight, and takes none away."""
    cut = data.draw(st.integers(0, len(weights)))
    whole, stopped, resumed = InfluenceLimiter(), InfluenceLimiter(), InfluenceLimiter()
    for number, weight in enumerate(weights):
        expected = whole.grant("k", "arm", 5, weight)
        if number < cut:
            resumed.record_granted("k", "arm", 5, stopped.grant("k", "arm", 5, weight))
        else:
            granted = resumed.grant("k", "arm", 5, weight)
            assert granted == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(means, st.lists(mean, max_size=10), share)
def test_so_many_liars_as_are_trimmed_stay_within_the_range_of_the_others(
    honest: list[tuple[float, float]], liars: list[tuple[float, float]], prior: float
) -> None:
    liars = liars[: (len(honest) + PRIOR_SEATS) // (TRIM_DIVISOR - 1)]
    assert len(liars) <= (len(honest) + len(liars) + PRIOR_SEATS) // TRIM_DIVISOR
    low = min([prior, *(value for value, _ in honest)])
    high = max([prior, *(value for value, _ in honest)])
    assert low - 1e-9 <= compute_robust_mean([*honest, *liars], prior) <= high + 1e-9


@given(means, share)
def test_the_weight_of_a_key_counts_up_to_its_cap_only(
    others: list[tuple[float, float]], value: float
) -> None:
    capped = compute_robust_mean([*others, (value, MAX_MEAN_WEIGHT)], 0.5)
    assert compute_robust_mean([*others, (value, 1e12)], 0.5) == capped


def test_many_keys_that_agree_are_followed() -> None:
    agreeing = [(0.9, 500.0)] * 12
    assert compute_robust_mean(agreeing, 0.5) > 0.8
    assert compute_robust_mean(agreeing[:1], 0.5) == 0.5
    assert compute_robust_mean([], 0.5) == 0.5


def test_a_single_liar_moves_nothing_among_few() -> None:
    """With one key besides, the seats of the prior hold the middle."""
    quiet = compute_robust_mean([(0.8, 50.0), (0.0, 0.0)], 0.8)
    assert compute_robust_mean([(0.8, 50.0), (0.0, 1e9)], 0.8) == quiet == 0.8
