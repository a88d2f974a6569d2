"""The attempt of a request whose answer the caller got."""

import pytest
from msgspec.structs import replace

from sophia.core.rows import find_served_outcome
from store_rows import outcome

BASE = outcome(0)


@pytest.mark.parametrize(
    ("failures", "place"),
    [
        ([None], 0),
        (["reset", None], 1),
        (["check:schema", None], 1),
        (["check:schema", "status:503"], 0),
        (["check:schema", "check:refusal", "cut"], 1),
        (["reset", "cut"], 1),
        (["client_gone"], 0),
    ],
)
def test_the_last_that_did_not_fail_was_served(failures: list[str | None], place: int) -> None:
    """When all failed, a complete answer goes before an incomplete one."""
    outcomes = [replace(BASE, attempt_id=n, failure=failure) for n, failure in enumerate(failures)]
    assert find_served_outcome(outcomes) is outcomes[place]


def test_a_rubric_score_is_no_answer() -> None:
    outcomes = [BASE, replace(BASE, attempt_id=1, finish_reason="rubric")]
    assert find_served_outcome(outcomes) is outcomes[0]
    assert find_served_outcome(outcomes[1:]) is None and find_served_outcome([]) is None
