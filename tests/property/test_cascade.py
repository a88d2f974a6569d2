"""The laws of escalating, whatever the numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.routing.escalation import (
    CHECK_RELIABILITIES,
    CheckReliability,
    CheckScore,
    EscalationCandidate,
    choose_escalation,
    estimate_success,
    update_success,
)

shares = st.floats(0, 1)
amounts = st.integers(0, 10**12)
values = st.integers(1, 10**12)
signals = st.lists(
    st.builds(CheckScore, st.sampled_from(sorted(CHECK_RELIABILITIES)), shares), max_size=6
)
candidates = st.lists(
    st.builds(
        EscalationCandidate,
        model=st.sampled_from("abcd"),
        success_probability=shares,
        expected_nano=amounts,
        held_nano=amounts,
    ),
    max_size=5,
)


@given(shares, candidates, values, st.none() | amounts)
def test_escalating_never_exceeds_the_budget(
    good: float, others: list[EscalationCandidate], value: int, left: int | None
) -> None:
    """The worst case of the model that is called next is paid for beforehand."""
    chosen = choose_escalation(good, others, value, left)
    assert chosen is None or left is None or chosen.held_nano <= left


@given(shares, st.lists(st.sampled_from(sorted(CHECK_RELIABILITIES))), candidates, values)
def test_an_answer_that_is_surely_good_is_kept(
    expected: float, passed: list[str], others: list[EscalationCandidate], value: int
) -> None:
    """A passed check that no bad answer passes decides alone."""
    proof = {**CHECK_RELIABILITIES, "proof": CheckReliability(0.5, 0.0)}
    scores = [*(CheckScore(name, 1.0) for name in passed), CheckScore("proof", 1.0)]
    good = estimate_success(expected, scores, proof)
    assert good == 1.0
    assert choose_escalation(good, others, value) is None


@given(shares, shares, candidates, values, st.none() | amounts)
def test_a_better_answer_is_not_escalated_where_a_worse_one_is_kept(
    first: float, second: float, others: list[EscalationCandidate], value: int, left: int | None
) -> None:
    worse, better = sorted((first, second))
    if choose_escalation(worse, others, value, left) is None:
        assert choose_escalation(better, others, value, left) is None


@given(shares, candidates, values, amounts)
def test_more_value_or_money_never_makes_sophia_keep_a_bad_answer(
    good: float, others: list[EscalationCandidate], value: int, left: int
) -> None:
    if choose_escalation(good, others, value, left) is not None:
        assert choose_escalation(good, others, 2 * value, left) is not None
        assert choose_escalation(good, others, value, left + 1) is not None


@given(shares, candidates, values)
def test_the_escalation_has_the_highest_positive_gain(
    good: float, others: list[EscalationCandidate], value: int
) -> None:
    """The gain in chance, at the value of a good answer, is over the expected cost."""
    chosen = choose_escalation(good, others, value)

    def gain(other: EscalationCandidate) -> float:
        return other.success_probability - other.expected_nano / value - good

    if chosen is None:
        assert all(gain(other) <= 0 for other in others)
    else:
        assert gain(chosen) == max(map(gain, others)) > 0


@given(shares, signals, st.sampled_from(sorted(CHECK_RELIABILITIES)))
def test_passing_helps_and_failing_hurts(
    expected: float, scores: list[CheckScore], name: str
) -> None:
    before = estimate_success(expected, scores)
    passed = estimate_success(expected, [*scores, CheckScore(name, 1.0)])
    failed = estimate_success(expected, [*scores, CheckScore(name, 0.0)])
    assert 0 <= failed <= before <= passed <= 1


@given(st.floats(0.02, 0.98), st.floats(0.02, 0.98))
def test_a_failure_of_one_model_speaks_against_the_others(other: float, quality: float) -> None:
    """A failure lowers the other models' chances; a result as expected leaves them."""
    failed = update_success(other, quality, 0.0)
    known = update_success(other, quality, 1.0)
    assert 0 <= failed <= other + 1e-9 and other - 1e-9 <= known <= 1
    assert update_success(other, quality, quality) == pytest.approx(other)


def test_the_odds_move_by_how_much_the_check_tells_apart() -> None:
    """Bayes' rule by hand: 0.6 expected, a check that passes 90 % of good and 30 % of bad."""
    known = {"tests": CheckReliability(0.9, 0.3)}
    assert estimate_success(0.6, [CheckScore("tests", 1.0)], known) == pytest.approx(
        0.54 / (0.54 + 0.12)
    )
    assert estimate_success(0.6, [CheckScore("tests", 0.0)], known) == pytest.approx(
        0.06 / (0.06 + 0.28)
    )
    assert estimate_success(0.6, [CheckScore("unknown", 0.0)], known) == pytest.approx(0.6)


def test_certain_failure_goes_before_certain_success() -> None:
    known = {"must": CheckReliability(1.0, 0.5), "proof": CheckReliability(0.5, 0.0)}
    scores = [CheckScore("proof", 1.0), CheckScore("must", 0.0)]
    assert estimate_success(0.9, scores, known) == estimate_success(0.9, scores[::-1], known) == 0.0


def test_the_break_even_is_the_quality_less_the_cost_over_the_value() -> None:
    better = EscalationCandidate(
        model="better", success_probability=0.9, expected_nano=20, held_nano=40
    )
    assert choose_escalation(0.69, [better], 100, 40) is better
    assert choose_escalation(0.71, [better], 100, 40) is None
    assert choose_escalation(0.69, [better], 100, 39) is None
