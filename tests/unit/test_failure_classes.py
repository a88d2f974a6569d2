"""Classes of an upstream's errors: by typed code and status, and by first words last."""

import pytest

from sophia.core.failures import FailureKind, UpstreamFailure
from sophia.serving.attempts.targets.classifier import classify


@pytest.mark.parametrize(
    ("status", "message", "row"),
    [
        (404, "The model `x` does not exist", 20),
        (404, "No such File object: file-123", 19),
        (404, "Invalid URL (POST /v1/chat/completions)", 21),
        (404, "Resource not found", 21),
        (404, "The requested URL /v1 was not found on this server.", 21),
        (404, "nothing here", 21),
        (403, "Permission denied on resource project 12.", 15),
        (403, "You do not have permission to access the File abc", 17),
        (400, "API key not valid. Please pass a valid API key.", 15),
        (400, "A tool said: API key not valid.", 19),
    ],
)
def test_an_error_is_classed_by_what_it_is_about(status: int, message: str, row: int) -> None:
    failure = UpstreamFailure(FailureKind.STATUS, message, status=status)
    assert classify(failure).number == row
