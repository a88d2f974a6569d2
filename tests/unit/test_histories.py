"""System prompts: what came under one before helps to tell the next, and nothing else changes."""

import timeit

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.routing.bandit.context.prompt_history import (
    CONCENTRATION,
    PromptHistory,
    apply_history,
    update_history,
)
from sophia.routing.bandit.context.task_model import combine_evidence
from sophia.routing.types import Prompt
from sophia.serving.learned.prompt_histories import MAX_PROMPTS, MAX_TENANTS, PromptHistories

CLASSES = ("apples", "pears", "plums", "unknown")
BASE = 1.0 / len(CLASSES)
posteriors = st.lists(st.floats(0.001, 1.0), min_size=4, max_size=4).map(
    lambda one: np.array(one) / sum(one)
)


def asked(text: str, system: str = "You sort fruit.", **more: bool) -> Prompt:
    return Prompt(text=text, system=system, chars=len(text), utf8_bytes=len(text), **more)


def served(histories: PromptHistories, tenant: str, prompt: Prompt, own: np.ndarray) -> np.ndarray:
    """Return the posterior of a request that is then served and counted."""
    seen = histories.look_up(tenant, prompt, own)
    if seen is None:
        return own
    histories.record(seen)
    return seen.adjusted.task_probabilities


def doubtful(task: int) -> np.ndarray:
    """Return a posterior that is for one task, not surely."""
    chances = np.full(4, 0.1)
    chances[task] = 0.7
    return chances


@given(earlier=st.lists(posteriors, max_size=30), own=posteriors)
def test_a_posterior_stays_one_whatever_came_before(
    earlier: list[np.ndarray], own: np.ndarray
) -> None:
    """The chances sum to 1, and what the text excludes stays excluded."""
    history = PromptHistory(np.zeros(4))
    for one in earlier:
        history = update_history(history, one, apply_history(history, one, BASE).log_bayes_factor)
    told = apply_history(history, own, BASE)
    assert (
        told.task_probabilities.sum() == pytest.approx(1.0) and (told.task_probabilities >= 0).all()
    )
    assert 0.0 < told.history_probability < 1.0 and history.request_count == len(earlier)
    certain = np.array([1.0, 0.0, 0.0, 0.0])
    assert apply_history(history, certain, BASE).task_probabilities == pytest.approx(certain)


@given(own=posteriors, other=posteriors)
def test_no_request_is_its_own_witness(own: np.ndarray, other: np.ndarray) -> None:
    """One that was counted is taken out again before it is asked about itself."""
    trusted = PromptHistory(np.zeros(4), log_odds=8.0)
    alone = update_history(trusted, own, 0.0)
    assert apply_history(
        alone, own, BASE, already_counted=True
    ).task_probabilities == pytest.approx(own)
    before = update_history(trusted, other, 0.0)
    with_it = PromptHistory(before.counts + own, before.total_weight + 1.0, before.log_odds, 2)
    assert apply_history(
        with_it, own, BASE, already_counted=True
    ).task_probabilities == pytest.approx(apply_history(before, own, BASE).task_probabilities)


@given(earlier=st.lists(posteriors, min_size=1, max_size=20), own=posteriors)
def test_a_history_that_is_believed_is_evidence_by_bayes_rule(
    earlier: list[np.ndarray], own: np.ndarray
) -> None:
    """The short form is what the long one says: posterior times expectation over base, normalised."""
    history = PromptHistory(np.zeros(4))
    for one in earlier:
        history = update_history(history, one, apply_history(history, one, BASE).log_bayes_factor)
    expected = history.counts + CONCENTRATION * BASE
    evidence = expected / expected.sum() / BASE
    told = apply_history(history, own, BASE)
    mixed = (
        told.history_probability * combine_evidence(own, evidence)
        + (1.0 - told.history_probability) * own
    )
    assert told.task_probabilities == pytest.approx(mixed)
    assert told.log_bayes_factor == pytest.approx(np.log(own @ evidence))


