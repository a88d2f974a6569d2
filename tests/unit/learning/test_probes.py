"""Probes are checked exactly, and pairs of answers shift a prior by their evidence."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe_answers import right
from sophia.learning.online.packaged import load_probes, load_task_kind_weights
from sophia.learning.priors.probe_prior import (
    AbilityShift,
    ExpectedQualityByKind,
    ProbeWins,
    count_probe_wins,
    estimate_ability_shift,
    shift_prior,
)
from sophia.learning.priors.probes import (
    ExpectedAnswer,
    Probe,
    ProbeToolCall,
    is_probe_answer_correct,
)
from sophia.routing.bandit.policy import Prior

NAMES = ("code", "law", "maths")
NEW = ExpectedQualityByKind(np.array([0.80, 0.90, 0.70]), np.full(3, 0.10))
KNOWN = [ExpectedQualityByKind(np.array([0.80, 0.90, 0.70]), np.full(3, 0.05))]
UNPROBED = {"agentic", "chat", "instructions", "writing"}
EVEN = ExpectedQualityByKind(np.full(3, 0.8), np.full(3, 0.1))


def right_answer(probe: Probe) -> tuple[str, list[ProbeToolCall]]:
    if probe.tool is None:
        return right(probe), []
    return "", [ProbeToolCall(probe.tool.name, json.dumps(probe.check.call))]


def test_every_kind_with_checkable_answers_is_probed_and_no_name_comes_twice() -> None:
    """Chats, texts and long tasks have no single right answer: their priors come from ratings."""
    kinds = Counter(probe.kind for probe in load_probes())
    assert kinds.keys() == set(load_task_kind_weights().names) - UNPROBED
    assert set(load_task_kind_weights().names) >= UNPROBED
    assert 30 <= len(load_probes()) <= 60 and min(kinds.values()) >= 4
    assert (
        len({probe.id for probe in load_probes()})
        == len({probe.prompt for probe in load_probes()})
        == len(load_probes())
    )


@pytest.mark.parametrize("probe", load_probes(), ids=lambda probe: probe.id)
def test_the_right_answer_passes_and_others_do_not(probe: Probe) -> None:
    text, calls = right_answer(probe)
    assert is_probe_answer_correct(probe.check, text, calls)
    for wrong in ("", "I do not know.", "```json\n[]\n```", "9999999"):
        assert not is_probe_answer_correct(probe.check, wrong, [])
    assert not is_probe_answer_correct(
        probe.check, "", [ProbeToolCall("other", "{}"), ProbeToolCall("other", "{}")]
    )


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (ExpectedAnswer(number=2000.0), "So it is 18,000 / 9 = 2,000."),
        (ExpectedAnswer(number=22.2, tolerance=0.05), "about 22.22"),
        (ExpectedAnswer(number=-3.0), "−3"),
        (ExpectedAnswer(choice="B"), "**B**: its density"),
        (ExpectedAnswer(text="Ben"), '> "ben."'),
        (ExpectedAnswer(json={"a": 1.0, "b": ["x"]}), '```json\n{"b": ["X"], "a": 1}\n```'),
    ],
)
def test_characters_around_a_right_answer_do_not_make_it_wrong(
    check: ExpectedAnswer, text: str
) -> None:
    assert is_probe_answer_correct(check, text)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (ExpectedAnswer(number=24.0), "240"),
        (ExpectedAnswer(choice="B"), "Not B, but C."),
        (ExpectedAnswer(text="Ben"), "Ben or Anna"),
        (ExpectedAnswer(json={"a": 1}), '{"a": true}'),
        (ExpectedAnswer(json={"a": 1}), '{"a": 1, "b": 2}'),
    ],
)
def test_a_nearly_right_answer_is_wrong(check: ExpectedAnswer, text: str) -> None:
    assert not is_probe_answer_correct(check, text)


def test_pairs_are_counted_where_both_answered_and_differ() -> None:
    kinds = {"one": "code", "two": "code", "three": "law", "four": "law"}
    new = {"one": 1.0, "two": 0.0, "three": 1.0}
    known = [{"one": 0.0, "two": 0.0, "three": 1.0, "four": 0.0}, {"one": 0.0, "two": 1.0}]
    pairs = count_probe_wins(new, known, kinds)
    assert pairs == {"code": ProbeWins(2.0, 1.0, 0.5), "law": ProbeWins(0.5, 0.0, 0.0)}


def test_questions_that_both_get_right_or_both_wrong_change_nothing() -> None:
    shift = estimate_ability_shift(NAMES, {name: ProbeWins(100.0) for name in NAMES}, NEW, KNOWN)
    assert np.abs(shift.log_odds).max() < 1e-12 and np.abs(shift.variance_ratio - 1.0).max() < 1e-9


_COUNTS = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(st.floats(0, 60), st.floats(0, 60)).map(lambda two: ProbeWins(sum(two), *two)),
)


@given(_COUNTS)
def test_swapping_wins_and_losses_reverses_the_shift(pairs: dict[str, ProbeWins]) -> None:
    """Equal models that change sides: the shift changes its sign, and no variance grows."""
    shift = estimate_ability_shift(NAMES, pairs, NEW, KNOWN)
    other = estimate_ability_shift(
        NAMES,
        {
            name: ProbeWins(counts.count, counts.losses, counts.wins)
            for name, counts in pairs.items()
        },
        NEW,
        KNOWN,
    )
    assert np.isfinite(shift.log_odds).all()
    assert shift.log_odds == pytest.approx(-other.log_odds, abs=1e-6)
    assert (shift.variance_ratio <= 1.0 + 1e-9).all() and (shift.variance_ratio > 0.0).all()


def test_more_pairs_are_more_evidence_but_never_certainty() -> None:
    def moved(times: float) -> AbilityShift:
        return estimate_ability_shift(
            NAMES,
            {name: ProbeWins(8 * times, 6 * times, 2 * times) for name in NAMES},
            EVEN,
            [EVEN],
        )

    few, many, endless = moved(1), moved(4), moved(10_000)
    assert 0.0 < few.log_odds.mean() < many.log_odds.mean() < endless.log_odds.mean() < np.log(3)
    assert few.variance_ratio.mean() > many.variance_ratio.mean() > endless.variance_ratio.mean()


@pytest.mark.parametrize("digits", [300, 400, 5000])
def test_a_number_of_hundreds_of_digits_is_a_wrong_answer_and_no_crash(digits: int) -> None:
    """A broken model repeats itself; the other answers of the probe still count."""
    endless = "1" + "0" * digits
    assert not is_probe_answer_correct(ExpectedAnswer(number=3), endless)
    assert not is_probe_answer_correct(ExpectedAnswer(json={"a": 3}), f'{{"a": {endless}}}')
    assert not is_probe_answer_correct(
        ExpectedAnswer(call={"a": 3}), "", [ProbeToolCall("call", f'{{"a": {endless}}}')]
    )


def test_even_endless_probes_leave_the_uncertainty_of_the_transfer_to_traffic() -> None:
    sure = ExpectedQualityByKind(EVEN.quality, np.full(3, 1e-6))
    endless = estimate_ability_shift(
        NAMES, {name: ProbeWins(1e6, 6e5, 4e5) for name in NAMES}, EVEN, [sure]
    )
    assert (endless.variance_ratio > 0.3).all()


def test_one_kind_is_limited_evidence_on_the_others() -> None:
    shift = estimate_ability_shift(NAMES, {"maths": ProbeWins(16, 0, 12)}, EVEN, [EVEN])
    assert shift.log_odds[2] < 1.2 * shift.log_odds[0] < 0.0
    assert shift.variance_ratio[2] < shift.variance_ratio[0] < 1.0


def test_uncertain_reference_models_weaken_the_evidence() -> None:
    pairs = {"maths": ProbeWins(16, 10, 2)}
    loose = [ExpectedQualityByKind(KNOWN[0].quality, np.full(3, 0.15))]
    assert (
        estimate_ability_shift(NAMES, pairs, NEW, loose).log_odds[2]
        < estimate_ability_shift(NAMES, pairs, NEW, KNOWN).log_odds[2]
    )


def test_a_prior_stays_within_bounds_and_tasks_shift_with_their_kinds() -> None:
    prior = Prior(np.array([0.99, 0.5, 0.8]), np.array([0.1, 0.1, 0.02]))
    weights = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.0, 0.5]])
    after = shift_prior(
        prior, AbilityShift(np.array([3.0, 0.0, -1.0]), np.array([0.5, 1.0, 0.5])), weights
    )
    assert after.mean[0] > 0.98 and after.mean[1] < 0.3 and after.mean[2] > 0.8
    assert (after.mean < 1.0).all() and (after.sd >= 0.02).all() and (after.sd <= 0.15).all()
