"""Request bodies for each kind of upstream."""

from collections.abc import Callable
from functools import lru_cache

import msgspec

from sophia.adapters.upstreams import shapes
from sophia.config import ProviderSettings
from sophia.core.calls import PriceCeiling, UpstreamCall

Dialect = Callable[[UpstreamCall], bytes]

_MAX_TOKENS_FIELDS = ("max_tokens", "max_completion_tokens")
_NOT_FORWARDED = ("models", "route")
"""Failover lists: Sophia makes the attempts itself, so that each has its own reservation."""
_CEILING_CACHE_SIZE = 4096
_OPENROUTER_ONLY = ("provider", "transforms", "plugins", "usage", "session_id", "trace")


def build_openrouter_dialect(allowed: ProviderSettings) -> Dialect:
    """Return the dialect of OpenRouter that restricts every request to `allowed` providers."""
    if allowed == ProviderSettings():
        return encode_openrouter

    def encode(call: UpstreamCall) -> bytes:
        return encode_openrouter(call, allowed)

    return encode


def encode_openrouter(call: UpstreamCall, allowed: ProviderSettings | None = None) -> bytes:
    """Return the body for OpenRouter: the client's fields, with limits on price and providers."""
    fields = _common_fields(call)
    if allowed is not None:
        fields["provider"] = _with_allowed(fields.get("provider"), allowed)
    ceiling, provider = call.price_ceiling, fields.get("provider")
    if ceiling is not None:
        fields["provider"] = (
            _encode_ceiling(ceiling) if provider is None else _with_ceiling(provider, ceiling)
        )
    return shapes.encode(fields)


@lru_cache(_CEILING_CACHE_SIZE)
def _encode_ceiling(ceiling: PriceCeiling) -> msgspec.Raw:
    """Return a provider object with only the ceiling."""
    return msgspec.Raw(shapes.encode(_with_ceiling(None, ceiling)))


def encode_openai_compatible(call: UpstreamCall) -> bytes:
    """Return the body for any other server: with usage in streams, without OpenRouter's fields."""
    fields = _common_fields(call)
    for name in _OPENROUTER_ONLY:
        fields.pop(name, None)
    if call.stream:
        options = shapes.coerce_object(fields.get("stream_options"))
        fields["stream_options"] = {**options, "include_usage": True}
    return shapes.encode(fields)


def _common_fields(call: UpstreamCall) -> dict[str, object]:
    fields = dict(call.fields)
    for name in _NOT_FORWARDED:
        fields.pop(name, None)
    fields["model"] = call.model
    if call.stream:
        fields["stream"] = True
    if call.max_tokens is not None:
        for name in _MAX_TOKENS_FIELDS:
            if name in fields:
                fields[name] = call.max_tokens
        fields[call.max_tokens_field] = call.max_tokens
    return fields


def _with_allowed(provider: object, allowed: ProviderSettings) -> dict[str, object]:
    """Return the caller's provider preferences, narrowed to what the settings allow."""
    fields = shapes.coerce_object(provider)
    if allowed.zdr:
        fields["zdr"] = True
    if allowed.no_training:
        fields["data_collection"] = "deny"
    if allowed.only:
        wanted = _parse_names(fields.get("only"))
        both = [one for one in allowed.only if not wanted or one in wanted]
        fields["only"] = both or list(allowed.only)
        if not both:
            # A request that wants none of the allowed providers gets no answer, not another one.
            fields["ignore"] = list(allowed.only)
    if allowed.ignore:
        ignored = _parse_names(fields.get("ignore"))
        fields["ignore"] = list(dict.fromkeys([*ignored, *allowed.ignore]))
    return fields


def _parse_names(names: object) -> list[str]:
    return [one for one in names if isinstance(one, str)] if isinstance(names, list) else []


def _with_ceiling(provider: object, ceiling: PriceCeiling) -> dict[str, object]:
    fields = shapes.coerce_object(provider)
    limits = shapes.coerce_object(fields.get("max_price"))
    for name, nano in (("prompt", ceiling.prompt), ("completion", ceiling.completion)):
        requested = _parse_price(limits.get(name))
        limits[name] = nano / 1e9 if requested is None else min(requested, nano / 1e9)
    return {**fields, "max_price": limits}


def _parse_price(price: object) -> float | None:
    """Return a price as OpenRouter accepts it: a number, or a number as text."""
    if isinstance(price, str):
        try:
            return float(price)
        except ValueError:
            return None
    return price if isinstance(price, int | float) else None