def test_a_history_speaks_louder_the_longer_it_is() -> None:
    own = np.array([0.4, 0.3, 0.2, 0.1])
    chances = []
    for length in (0.0, 1.0, 40.0, 400.0):
        history = PromptHistory(np.array([0.0, 0.0, 0.0, length]), length, log_odds=8.0)
        chances.append(apply_history(history, own, BASE).task_probabilities[3])
    assert chances == sorted(chances) and chances[-1] > 0.9


def test_doubtful_texts_under_one_prompt_are_told_by_what_came_before() -> None:
    histories = PromptHistories(CLASSES)
    for number in range(40):
        served(histories, "a", asked(f"{number}"), doubtful(2))
    likely = np.array([0.3, 0.2, 0.3, 0.2])
    told = served(histories, "a", asked("and this?"), likely)
    assert told.argmax() == 2 and told[2] > 0.4
    assert served(histories, "a", asked("and this?", "Another prompt."), likely) == pytest.approx(
        likely
    )
    assert served(histories, "a", asked("and this?", ""), likely) == pytest.approx(likely)


def test_a_prompt_before_all_kinds_of_requests_takes_nothing_from_them() -> None:
    """A history that foretells nothing is not believed, however long it is."""
    rng = np.random.default_rng(1)
    histories = PromptHistories(CLASSES)
    moved = []
    for number in range(300):
        own = rng.dirichlet(np.full(4, 0.1))
        moved.append(np.abs(served(histories, "a", asked(str(number)), own) - own).max())
    assert np.mean(moved[100:]) < 0.02


def test_a_history_that_has_foretold_nothing_yet_is_hardly_believed() -> None:
    histories = PromptHistories(CLASSES)
    served(histories, "a", asked("first"), doubtful(2))
    own = doubtful(1)
    assert served(histories, "a", asked("second"), own) == pytest.approx(own, abs=0.01)


def test_one_prompt_of_two_tenants_has_two_names() -> None:
    """Who reads the file cannot tell that two keys say the same."""
    histories = PromptHistories(CLASSES)
    one, two = (histories.look_up(tenant, asked("x"), doubtful(1)) for tenant in "ab")
    assert one is not None and two is not None and one.prompt_digest != two.prompt_digest


def test_a_prompt_whose_use_changes_is_known_by_its_new_one_soon() -> None:
    histories = PromptHistories(CLASSES)
    sure = [np.array([0.91, 0.03, 0.03, 0.03]), np.array([0.03, 0.91, 0.03, 0.03])]
    for number in range(200):
        served(histories, "a", asked(str(number)), sure[0])
    for number in range(200, 240):
        told = served(histories, "a", asked(str(number)), sure[1])
        assert told.argmax() == 1
    either = np.array([0.45, 0.45, 0.05, 0.05])
    for number in range(240, 300):
        served(histories, "a", asked(str(number)), sure[1])
    assert served(histories, "a", asked("x"), either).argmax() == 1


def test_a_retry_and_the_turns_of_a_tool_loop_count_once() -> None:
    histories = PromptHistories(CLASSES)
    for _ in range(5):
        served(histories, "a", asked("the same"), doubtful(1))
    for turn in range(5):
        served(histories, "a", asked(f"turn {turn}", after_tool_result=True), doubtful(1))
    seen = histories.look_up("a", asked("new"), doubtful(1))
    assert seen is not None and seen.history.request_count == 1
    again = histories.look_up("a", asked("the same"), doubtful(1))
    assert again is not None and again.adjusted.task_probabilities == pytest.approx(doubtful(1))


def test_asking_what_would_be_chosen_leaves_no_trace() -> None:
    histories = PromptHistories(CLASSES)
    for _ in range(3):
        seen = histories.look_up("a", asked("what if"), doubtful(1))
        assert seen is not None and seen.history.request_count == 0
    assert histories.changes == 0


