"""What a request body looks like for each kind of upstream."""

from collections.abc import Callable

import msgspec

from sophia.adapters.upstreams import shapes
from sophia.core.calls import Call, PriceCeiling

Dialect = Callable[[Call], bytes]

_SOPHIAS_OWN = ("models", "route")
"""Failover lists are walked by Sophia, attempt by attempt, so that each attempt is paid for."""
_OPENROUTERS_OWN = ("provider", "transforms", "plugins", "usage", "session_id", "trace")


def openrouter(call: Call) -> bytes:
    """Body for OpenRouter: the client's fields and the ceiling on what a provider may charge."""
    fields = _common(call)
    if call.price_ceiling is not None:
        fields["provider"] = _with_ceiling(fields.get("provider"), call.price_ceiling)
    return shapes.encode(fields)


def openai_compatible(call: Call) -> bytes:
    """Body for any other OpenAI-shaped server: asks for usage, without OpenRouter's own fields."""
    fields = _common(call)
    for name in _OPENROUTERS_OWN:
        fields.pop(name, None)
    if call.stream:
        options = _object(fields.get("stream_options"))
        fields["stream_options"] = {**options, "include_usage": True}
    return shapes.encode(fields)


def _common(call: Call) -> dict[str, object]:
    fields = dict(call.fields)
    for name in _SOPHIAS_OWN:
        fields.pop(name, None)
    fields["model"] = call.model
    if call.stream:
        fields["stream"] = True
    if call.max_tokens is not None:
        fields[call.max_tokens_field] = call.max_tokens
    return fields


def _with_ceiling(given: object, ceiling: PriceCeiling) -> dict[str, object]:
    provider = _object(given)
    limits = _object(provider.get("max_price"))
    for name, nano in (("prompt", ceiling.prompt), ("completion", ceiling.completion)):
        ours = nano / 1e9
        theirs = limits.get(name)
        limits[name] = min(theirs, ours) if isinstance(theirs, int | float) else ours
    return {**provider, "max_price": limits}


def _object(value: object) -> dict[str, object]:
    if isinstance(value, msgspec.Raw):
        value = msgspec.json.decode(value)
    return dict(value) if isinstance(value, dict) else {}
