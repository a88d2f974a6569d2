"""Bring an upstream's answers into OpenRouter's shape: what every client can read."""

from math import ceil
from typing import Any

import msgspec

from sophia.core.calls import Usage
from sophia.core.failures import FailureKind, UpstreamFailure

Json = dict[str, Any]

_FINISH = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "error": "error",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "end_turn": "stop",
    "eos": "stop",
    "max_tokens": "length",
    "safety": "content_filter",
}
_REASONING_TYPES = frozenset(
    {
        "reasoning.text",
        "reasoning.summary",
        "reasoning.encrypted",
        "reasoning.server_tool_call",
    }
)
_CONTENT_KEYS = (
    "content",
    "reasoning",
    "reasoning_content",
    "tool_calls",
    "function_call",
    "refusal",
    "images",
    "audio",
    "reasoning_details",
)
_decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


def read(payload: bytes) -> Json:
    """Return the JSON object in `payload`. Raises UpstreamFailure when it is none."""
    try:
        value = _decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        value = None
    if type(value) is not dict:
        raise UpstreamFailure(FailureKind.MALFORMED, "the upstream sent something that is not JSON")
    return value


def finish(choice: Json) -> str | None:
    """Normalise `finish_reason` in place to one of the five that clients know; return it."""
    reason = choice.get("finish_reason")
    if reason is None:
        choice["finish_reason"] = None
        return None
    known = _FINISH.get(reason if isinstance(reason, str) else "")
    if known is None:
        known = "stop"
    if known != reason:
        choice.setdefault("native_finish_reason", reason)
        choice["finish_reason"] = known
    return known


def has_content(message: Json) -> bool:
    """Say whether a message or delta carries something that the client asked for."""
    return any(message.get(key) for key in _CONTENT_KEYS)


def text_length(message: Json) -> int:
    """Return the characters of generated text in a message or delta, tool arguments included."""
    total = 0
    for key in ("content", "reasoning", "refusal"):
        value = message.get(key)
        if isinstance(value, str):
            total += len(value)
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            total += len(function["arguments"])
    return total


def tidy_message(message: Json) -> None:
    """Make the fields that strict clients check safe to read, in place."""
    details = message.get("reasoning_details")
    if details is not None:
        kept = [
            d
            for d in details
            if isinstance(d, dict) and str(d.get("type")) in _REASONING_TYPES
        ] if isinstance(details, list) else []
        if kept:
            message["reasoning_details"] = kept
        else:
            del message["reasoning_details"]
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        del message["tool_calls"]
    thought = message.pop("reasoning_content", None)
    if thought and not message.get("reasoning"):
        message["reasoning"] = thought


def usage(value: object) -> Usage | None:
    """Return the tokens and cost that an upstream reports, or None when it reports none.

    Negative, absurd or non-numeric figures count as not reported.
    """
    if not isinstance(value, dict):
        return None
    prompt = count(value.get("prompt_tokens"))
    completion = count(value.get("completion_tokens"))
    if prompt is None or completion is None:
        total = count(value.get("total_tokens"))
        if prompt is None or total is None:
            return None
        completion = max(total - prompt, 0)
    details = value.get("prompt_tokens_details")
    cached = count(details.get("cached_tokens")) if isinstance(details, dict) else 0
    details = value.get("completion_tokens_details")
    thought = count(details.get("reasoning_tokens")) if isinstance(details, dict) else 0
    value["prompt_tokens"] = prompt
    value["completion_tokens"] = completion
    value["total_tokens"] = prompt + completion
    return Usage(
        prompt, completion, cached or 0, thought or 0, nano(value.get("cost")), encode(value)
    )


def count(value: object) -> int | None:
    """Return a reported number of tokens, or None when it is absurd or none."""
    return value if type(value) is int and 0 <= value < 10**9 else None


def nano(cost: object) -> int | None:
    """Return a reported cost in US dollars as nano-dollars, or None when it is none."""
    if (type(cost) is not float and type(cost) is not int) or not 0 <= cost < 1e6:
        return None
    scaled = cost * 1e9
    if scaled == int(scaled):
        return int(scaled)
    # Three decimals of a nano-dollar absorb the error of the binary fraction before rounding up.
    return ceil(round(scaled, 3))


def failure(value: object, kind: FailureKind, status: int | None = None) -> UpstreamFailure:
    """Turn an upstream's `error` object into a failure, whatever its shape."""
    if not isinstance(value, dict):
        return UpstreamFailure(kind, str(value)[:500], status=status)
    metadata = value.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    code = value.get("code")
    if not isinstance(code, int):
        code = int(code) if isinstance(code, str) and code.isdigit() else status
    message = value.get("message")
    message = message if isinstance(message, str) and message else "the provider returned an error"
    raw = metadata.get("raw")
    if isinstance(raw, str) and raw and raw not in message:
        message = f"{message}: {raw}"
    provider = metadata.get("provider_name")
    availability = value.get("availability")
    wait = availability.get("retry_after") if isinstance(availability, dict) else None
    kind_name = metadata.get("error_type") or value.get("type") or value.get("code")
    if metadata.get("reasons") or metadata.get("patterns"):
        # What a filter found, whatever the error calls itself.
        kind_name = "moderation"
    return UpstreamFailure(
        kind,
        message[:1000],
        status=code if code and 400 <= code < 600 else status or 502,
        error_type=kind_name if isinstance(kind_name, str) else None,
        retry_after=float(wait) if isinstance(wait, int | float) else None,
        provider=provider if isinstance(provider, str) else None,
    )
