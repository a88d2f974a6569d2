"""What counts as an arm's own failure, and what does not."""

import pytest

from sophia.core.events import Settled
from sophia.core.rows import RUBRIC, Outcome
from sophia.learning.attempts import answers, failed


def outcome(failure: str | None = None, finish: str | None = "stop", model: str = "a/b") -> Outcome:
    return Outcome(
        16, "key", "2026-11-23", model, "settled", 10, "upstream", 10, 5, 70, 0, 0, finish, failure,
        None, None, 300.0, 900.0, 1,
    )


def event(*attempts: Outcome, stream: bool = False, **more: object) -> Settled:
    given = Settled(
        1, "chat/completions", "sophia/auto", "a/b", None, "up", "hierarchical", "general", stream, 200,
        "stop", None, 10, 5, 70, 1.0, None, attempts, 300, "tools",
    )
    return given._replace(**more)


@pytest.mark.parametrize(
    ("failure", "found"),
    [
        (None, False),
        ("check:schema", False),
        ("status:429", True),
        ("status:500", True),
        ("status:404", True),
        ("in_band", True),
        ("in_band:502", True),
        ("reset", True),
        ("content_timeout", True),
        ("empty", True),
        ("client_gone", None),
        ("internal", None),
        ("pool_exhausted", None),
        ("status:400", None),
        ("status:401", None),
        ("status:402", None),
        ("in_band:403", None),
    ],
)
def test_only_what_an_arm_is_to_blame_for_is_its_failure(failure: str | None, found: bool | None) -> None:
    assert failed(outcome(failure)) is found


def test_a_mark_that_was_asked_for_is_no_answer() -> None:
    assert failed(outcome(finish=RUBRIC)) is None
    assert not list(answers(event(outcome(finish=RUBRIC)), None))


def test_answers_that_came_whole_are_learned_from_and_no_others() -> None:
    """Also one that failed its checks, but not one that broke off or that nobody waited for."""
    told = event(
        outcome("reset", None, "a/1"), outcome("check:schema", "length", "a/2"),
        outcome("client_gone", None, "a/3"), outcome(model="a/4"),
    )
    found = list(answers(told, None))
    assert [one.arm for one in found] == ["a/2#tools", "a/4#tools"]
    assert [one.cut for one in found] == [True, False]
    assert {(one.expected, one.tokens, one.total_ms, one.first_ms) for one in found} == {(300, 70, 900.0, None)}


def test_only_a_stream_has_a_first_content() -> None:
    assert [one.first_ms for one in answers(event(outcome(), stream=True), None)] == [300.0]
    assert not list(answers(event(outcome(), endpoint="embeddings"), None))
