"""The call mode of a request: its reasoning effort and its preference of providers."""

from contextlib import suppress

import msgspec

from sophia.http.v1.bodies import ChatBody

# Reasoning tokens up to which an effort is low, and from which it is high.
_LOW_EFFORT_TOKENS, _HIGH_EFFORT_TOKENS = 2_048, 16_384
_EFFORTS = {"minimal": "low", "low": "low", "high": "high", "xhigh": "high", "max": "high"}
_PROVIDER_SORTS = {"price": "price", "throughput": "fast", "latency": "fast", "exacto": "chosen"}
_PROVIDER_FILTERS = ("order", "only", "ignore", "quantizations")


def parse_call_mode(body: ChatBody) -> tuple[bool, str, str]:
    """Return whether reasoning is requested, its effort, and the preference of providers.

    The effort is `low`, `high` or empty for the usual; the preference is `price`, `fast`, `chosen`
    or empty. Fields that make no sense are left to the upstream.
    """
    if body.reasoning is None and body.reasoning_effort is None and body.provider is None:
        return False, "", ""
    preference = _parse_provider_preference(_decode_fields(body.provider or {}))
    reasoning = _decode_fields(body.reasoning or {})
    word = reasoning.get("effort", body.reasoning_effort)
    tokens = reasoning.get("max_tokens")
    requested = body.reasoning is not None or word is not None
    if not requested or word == "none" or reasoning.get("enabled") is False or tokens == 0:
        return False, "", preference
    effort = _EFFORTS.get(word, "") if isinstance(word, str) else ""
    if not effort and isinstance(tokens, int):
        if tokens <= _LOW_EFFORT_TOKENS:
            effort = "low"
        elif tokens >= _HIGH_EFFORT_TOKENS:
            effort = "high"
    return True, effort, preference


def _parse_provider_preference(provider: dict[str, object]) -> str:
    sort = provider.get("sort")
    if isinstance(sort, dict):
        sort = sort.get("by")
    if isinstance(sort, str) and sort in _PROVIDER_SORTS:
        return _PROVIDER_SORTS[sort]
    return "chosen" if any(provider.get(name) for name in _PROVIDER_FILTERS) else ""


def _decode_fields(fields: dict[str, msgspec.Raw]) -> dict[str, object]:
    decoded: dict[str, object] = {}
    for name, raw in fields.items():
        with suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            decoded[name] = msgspec.json.decode(raw)
    return decoded
