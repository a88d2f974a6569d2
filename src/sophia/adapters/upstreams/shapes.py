"""Parse the JSON of upstreams and normalise it to OpenRouter's shape, which every client reads."""

from math import ceil
from typing import Any

import msgspec

from sophia.core.calls import Usage
from sophia.core.failures import FailureKind, UpstreamFailure

JsonObject = dict[str, Any]

_FINISH_REASONS = {
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "error": "error",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "safety": "content_filter",
}
_REASONING_TYPES = frozenset(
    {"reasoning.text", "reasoning.summary", "reasoning.encrypted", "reasoning.server_tool_call"}
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


def decode_object(payload: bytes) -> JsonObject:
    """Return the JSON object in `payload`. Raises UpstreamFailure if it is no JSON object."""
    try:
        value = _decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        value = None
    if type(value) is not dict:
        raise UpstreamFailure(FailureKind.MALFORMED, "the upstream sent something that is not JSON")
    return value


def coerce_object(value: object) -> JsonObject:
    """Return a copy of `value`, decoded if it is raw JSON; an empty object if it is no object."""
    if isinstance(value, msgspec.Raw):
        value = _decode(value)
    return dict(value) if isinstance(value, dict) else {}


def normalize_finish_reason(choice: JsonObject) -> str | None:
    """Normalise `finish_reason` in place to one of the five that clients know; return it."""
    native = choice.get("finish_reason")
    if native is None:
        choice["finish_reason"] = None
        return None
    reason = _FINISH_REASONS.get(native if isinstance(native, str) else "", "stop")
    if reason != native:
        choice.setdefault("native_finish_reason", native)
        choice["finish_reason"] = reason
    return reason


def raise_choice_error(choice: JsonObject) -> None:
    """Raise UpstreamFailure if a choice reports an error."""
    error = choice.get("error")
    if error is not None or choice.get("finish_reason") == "error":
        error = error or "the provider stopped with an error"
        raise parse_failure(error, FailureKind.IN_BAND)


def measure_content(message: JsonObject) -> tuple[bool, int]:
    """Return whether a message or delta has content, and its characters of generated text.

    Content is text, reasoning, tool calls or media; the text includes tool arguments.
    """
    total = 0
    for key in ("content", "reasoning", "refusal"):
        value = message.get(key)
        if isinstance(value, str):
            total += len(value)
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            total += len(function["arguments"])
    return any(message.get(key) for key in _CONTENT_KEYS), total


def repair_message(message: JsonObject) -> None:
    """Remove or repair, in place, values that strict clients refuse."""
    details = message.get("reasoning_details")
    if details is not None:
        details = details if isinstance(details, list) else []
        message["reasoning_details"] = [
            d for d in details if isinstance(d, dict) and str(d.get("type")) in _REASONING_TYPES
        ]
        if not message["reasoning_details"]:
            del message["reasoning_details"]
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        del message["tool_calls"]
    reasoning = message.pop("reasoning_content", None)
    if reasoning and not message.get("reasoning"):
        message["reasoning"] = reasoning


def parse_usage(value: object) -> Usage | None:
    """Return the tokens and cost that an upstream reports, or None when it reports none.

    Negative, huge or non-numeric figures count as not reported.
    """
    if not isinstance(value, dict):
        return None
    prompt = parse_token_count(value.get("prompt_tokens"))
    completion = parse_token_count(value.get("completion_tokens"))
    if prompt is None or completion is None:
        total = parse_token_count(value.get("total_tokens"))
        if prompt is None or total is None:
            return None
        completion = max(total - prompt, 0)
    prompt_details = coerce_object(value.get("prompt_tokens_details"))
    completion_details = coerce_object(value.get("completion_tokens_details"))
    value["prompt_tokens"] = prompt
    value["completion_tokens"] = completion
    value["total_tokens"] = prompt + completion
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=parse_token_count(prompt_details.get("cached_tokens")) or 0,
        reasoning_tokens=parse_token_count(completion_details.get("reasoning_tokens")) or 0,
        cost_nano=parse_cost(value.get("cost")),
        raw=encode(value),
    )


def parse_token_count(value: object) -> int | None:
    """Return a reported number of tokens, or None if it is negative, huge or no number."""
    return value if type(value) is int and 0 <= value < 10**9 else None


def parse_cost(cost: object) -> int | None:
    """Return a reported cost in US dollars as nano-dollars, or None if it is no cost."""
    if (type(cost) is not float and type(cost) is not int) or not 0 <= cost < 1e6:
        return None
    scaled = cost * 1e9
    if scaled == int(scaled):
        return int(scaled)
    # Three decimals of a nano-dollar absorb the error of the binary fraction before rounding up.
    return ceil(round(scaled, 3))


def parse_failure(value: object, kind: FailureKind, status: int | None = None) -> UpstreamFailure:
    """Turn an upstream's `error` object into a failure, whatever its shape."""
    if not isinstance(value, dict):
        return UpstreamFailure(kind, str(value)[:500], status=status)
    metadata = coerce_object(value.get("metadata"))
    code = value.get("code")
    if not isinstance(code, int):
        code = int(code) if isinstance(code, str) and code.isdigit() else status
    message = value.get("message")
    message = message if isinstance(message, str) and message else "the provider returned an error"
    raw = metadata.get("raw")
    if isinstance(raw, str) and raw and raw not in message:
        message = f"{message}: {raw}"
    provider = metadata.get("provider_name")
    wait = coerce_object(value.get("availability")).get("retry_after")
    error_type = metadata.get("error_type") or value.get("type") or value.get("code")
    if metadata.get("reasons") or metadata.get("patterns"):
        # Findings of a filter, whatever the error calls itself.
        error_type = "moderation"
    return UpstreamFailure(
        kind,
        message[:1000],
        status=code if code and 400 <= code < 600 else status or 502,
        error_type=error_type if isinstance(error_type, str) else None,
        retry_after=float(wait) if isinstance(wait, int | float) else None,
        provider=provider if isinstance(provider, str) else None,
    )
