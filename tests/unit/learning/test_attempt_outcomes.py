"""Failures that count against an arm, and those that do not."""

import pytest
from msgspec.structs import replace

from sophia.core.events import Settled
from sophia.core.rows import RUBRIC_FINISH, AttemptOutcome
from sophia.learning.online.attempt_outcomes import is_arm_failure, measure_completed_answers


def outcome(
    failure: str | None = None, finish: str | None = "stop", model: str = "a/b"
) -> AttemptOutcome:
    return AttemptOutcome(
        attempt_id=16,
        key_id="key",
        window="2026-11-23",
        model=model,
        state="settled",
        cost_nano=10,
        cost_source="upstream",
        estimate_nano=10,
        prompt_tokens=5,
        completion_tokens=70,
        cached_tokens=0,
        reasoning_tokens=0,
        finish_reason=finish,
        failure=failure,
        generation_id=None,
        provider=None,
        first_content_ms=300.0,
        total_ms=900.0,
        at_ms=1,
    )


def event(*attempts: AttemptOutcome, stream: bool = False, **more: object) -> Settled:
    settled = Settled(
        request_id=1,
        endpoint="chat/completions",
        requested_model="sophia/auto",
        model="a/b",
        provider=None,
        upstream="up",
        policy="hierarchical",
        task_type="general",
        stream=stream,
        status=200,
        finish_reason="stop",
        error_type=None,
        cost_nano=10,
        prompt_tokens=5,
        completion_tokens=70,
        duration_s=1.0,
        first_content_s=None,
        attempts=attempts,
        expected_tokens=300,
        mode="tools",
    )
    return replace(settled, **more)


@pytest.mark.parametrize(
    ("failure", "expected"),
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
def test_only_an_arm_s_own_faults_are_its_failures(
    failure: str | None, expected: bool | None
) -> None:
    assert is_arm_failure(outcome(failure)) is expected


def test_a_reply_to_a_rubric_is_no_answer() -> None:
    assert is_arm_failure(outcome(finish=RUBRIC_FINISH)) is None
    assert not list(measure_completed_answers(event(outcome(finish=RUBRIC_FINISH)), None))


def test_complete_answers_are_measured_and_no_others() -> None:
    """Also one that failed its checks, but not one that broke off or whose client disconnected."""
    settled = event(
        outcome("reset", None, "a/1"),
        outcome("check:schema", "length", "a/2"),
        outcome("client_gone", None, "a/3"),
        outcome(model="a/4"),
    )
    answers = list(measure_completed_answers(settled, None))
    assert [answer.arm for answer in answers] == ["a/2#tools", "a/4#tools"]
    assert [answer.truncated for answer in answers] == [True, False]
    assert {
        (answer.expected_tokens, answer.completion_tokens, answer.total_ms, answer.first_content_ms)
        for answer in answers
    } == {(300, 70, 900.0, None)}


def test_only_a_stream_has_a_first_content() -> None:
    assert [
        answer.first_content_ms
        for answer in measure_completed_answers(event(outcome(), stream=True), None)
    ] == [300.0]
    assert not list(measure_completed_answers(event(outcome(), endpoint="embeddings"), None))
