"""The laws of escalating, whatever the numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.routing.cascade import (
    RELIABILITIES,
    Reliability,
    Signal,
    Stakes,
    Standby,
    after,
    break_even,
    chance,
    escalate,
)

shares = st.floats(0, 1)
amounts = st.integers(0, 10**12)
signals = st.lists(st.builds(Signal, st.sampled_from(sorted(RELIABILITIES)), shares), max_size=6)
standbys = st.lists(
    st.builds(Standby, st.sampled_from("abcd"), shares, amounts, amounts), max_size=5
)


@given(shares, standbys, amounts, st.none() | amounts)
def test_escalating_never_exceeds_the_purse(
    good: float, others: list[Standby], value: int, left: int | None
) -> None:
    """The worst case of what is asked next is paid for beforehand."""
    chosen = escalate(good, others, Stakes(value, left))
    assert chosen is None or left is None or chosen.held <= left


@given(shares, st.lists(st.sampled_from(sorted(RELIABILITIES))), standbys, amounts)
def test_an_answer_that_is_surely_good_is_kept(
    expected: float, passed: list[str], others: list[Standby], value: int
) -> None:
    """A passed check that no bad answer passes decides alone."""
    proof = {**RELIABILITIES, "proof": Reliability(0.5, 0.0)}
    said = [*(Signal(name, 1.0) for name in passed), Signal("proof", 1.0)]
    good = chance(expected, said, proof)
    assert good == 1.0
    assert escalate(good, others, Stakes(value)) is None


@given(shares, shares, standbys, amounts, st.none() | amounts)
def test_a_better_answer_is_not_escalated_where_a_worse_one_is_kept(
    one: float, two: float, others: list[Standby], value: int, left: int | None
) -> None:
    worse, better = sorted((one, two))
    if escalate(worse, others, Stakes(value, left)) is None:
        assert escalate(better, others, Stakes(value, left)) is None


@given(shares, standbys, amounts, amounts)
def test_more_value_or_money_never_makes_sophia_keep_a_bad_answer(
    good: float, others: list[Standby], value: int, left: int
) -> None:
    if escalate(good, others, Stakes(value, left)) is not None:
        assert escalate(good, others, Stakes(2 * value, left)) is not None
        assert escalate(good, others, Stakes(value, left + 1)) is not None


@given(shares, standbys, amounts)
def test_what_is_asked_next_pays_and_nobody_pays_more(
    good: float, others: list[Standby], value: int
) -> None:
    """The gain in chance, at the value of a good answer, is over the expected cost."""
    chosen = escalate(good, others, Stakes(value))
    nets = [break_even(one, value) - good for one in others]
    if chosen is None:
        assert all(net <= 0 for net in nets)
    else:
        assert break_even(chosen, value) - good == max(nets) > 0


@given(shares, signals, st.sampled_from(sorted(RELIABILITIES)))
def test_passing_helps_and_failing_hurts(
    expected: float, said: list[Signal], name: str
) -> None:
    before = chance(expected, said)
    passed = chance(expected, [*said, Signal(name, 1.0)])
    failed = chance(expected, [*said, Signal(name, 0.0)])
    assert 0 <= failed <= before <= passed <= 1


@given(st.floats(0.02, 0.98), st.floats(0.02, 0.98), st.floats(0, 1))
def test_a_failure_of_one_model_speaks_against_the_others(
    other: float, quality: float, likeness: float
) -> None:
    """What one fails at is harder for the next; without news the expectation stands."""
    failed = after(other, quality, 0.0, likeness)
    known = after(other, quality, 1.0, likeness)
    assert 0 <= failed <= other + 1e-9 and other - 1e-9 <= known <= 1
    assert after(other, quality, quality, likeness) == pytest.approx(other)


def test_the_odds_move_by_how_much_the_check_tells_apart() -> None:
    """Bayes' rule by hand: 0.6 expected, a check that passes 90 % of good and 30 % of bad."""
    known = {"tests": Reliability(0.9, 0.3)}
    assert chance(0.6, [Signal("tests", 1.0)], known) == pytest.approx(0.54 / (0.54 + 0.12))
    assert chance(0.6, [Signal("tests", 0.0)], known) == pytest.approx(0.06 / (0.06 + 0.28))
    assert chance(0.6, [Signal("unheard", 0.0)], known) == pytest.approx(0.6)


def test_certain_failure_goes_before_certain_success() -> None:
    known = {"must": Reliability(1.0, 0.5), "proof": Reliability(0.5, 0.0)}
    said = [Signal("proof", 1.0), Signal("must", 0.0)]
    assert chance(0.9, said, known) == chance(0.9, said[::-1], known) == 0.0


def test_the_break_even_is_the_quality_less_the_cost_over_the_value() -> None:
    dear = Standby("dear", 0.9, 20, 40)
    assert break_even(dear, 100) == pytest.approx(0.7)
    assert escalate(0.69, [dear], Stakes(100, 40)) is dear
    assert escalate(0.71, [dear], Stakes(100, 40)) is None
    assert escalate(0.69, [dear], Stakes(100, 39)) is None
