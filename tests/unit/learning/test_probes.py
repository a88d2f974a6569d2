"""Probes are checked exactly, and pairs of answers move a prior as far as they tell."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exam import right
from sophia.compose.probing import probes, work
from sophia.learning.probes import Call, Check, Probe, is_right
from sophia.learning.probing import (
    Expected,
    Pairs,
    Shift,
    believed_after,
    enough,
    pairs_of,
    shift,
)
from sophia.routing.policies.policy import Prior

NAMES = ("code", "law", "maths")
NEW = Expected(np.array([0.80, 0.90, 0.70]), np.full(3, 0.10))
KNOWN = [Expected(np.array([0.80, 0.90, 0.70]), np.full(3, 0.05))]
EVEN = Expected(np.full(3, 0.8), np.full(3, 0.1))


def said(probe: Probe) -> tuple[str, list[Call]]:
    if probe.tool is None:
        return right(probe), []
    return "", [Call(probe.tool.name, json.dumps(probe.check.call))]


def test_every_kind_of_work_is_probed_and_no_name_comes_twice() -> None:
    found = Counter(probe.kind for probe in probes())
    assert found.keys() == set(work().names)
    assert 30 <= len(probes()) <= 60 and min(found.values()) >= 4
    assert len({probe.id for probe in probes()}) == len({probe.prompt for probe in probes()}) == len(probes())


@pytest.mark.parametrize("probe", probes(), ids=lambda probe: probe.id)
def test_the_right_answer_passes_and_others_do_not(probe: Probe) -> None:
    text, calls = said(probe)
    assert is_right(probe.check, text, calls)
    for wrong in ("", "I cannot tell.", "```json\n[]\n```", "9999999"):
        assert not is_right(probe.check, wrong, [])
    assert not is_right(probe.check, "", [Call("other", "{}"), Call("other", "{}")])


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (Check(number=2000.0), "So it is 18,000 / 9 = 2,000."),
        (Check(number=22.2, within=0.05), "about 22.22"),
        (Check(number=-3.0), "−3"),
        (Check(choice="B"), "**B**: its density"),
        (Check(text="Ben"), "> \"ben.\""),
        (Check(json={"a": 1.0, "b": ["x"]}), "```json\n{\"b\": [\"X\"], \"a\": 1}\n```"),
    ],
)
def test_marks_around_a_right_answer_do_not_make_it_wrong(check: Check, text: str) -> None:
    assert is_right(check, text)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (Check(number=24.0), "240"),
        (Check(choice="B"), "Not B, but C."),
        (Check(text="Ben"), "Ben or Anna"),
        (Check(json={"a": 1}), "{\"a\": true}"),
        (Check(json={"a": 1}), "{\"a\": 1, \"b\": 2}"),
    ],
)
def test_what_is_nearly_right_is_wrong(check: Check, text: str) -> None:
    assert not is_right(check, text)


def test_pairs_are_counted_where_both_answered_and_differ() -> None:
    kinds = {"one": "code", "two": "code", "three": "law", "four": "law"}
    new = {"one": 1.0, "two": 0.0, "three": 1.0}
    known = [{"one": 0.0, "two": 0.0, "three": 1.0, "four": 0.0}, {"one": 0.0, "two": 1.0}]
    found = pairs_of(new, known, kinds)
    assert found == {"code": Pairs(2.0, 1.0, 0.5), "law": Pairs(0.5, 0.0, 0.0)}
    assert not enough(found) and enough({"code": Pairs(20.0)})


def test_questions_that_both_get_right_or_both_wrong_say_nothing() -> None:
    found = shift(NAMES, {name: Pairs(100.0) for name in NAMES}, NEW, KNOWN)
    assert np.abs(found.moved).max() < 1e-12 and np.abs(found.shrink - 1.0).max() < 1e-9


_COUNTS = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(st.floats(0, 60), st.floats(0, 60)).map(lambda two: Pairs(sum(two), *two)),
)


@given(_COUNTS)
def test_whoever_wins_on_either_side_the_move_turns_round_with_it(pairs: dict[str, Pairs]) -> None:
    """Equals that change sides: what one gains the other loses, and nobody gets less sure."""
    found = shift(NAMES, pairs, NEW, KNOWN)
    other = shift(NAMES, {name: Pairs(one.count, one.lost, one.won) for name, one in pairs.items()}, NEW, KNOWN)
    assert np.isfinite(found.moved).all()
    assert found.moved == pytest.approx(-other.moved, abs=1e-6)
    assert (found.shrink <= 1.0 + 1e-9).all() and (found.shrink > 0.0).all()


def test_more_pairs_say_more_but_a_pack_never_says_all() -> None:
    def moved(times: float) -> Shift:
        return shift(NAMES, {name: Pairs(8 * times, 6 * times, 2 * times) for name in NAMES}, EVEN, [EVEN])

    few, many, endless = moved(1), moved(4), moved(10_000)
    assert 0.0 < few.moved.mean() < many.moved.mean() < endless.moved.mean() < np.log(3)
    assert few.shrink.mean() > many.shrink.mean() > endless.shrink.mean()


@pytest.mark.parametrize("digits", [300, 400, 5000])
def test_a_number_of_hundreds_of_digits_is_a_wrong_answer_and_no_crash(digits: int) -> None:
    """A broken model repeats itself; the other answers of the probe were paid for."""
    endless = "1" + "0" * digits
    assert not is_right(Check(number=3), endless)
    assert not is_right(Check(json={"a": 3}), f'{{"a": {endless}}}')
    assert not is_right(Check(call={"a": 3}), "", [Call("tell", f'{{"a": {endless}}}')])


def test_a_pack_is_not_the_traffic_however_long_it_is_and_however_well_the_others_are_known() -> None:
    sure = Expected(EVEN.quality, np.full(3, 1e-6))
    endless = shift(NAMES, {name: Pairs(1e6, 6e5, 4e5) for name in NAMES}, EVEN, [sure])
    assert (endless.shrink > 0.3).all()


def test_one_kind_tells_of_the_others_only_so_far() -> None:
    found = shift(NAMES, {"maths": Pairs(16, 0, 12)}, EVEN, [EVEN])
    assert found.moved[2] < 1.2 * found.moved[0] < 0.0
    assert found.shrink[2] < found.shrink[0] < 1.0


def test_known_models_that_are_hardly_known_make_pairs_say_less() -> None:
    pairs = {"maths": Pairs(16, 10, 2)}
    loose = [Expected(KNOWN[0].quality, np.full(3, 0.15))]
    assert shift(NAMES, pairs, NEW, loose).moved[2] < shift(NAMES, pairs, NEW, KNOWN).moved[2]


def test_a_prior_stays_within_bounds_and_classes_move_with_their_kinds() -> None:
    prior = Prior(np.array([0.99, 0.5, 0.8]), np.array([0.1, 0.1, 0.02]))
    weights = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.0, 0.5]])
    after = believed_after(prior, Shift(np.array([3.0, 0.0, -1.0]), np.array([0.5, 1.0, 0.5])), weights)
    assert after.mean[0] > 0.98 and after.mean[1] < 0.3 and after.mean[2] > 0.8
    assert (after.mean < 1.0).all() and (after.sd >= 0.02).all() and (after.sd <= 0.15).all()
