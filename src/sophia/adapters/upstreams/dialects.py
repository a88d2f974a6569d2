"""What a request body looks like for each kind of upstream."""

from collections.abc import Callable

import msgspec

from sophia.adapters.upstreams import shapes
from sophia.core.calls import Call, PriceCeiling

Dialect = Callable[[Call], bytes]

_LIMITS = ("max_tokens", "max_completion_tokens")
_SOPHIAS_OWN = ("models", "route")
"""Failover lists are walked by Sophia, attempt by attempt, so that each attempt is paid for."""
_REMEMBERED = 4096
_OPENROUTERS_OWN = ("provider", "transforms", "plugins", "usage", "session_id", "trace")


class OpenRouter:
    """Bodies for OpenRouter: the client's fields and the ceiling on what a provider may charge."""

    def __init__(self) -> None:
        self._ceilings: dict[PriceCeiling, msgspec.Raw] = {}

    def __call__(self, call: Call) -> bytes:
        """Return the body of `call`."""
        fields = _common(call)
        ceiling = call.price_ceiling
        if ceiling is not None:
            given = fields.get("provider")
            fields["provider"] = (
                self._alone(ceiling) if given is None else _with_ceiling(given, ceiling)
            )
        return shapes.encode(fields)

    def _alone(self, ceiling: PriceCeiling) -> msgspec.Raw:
        """Return a provider object with nothing but the ceiling, encoded once for each ceiling."""
        known = self._ceilings.get(ceiling)
        if known is None:
            if len(self._ceilings) >= _REMEMBERED:
                self._ceilings.clear()
            known = msgspec.Raw(shapes.encode(_with_ceiling(None, ceiling)))
            self._ceilings[ceiling] = known
        return known


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
        for name in _LIMITS:
            if name in fields:
                fields[name] = call.max_tokens
        fields[call.max_tokens_field] = call.max_tokens
    return fields


def _with_ceiling(given: object, ceiling: PriceCeiling) -> dict[str, object]:
    provider = _object(given)
    limits = _object(provider.get("max_price"))
    for name, nano in (("prompt", ceiling.prompt), ("completion", ceiling.completion)):
        ours = nano / 1e9
        theirs = _number(limits.get(name))
        limits[name] = ours if theirs is None else min(theirs, ours)
    return {**provider, "max_price": limits}


def _number(given: object) -> float | None:
    """Return a price as OpenRouter takes it: a number, or a number as text."""
    if isinstance(given, str):
        try:
            return float(given)
        except ValueError:
            return None
    return given if isinstance(given, int | float) else None


def _object(value: object) -> dict[str, object]:
    if isinstance(value, msgspec.Raw):
        value = msgspec.json.decode(value)
    return dict(value) if isinstance(value, dict) else {}
