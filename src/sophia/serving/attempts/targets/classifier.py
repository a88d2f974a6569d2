"""Classifier: the row of the failure table that a failed attempt belongs to. Pure."""

import re

from sophia.core.failures import FailureKind, UpstreamFailure
from sophia.serving.attempts.targets.failure_table import FAILURE_TABLE, Action, FailureRow

NO_CAPACITY_STATUSES = frozenset({429, 503, 529})
TOO_LONG_ROW = 18
IN_FLIGHT_BUDGET = "openrouter_in_flight_budget"

_CALLER_FAULT_STATUSES = frozenset({400, 412, 422})
_MODEL_ERRORS = frozenset(
    {"model_not_found", "model_not_available", "invalid_model", "deploymentnotfound"}
)
_LIMIT_ERRORS = frozenset({"max_tokens_exceeded", "token_limit_exceeded", "string_too_long"})
_TOO_LONG_ERRORS = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_TOO_LONG_WORDS = (
    *("context length", "context window", "context size", "context limit", "maximum context"),
    *("prompt is too long", "maximum prompt length", "maximum model length"),
    *("input is too long", "too many tokens", "exceeds the maximum number of tokens"),
    "reduce the length of the",
)
_NO_CREDIT_ERRORS = frozenset({"insufficient_quota", "exceeded_current_quota_error"})
_MISLABELLED: tuple[tuple[int, frozenset[str], tuple[str, ...]], ...] = (
    (14, _NO_CREDIT_ERRORS, ("your credit balance is too low",)),
    (
        15,
        frozenset({"api_key_invalid", "invalid_api_key", "authentication_error"}),
        ("api key not valid", "api key expired", "incorrect api key provided"),
    ),
    (17, frozenset(), ("user location is not supported",)),
)
"""Rows of faults that some servers report as the caller's, with their codes and first words.

First words only, because a caller can make a server quote any text later in the message.
"""
_SUBJECT = re.compile(
    r"\b(?:(models?|deployments?|engines?|endpoints?)|files?|images?|urls?|assistants?|threads?"
    r"|resources?|responses?|items?|containers?|conversations?|documents?|vector_?stores?"
    r"|(?:cached)?contents?)\b",
    re.IGNORECASE,
)
"""The thing that a 403 or 404 is about: the model in group 1, else something the caller named."""
_WRONG_PATH_WORDS = ("invalid url (", "the requested url", "the requested resource", "resource not")
"""First words about a path that the upstream does not serve: a wrong `base_url`."""
_UPSTREAM_FAULT_WORDS = (
    *("internal server error", "service unavailable", "temporarily unavailable", "overloaded"),
    *("failed to call a function", "tool_use_failed", "output_parse_failed"),
)
"""Words of client errors that in truth tell of a fault of the provider."""
_MODERATION_ERRORS = frozenset(
    {"content_policy_violation", "refusal", "moderation", "content_filter"}
)
_KEY_ERRORS = frozenset(
    {"permission_denied", "permission_error", "authentication", "invalid_api_key"}
)
_FILTERED_REASONS = frozenset({"constraint_filtered", "no_allowed_providers", "data_policy"})
_FILTERED_WORDS = (
    *("data policy", "no allowed providers", "privacy", "no endpoints found that"),
    "requested parameters",
)
_REGION_WORDS = ("region", "country", "territory", "location")

_ROWS = {row.number: row for row in FAILURE_TABLE}
_BY_KIND = {
    FailureKind.DNS: 1,
    FailureKind.REFUSED: 1,
    FailureKind.TLS: 1,
    FailureKind.RESET: 2,
    FailureKind.CONNECT_TIMEOUT: 3,
    FailureKind.FIRST_BYTE_TIMEOUT: 4,
    FailureKind.CONTENT_TIMEOUT: 4,
    FailureKind.TOTAL_TIMEOUT: 4,
    FailureKind.STALL: 5,
    FailureKind.CUT: 6,
    FailureKind.MALFORMED: 9,
    FailureKind.TOO_LARGE: 9,
    FailureKind.EMPTY: 22,
    FailureKind.REPETITION: 26,
    # All connections are in use: nothing about the target, and nothing was sent.
    FailureKind.POOL_EXHAUSTED: 31,
}


