"""Health of targets: ejected after failures, one live trial at a time, and back with a success."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.core.failures import FailureKind, UpstreamFailure
from sophia.serving.attempts.targets.classifier import classify
from sophia.serving.attempts.targets.failure_table import FAILURE_TABLE, FailureRow, HealthEffect
from sophia.serving.attempts.targets.health import (
    EJECTION_SECONDS,
    FAILURES_IN_A_ROW,
    MAX_EJECTION_SECONDS,
    HealthBook,
    RetryBudget,
    TargetHealth,
)

HERE, OTHER, KEY = ("up", "model"), ("up", "other"), ("up", "")
BY_NUMBER = {row.number: row for row in FAILURE_TABLE}
DOWN, LIMITED, REFUSED = BY_NUMBER[21], BY_NUMBER[11], BY_NUMBER[15]


def fail(book: HealthBook, times: int, now: float, row: FailureRow = DOWN) -> None:
    for _ in range(times):
        book.begin(HERE, now, 0).fail(row, "status:503", now)


def test_a_target_is_ejected_after_failures_in_a_row() -> None:
    book = HealthBook()
    fail(book, FAILURES_IN_A_ROW - 1, 0.0)
    assert book.is_available(HERE, 0.0) and book.all_healthy
    fail(book, 1, 0.0)
    assert not book.is_available(HERE, EJECTION_SECONDS - 0.1) and not book.all_healthy
    assert book.is_available(OTHER, 0.0)
    assert book.describe(HERE, 10.0) == (
        "model is ejected after status:503; the next trial is in 20 s."
    )


def test_a_success_between_failures_starts_the_count_again() -> None:
    book = HealthBook()
    for _ in range(10):
        fail(book, FAILURES_IN_A_ROW - 1, 0.0)
        for _ in range(10):
            book.begin(HERE, 0.0, 0).succeed()
    assert book.is_available(HERE, 0.0)


def test_a_target_that_fails_most_of_the_time_is_ejected_too() -> None:
    book = HealthBook()
    for number in range(40):
        if not book.is_available(HERE, 0.0):
            break
        report = book.begin(HERE, 0.0, 0)
        report.succeed() if number % 4 == 3 else report.fail(DOWN, "status:503", 0.0)
    assert 20 <= number < 40


def test_an_answer_that_began_before_the_failures_says_nothing_against_them() -> None:
    book = HealthBook()
    long = book.begin(HERE, 0.0, 0)
    fail(book, FAILURES_IN_A_ROW, 1.0)
    long.succeed()
    assert not book.is_available(HERE, 2.0)


def test_one_live_trial_at_a_time_decides() -> None:
    book = HealthBook()
    fail(book, FAILURES_IN_A_ROW, 0.0)
    assert book.is_available(HERE, EJECTION_SECONDS)
    trial = book.begin(HERE, EJECTION_SECONDS, 0)
    assert not book.is_available(HERE, EJECTION_SECONDS), "a second request must not try it as well"
    trial.drop()
    assert book.is_available(HERE, EJECTION_SECONDS), "a caller who left has not tried it"
    book.begin(HERE, EJECTION_SECONDS, 0).succeed()
    assert book.is_available(HERE, EJECTION_SECONDS) and book.all_healthy


def test_a_failed_trial_doubles_the_time_up_to_a_limit() -> None:
    book, now, waits = HealthBook(), 0.0, []
    fail(book, FAILURES_IN_A_ROW, now)
    for _ in range(6):
        waits.append(book.back_at(HERE) - now)
        now = book.back_at(HERE)
        fail(book, 1, now)
    assert waits == [30.0, 60.0, 120.0, 240.0, MAX_EJECTION_SECONDS, MAX_EJECTION_SECONDS]


def test_a_rate_limit_rests_the_target_for_the_time_that_was_named() -> None:
    book = HealthBook()
    book.begin(HERE, 0.0, 0).fail(LIMITED, "status:429", 0.0, 7.0)
    assert not book.is_available(HERE, 6.9) and book.is_available(HERE, 7.0)
    assert book.is_available(OTHER, 0.0), "only what was limited rests"
    health = dict(book.items())[HERE]
    assert (health.success, health.attempts) == (1.0, 0), "a limit is no fault"


def test_a_refused_key_leaves_out_everything_behind_it_until_something_answers() -> None:
    book = HealthBook()
    book.begin(HERE, 0.0, 0).fail(REFUSED, "status:401", 0.0)
    assert not book.is_available(OTHER, 0.0) and book.is_available(("else", "model"), 0.0)
    assert book.describe(OTHER, 0.0).startswith("Every model at up is ejected after status:401")
    book.begin(OTHER, 0.0, 0).succeed()
    assert book.is_available(OTHER, 0.0)


@pytest.mark.parametrize("number", [16, 17, 18, 19])
def test_a_fault_of_the_request_never_counts(number: int) -> None:
    book = HealthBook()
    fail(book, 50, 0.0, BY_NUMBER[number])
    assert book.all_healthy and not list(book.items())


EVENTS = st.lists(
    st.tuples(st.sampled_from([None, *FAILURE_TABLE]), st.floats(0.0, 400.0)), max_size=60
)


@given(EVENTS)
def test_whatever_happened_a_target_is_back_after_a_while_and_a_success(
    events: list[tuple[FailureRow | None, float]],
) -> None:
    book, now = HealthBook(), 0.0
    for row, passed in events:
        now += passed
        report = book.begin(HERE, now, 0)
        if row is None:
            report.succeed()
            assert book.is_available(HERE, now)
        else:
            report.fail(row, "x", now, 3.0)
            assert row.health is not HealthEffect.COOL or not book.is_available(HERE, now + 2.9)
    later = now + 600.0
    assert book.is_available(HERE, later)
    book.begin(HERE, later, 0).succeed()
    assert book.is_available(HERE, later) and all(
        health.until is None for target, health in book.items() if target == HERE
    )


def test_the_first_content_is_expected_when_it_usually_comes() -> None:
    book = HealthBook()
    for number in range(100):
        book.begin(HERE, 0.0, 4000).succeed(1.0 if number % 2 else 1.2)
    limit = book.first_content_limit(HERE, 4000, 60.0)
    assert 1.2 < limit < 4.0
    assert book.first_content_limit(HERE, 40_000, 60.0) > 4 * limit, "a long prompt takes longer"
    assert book.first_content_limit(OTHER, 4000, 60.0) == 60.0
    late = book.late_first_content(HERE, 4000)
    assert late is not None and 1.0 < late < limit
    assert book.late_first_content(OTHER, 4000) is None


def test_repetitions_are_a_share_of_the_requests_and_a_floor() -> None:
    budget = RetryBudget(share=0.2, floor=1.0, seconds=10.0)
    assert sum(budget.take(0.0) for _ in range(100)) == 10, "the floor, of ten seconds at most"
    for _ in range(1000):
        budget.add_request()
    assert 200 <= sum(budget.take(1.0) for _ in range(1000)) <= 211
    assert not budget.take(1.0) and budget.take(3.0)


FAILED = st.builds(
    UpstreamFailure,
    st.sampled_from(FailureKind),
    st.text(max_size=30),
    status=st.none() | st.integers(400, 599),
    error_type=st.none() | st.sampled_from(["moderation", "context_length_exceeded", "x"]),
    reason=st.sampled_from(["", "capacity_exhausted", "constraint_filtered"]),
    retry_after=st.none() | st.floats(0, 1e4),
    sent=st.booleans(),
)


@given(FAILED)
def test_every_failure_has_a_row(failure: UpstreamFailure) -> None:
    assert classify(failure) in FAILURE_TABLE


@pytest.mark.parametrize(
    ("row", "status", "code", "message"),
    [
        (14, 400, "", "Your credit balance is too low to access the Anthropic API."),
        (14, 429, "insufficient_quota", "You exceeded your current quota."),
        (11, 429, "", "Quota exceeded for requests per minute."),
        (15, 400, "API_KEY_INVALID", "API key expired."),
        (15, 400, "", "Incorrect API key provided: sk***st."),
        (19, 400, "", "temperature: 'Incorrect API key provided' is no number"),
        (15, 403, "", "Forbidden"),
        (17, 403, "", "You do not have permission to access the File abc or it may not exist."),
        (17, 400, "", "User location is not supported for the API use."),
        (18, 400, "exceed_context_size_error", "too large"),
        (18, 400, "", "the request exceeds the available context size, try increasing it"),
        (18, 400, "", "input length and `max_tokens` exceed context limit: 1 + 2 > 2"),
        (18, 400, "string_too_long", "too long"),
        (17, 404, "", "No endpoints found that support tool use"),
        (20, 404, "", "No endpoints found for x/y."),
        (20, 404, "", "The model `gpt-image-1` does not exist or you do not have access to it."),
        (20, 404, "", "models/gemini-x is not found for API version v1beta"),
        (20, 404, "DeploymentNotFound", "The API deployment for this resource does not exist."),
        (20, 400, "model_not_available", "Unable to access model x."),
        (20, 410, "", "Gone"),
        (19, 404, "", "No such File object: my-model"),
        (19, 404, "", "Could not fetch image from URL https://example.com/model.png"),
        (19, 404, "", "Previous response with id 'resp_1' not found."),
        (21, 404, "", "Not Found"),
    ],
)
def test_a_refusal_is_read_by_its_code_and_then_by_its_words(
    row: int, status: int, code: str, message: str
) -> None:
    """A text that a caller made a server quote must not take a model or a key away from others."""
    failure = UpstreamFailure(FailureKind.STATUS, message, status=status, reason=code)
    assert classify(failure).number == row


def test_the_table_has_each_row_once_and_a_caller_is_never_held_against_a_target() -> None:
    assert [row.number for row in FAILURE_TABLE] == list(range(1, 36))
    for row in FAILURE_TABLE:
        assert row.action != "tell" or row.health is HealthEffect.NONE
    assert TargetHealth().state(0.0) == "healthy"
