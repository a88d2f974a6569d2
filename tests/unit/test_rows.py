"""Which of a request's attempts the caller got the answer of."""

import pytest

from sophia.core.rows import Outcome, served

BASE = Outcome(
    0, "k", "day", "m", "settled", 1, "upstream", 1, 1, 1, 0, 0, "stop", None, None, None, 1.0, 1.0, 0
)


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
def test_the_last_that_did_not_fail_was_given(failures: list[str | None], place: int) -> None:
    """When all failed, an answer that came whole goes before one that did not."""
    made = [BASE._replace(attempt_id=n, failure=failure) for n, failure in enumerate(failures)]
    assert served(made) is made[place]


def test_a_mark_is_no_answer() -> None:
    made = [BASE, BASE._replace(attempt_id=1, finish_reason="rubric")]
    assert served(made) is made[0]
    assert served(made[1:]) is None and served([]) is None