def classify(failure: UpstreamFailure) -> FailureRow:
    """Return the row of a failed attempt: by its kind, typed codes and status, by its words last.

    An error in a stream or in a 200 is classed by the status that it names.
    """
    if failure.kind in (FailureKind.STATUS, FailureKind.IN_BAND):
        return _ROWS[_classify_status(failure)]
    if failure.kind is FailureKind.RESET and not failure.sent:
        return _ROWS[1]
    return _ROWS[_BY_KIND[failure.kind]]


def describe_failure(failure: UpstreamFailure) -> str:
    """Return the kind of a failure, and its status if it has one, for the ledger."""
    return f"{failure.kind}:{failure.status}" if failure.status else str(failure.kind)


def is_final(failure: BaseException) -> bool:
    """Return whether no other target may be asked: the request itself is at fault."""
    return isinstance(failure, UpstreamFailure) and classify(failure).action is Action.TELL


def is_too_long(failure: UpstreamFailure) -> bool:
    """Return whether the request was too long for the model."""
    if failure.status == 413 or _has_code(failure, _TOO_LONG_ERRORS):
        return True
    return failure.status in _CALLER_FAULT_STATUSES and _has_words(failure, _TOO_LONG_WORDS)


def _classify_status(failure: UpstreamFailure) -> int:
    status, kind = failure.status or 502, failure.error_type
    if kind in _MODERATION_ERRORS or (status == 403 and _has_words(failure, ("moderation",))):
        return 16
    if is_too_long(failure) or _has_code(failure, _LIMIT_ERRORS):
        return 18
    if failure.reason in _FILTERED_REASONS:
        return 17
    by_status = {401: 15, 402: 14, 403: 15, 404: 20, 407: 15, 410: 20, 413: 18, 429: 11}
    if status in by_status:
        return _refine(by_status[status], failure)
    if _has_code(failure, _MODEL_ERRORS):
        return 20
    if status not in _CALLER_FAULT_STATUSES or _has_words(failure, _UPSTREAM_FAULT_WORDS):
        return 21
    message = failure.message.lower()
    for row, codes, words in _MISLABELLED:
        if _has_code(failure, codes) or message.startswith(words):
            return row
    return 19


def _refine(row: int, failure: UpstreamFailure) -> int:
    """Return the row by the typed reason, where a status has more than one meaning."""
    if row == 11 and failure.reason == "capacity_exhausted":
        return 12
    if row == 11 and _has_code(failure, _NO_CREDIT_ERRORS):
        return 14
    if row == 14 and failure.reason == IN_FLIGHT_BUDGET and failure.retry_after is not None:
        return 13
    if row == 15 and failure.status == 403:
        kind, subject = failure.error_type, _SUBJECT.search(failure.message)
        is_constraint = kind is not None and kind not in _KEY_ERRORS
        # A "resource" of a key's rights is none of the caller's.
        is_about_other = subject is not None and not subject[1] and "resource" not in subject[0]
        regional = _has_words(failure, _REGION_WORDS)
        return 17 if is_constraint or is_about_other or regional else 15
    if row == 20:
        return _refine_missing(failure)
    return row


def _refine_missing(failure: UpstreamFailure) -> int:
    """Return the row of a 404 or 410: only a missing model ejects the target."""
    if _has_words(failure, _FILTERED_WORDS):
        return 17
    if _has_code(failure, _MODEL_ERRORS):
        return 20
    subject = _SUBJECT.search(failure.message)
    if subject is None or failure.message.lower().startswith(_WRONG_PATH_WORDS):
        return 21 if failure.status == 404 else 20
    return 20 if subject[1] else 19


def _has_code(failure: UpstreamFailure, codes: frozenset[str]) -> bool:
    return failure.reason.lower() in codes or (failure.error_type or "").lower() in codes


def _has_words(failure: UpstreamFailure, words: tuple[str, ...]) -> bool:
    message = failure.message.lower()
    return any(word in message for word in words)