@given(
    traffic=st.lists(
        st.tuples(
            st.sampled_from("bcd"), st.sampled_from(["You sort fruit.", "p", "q"]), posteriors
        ),
        max_size=60,
    )
)
def test_no_other_tenants_traffic_touches_a_tenants_histories(
    traffic: list[tuple[str, str, np.ndarray]],
) -> None:
    """Not even under the same system prompt; every number stays the same, bit by bit."""
    quiet, busy = PromptHistories(CLASSES), PromptHistories(CLASSES)
    noise = iter(traffic)
    for number in range(20):
        own = doubtful(number % 3)
        for one in [next(noise, None) for _ in range(3)]:
            if one is not None:
                served(busy, one[0], asked(f"{number} {one[1]}", one[1]), one[2])
        alone = served(quiet, "a", asked(str(number)), own)
        among = served(busy, "a", asked(str(number)), own)
        assert among.tobytes() == alone.tobytes()


def test_a_flood_of_prompts_makes_no_other_tenants_be_forgotten() -> None:
    """The memory of a tenant is bounded, and its own: the longest unused prompt goes."""
    histories = PromptHistories(CLASSES)
    for number in range(30):
        served(histories, "a", asked(str(number)), doubtful(1))
    for number in range(3 * MAX_PROMPTS):
        served(histories, "flood", asked("x", f"made up {number}"), doubtful(0))
    seen = histories.look_up("a", asked("new"), doubtful(1))
    first = histories.look_up("flood", asked("y", "made up 0"), doubtful(0))
    last = histories.look_up("flood", asked("y", f"made up {3 * MAX_PROMPTS - 1}"), doubtful(0))
    assert seen is not None and seen.history.request_count == 30
    assert first is not None and first.history.request_count == 0
    assert last is not None and last.history.request_count == 1
    for number in range(MAX_TENANTS):
        served(histories, f"other {number}", asked("x"), doubtful(0))
    gone = histories.look_up("flood", asked("y", f"made up {3 * MAX_PROMPTS - 1}"), doubtful(0))
    assert gone is not None and gone.history.request_count == 0


def test_what_was_written_down_goes_on_where_it_was() -> None:
    before, later = PromptHistories(CLASSES), PromptHistories(CLASSES)
    for number in range(30):
        served(before, "a", asked(str(number)), doubtful(1))
    later.load(before.prepare_dump()())
    known, anew = (one.look_up("a", asked("new"), doubtful(2)) for one in (before, later))
    assert known is not None and anew is not None
    assert anew.history.request_count == 30 and anew.prompt_digest == known.prompt_digest
    assert anew.adjusted.task_probabilities == pytest.approx(
        known.adjusted.task_probabilities, abs=1e-6
    )


def test_what_is_written_down_holds_no_text() -> None:
    histories = PromptHistories(CLASSES)
    served(histories, "a", asked("a sealed question", "our sealed prompt"), doubtful(1))
    assert b"sealed" not in histories.prepare_dump()()


def test_other_tasks_begin_anew_and_other_bytes_are_refused() -> None:
    histories = PromptHistories(CLASSES)
    served(histories, "a", asked("x"), doubtful(1))
    others = PromptHistories(("one", "two"))
    others.load(histories.prepare_dump()())
    seen = others.look_up("a", asked("x"), np.array([0.5, 0.5]))
    assert seen is not None and seen.history.request_count == 0
    with pytest.raises(msgspec.DecodeError):
        others.load(b"no histories")


def test_remembering_takes_little_time() -> None:
    """Far above the some ten microseconds it takes, so that only a different order of work fails."""
    histories = PromptHistories(tuple(str(number) for number in range(36)))
    own = np.random.default_rng(1).dirichlet(np.ones(36))
    texts = iter(range(100_000))

    def step() -> None:
        served(histories, "a", asked(f"{next(texts)}", "You are helpful. " * 30), own)

    assert min(timeit.repeat(step, number=200, repeat=5)) / 200 < 0.0002
