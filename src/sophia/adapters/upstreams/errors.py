"""Errors of upstreams, whatever their shape: OpenAI's, OpenRouter's, FastAPI's, a list or text."""

import math
import re
from collections.abc import Mapping
from typing import Any

from sophia.adapters.upstreams.json_text import coerce_object, decode_value
from sophia.adapters.upstreams.shapes import measure_failed
from sophia.core.failures import FailureKind, UpstreamFailure

MAX_WAIT_SECONDS = 86_400.0
"""Longest `Retry-After` that is believed."""
_MAX_CHARS = 1000
_MAX_ITEMS, _MAX_DEPTH = 50, 8
"""Most items and depth that are searched for the message of an error."""
_STATUS_CODE = re.compile(r"[1-5]\d\d", re.ASCII)
_MESSAGE_FIELDS = ("message", "detail", "msg", "error", "error_description", "errors", "title")


def find_error(value: object) -> object | None:
    """Return what is an error in a decoded body or event, None when it is none.

    Besides a truthy `error` that is an object or list without any choices, or one that calls itself
    an error.
    """
    if isinstance(value, list):
        return find_error(value[0]) if value else None
    if not isinstance(value, Mapping):
        return None
    error: object = value.get("error")
    if error:
        return error
    if value.get("object") == "error" or value.get("type") == "error":
        return value
    return None


def parse_error_body(body: bytes, status: int) -> UpstreamFailure:
    """Return the failure that the body of an answer with an error status tells of."""
    try:
        value = decode_value(body)
    except ValueError:
        text = body.decode(errors="replace").strip()
        # A page for people says nothing that a program's user could act on.
        value = None if text.startswith("<") else text
    if isinstance(value, list) and value:
        value = value[0]
    error = find_error(value) or value or f"HTTP {status}"
    failure = parse_failure(error, FailureKind.STATUS, status)
    if isinstance(value, dict) and "usage" in value:
        failure.received = measure_failed(value)
    return failure


def parse_failure(value: object, kind: FailureKind, status: int | None = None) -> UpstreamFailure:
    """Turn an upstream's error into a failure."""
    if not isinstance(value, dict):
        return UpstreamFailure(kind, _clean(str(value)), status=status)
    metadata = coerce_object(value.get("metadata"))
    code = value.get("code")
    if not isinstance(code, int):
        code = int(code) if isinstance(code, str) and _STATUS_CODE.fullmatch(code) else status
    message = _find_message(value) or "the provider returned an error"
    raw = metadata.get("raw")
    if isinstance(raw, str) and raw and raw not in message:
        message = f"{message}: {raw}"
    provider = metadata.get("provider_name")
    availability = coerce_object(value.get("availability") or metadata.get("availability"))
    wait = availability.get("retry_after")
    reason = availability.get("code") or metadata.get("limit_source") or _find_code(value)
    error_type = metadata.get("error_type") or value.get("type") or value.get("code")
    if metadata.get("reasons") or metadata.get("patterns"):
        # Findings of a filter, whatever the error calls itself.
        error_type = "moderation"
    return UpstreamFailure(
        kind,
        _clean(message),
        status=code if code and 400 <= code < 600 else status or 502,
        error_type=error_type if isinstance(error_type, str) and error_type != "error" else None,
        reason=reason if isinstance(reason, str) else "",
        retry_after=parse_wait(wait) if isinstance(wait, int | float) else None,
        provider=provider if isinstance(provider, str) else None,
    )


def parse_wait(seconds: float) -> float | None:
    """Return a wait in seconds, None when it is no usable number."""
    # Compared rather than `math.isfinite`, which fails for an integer of 309 digits.
    return min(seconds, MAX_WAIT_SECONDS) if 0.0 <= seconds < math.inf else None


def _find_code(error: Mapping[str, Any]) -> object:
    """Return the reason among Google's `details`, or the error's own code."""
    details = error.get("details")
    details = details[:9] if isinstance(details, list) else []
    found = [coerce_object(each).get("reason") for each in details]
    return next(filter(None, found), None) or error.get("code")


def _find_message(value: object, depth: int = 0) -> str:
    """Return the words of an error; those of a validation list each with its place."""
    if isinstance(value, str):
        return value
    if depth > _MAX_DEPTH:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_find_message(v, depth + 1) for v in value[:_MAX_ITEMS])))
    if not isinstance(value, Mapping):
        return ""
    fields: Mapping[Any, object] = value
    texts = (_find_message(fields.get(name), depth + 1) for name in _MESSAGE_FIELDS)
    text = next(filter(None, texts), "")
    place = fields.get("loc")
    if text and isinstance(place, list):
        return f"{'.'.join(map(str, place[:_MAX_ITEMS]))}: {text}"
    return text


def _clean(text: str) -> str:
    """Return text for one line of a log or of an error."""
    shown = "".join(char if char.isprintable() else " " for char in text[:_MAX_CHARS])
    return shown.strip()
