"""Request bodies for each kind of upstream."""

import math
import re
from collections.abc import Callable
from functools import lru_cache

import msgspec

from sophia.adapters.upstreams.json_text import coerce_object, encode
from sophia.config import ProviderSettings
from sophia.core.calls import PriceCeiling, UpstreamCall

Dialect = Callable[[UpstreamCall, frozenset[str]], bytes]
"""Builds a request body without the fields that the upstream is known to refuse."""

MAX_TOKENS_FIELDS = ("max_tokens", "max_completion_tokens")
_NOT_FORWARDED = ("models", "route")
"""Failover lists: Sophia makes the attempts itself, so that each has its own reservation."""
_CEILING_CACHE_SIZE = 4096
_OPENROUTER_ONLY = (
    *("provider", "transforms", "plugins", "usage", "session_id", "trace", "preset"),
    *("reasoning", "include_reasoning"),
)
ADAPTABLE_FIELDS = frozenset({"stream_options", *MAX_TOKENS_FIELDS})
"""Fields that Sophia itself adds or can rename, so that a refusal need not fail a request."""
_REFUSAL_WORDS = (
    *("unsupported", "not supported", "does not support", "unrecognized", "unknown", "unexpected"),
    *("extra ", "not permitted", "not allowed", "not accept", "invalid parameter"),
)
_SENTENCE_END = re.compile(r"[.;!]\s|\n")
_FIELD = re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(ADAPTABLE_FIELDS))})(?![\w-])")
_ADVICE = re.compile(r"\b(?:use|instead|did you mean|expected)\b")
_VALUE = re.compile(
    r"tokens\W{1,4}\d|\b(?:values?|at most|at least|maximum|minimum|must be|exceeds?|between"
    r"|too (?:large|high|long|many|small)|(?:less|greater|more|higher|larger) than)\b"
)
"""Signs that a value is refused, and not the field."""


def build_openrouter_dialect(allowed: ProviderSettings) -> Dialect:
    """Return the dialect of OpenRouter that restricts every request to `allowed` providers."""
    if allowed == ProviderSettings():
        return encode_openrouter

    def encode_restricted(call: UpstreamCall, refused: frozenset[str]) -> bytes:
        return encode_openrouter(call, refused, allowed)

    return encode_restricted


def encode_openrouter(
    call: UpstreamCall, refused: frozenset[str], allowed: ProviderSettings | None = None
) -> bytes:
    """Return the body for OpenRouter: the client's fields, with limits on price and providers."""
    fields = _common_fields(call, refused)
    if allowed is not None:
        fields["provider"] = _with_allowed(fields.get("provider"), allowed)
    ceiling, provider = call.price_ceiling, fields.get("provider")
    if ceiling is not None:
        fields["provider"] = (
            _encode_ceiling(ceiling) if provider is None else _with_ceiling(provider, ceiling)
        )
    return encode(fields)


@lru_cache(_CEILING_CACHE_SIZE)
def _encode_ceiling(ceiling: PriceCeiling) -> msgspec.Raw:
    """Return a provider object with only the ceiling."""
    return msgspec.Raw(encode(_with_ceiling(None, ceiling)))


def build_openai_dialect(drop: tuple[str, ...], *, ask_usage: bool) -> Dialect:
    """Return the dialect of any other server: without OpenRouter's fields and those to `drop`.

    With `ask_usage` streams ask for their usage, which OpenAI sends on request only.
    """

    def encode_compatible(call: UpstreamCall, refused: frozenset[str]) -> bytes:
        fields = _common_fields(call, refused)
        effort = coerce_object(fields.get("reasoning")).get("effort")
        if isinstance(effort, str):
            fields.setdefault("reasoning_effort", effort)
        for name in (*_OPENROUTER_ONLY, *drop):
            fields.pop(name, None)
        if "stream_options" in refused:
            fields.pop("stream_options", None)
        elif call.stream and ask_usage and "stream_options" not in drop:
            options = coerce_object(fields.get("stream_options"))
            fields["stream_options"] = {**options, "include_usage": True}
        return encode(fields)

    return encode_compatible


def find_refused_fields(message: str) -> frozenset[str]:
    """Return the fields of `ADAPTABLE_FIELDS` that an upstream's error says it does not know.

    A complaint about a value is none, and neither is the name to use instead.
    """
    text = message.lower()
    if not any(words in text for words in _REFUSAL_WORDS) or _VALUE.search(text):
        return frozenset()
    parts = [_ADVICE.split(sentence)[0] for sentence in _SENTENCE_END.split(text)]
    return frozenset(name for part in parts for name in _FIELD.findall(part))


def find_token_limit(call: UpstreamCall) -> int | None:
    """Return the most tokens of a choice that a call asks for, None without a limit."""
    if call.max_tokens is not None:
        return call.max_tokens
    given = [call.fields.get(name) for name in MAX_TOKENS_FIELDS]
    found = [msgspec.json.decode(raw) for raw in given if isinstance(raw, msgspec.Raw)]
    return max((limit for limit in found if isinstance(limit, int)), default=None)


def _common_fields(call: UpstreamCall, refused: frozenset[str]) -> dict[str, object]:
    fields = dict(call.fields)
    for name in _NOT_FORWARDED:
        fields.pop(name, None)
    fields["model"] = call.model
    if call.stream:
        fields["stream"] = True
    if call.max_tokens is not None:
        _limit_answer(fields, call.max_tokens, call.max_tokens_field)
    if refused.issuperset(MAX_TOKENS_FIELDS):
        return fields
    for name, other in (MAX_TOKENS_FIELDS, MAX_TOKENS_FIELDS[::-1]):
        if name in refused and (value := fields.pop(name, None)) is not None:
            fields.setdefault(other, value)
    return fields


def _limit_answer(fields: dict[str, object], limit: int, default: str) -> None:
    """Set the limit where the caller set one, else as `default`; null is no limit."""
    given = [name for name in MAX_TOKENS_FIELDS if not _is_null(fields.get(name))]
    for name in MAX_TOKENS_FIELDS:
        fields.pop(name, None)
    for name in given or [default]:
        fields[name] = limit


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, msgspec.Raw) and bytes(value) == b"null")


def _with_allowed(provider: object, allowed: ProviderSettings) -> dict[str, object]:
    """Return the caller's provider preferences, narrowed to what the settings allow."""
    fields = coerce_object(provider)
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
    fields = coerce_object(provider)
    limits = coerce_object(fields.get("max_price"))
    for name, nano in (("prompt", ceiling.prompt), ("completion", ceiling.completion)):
        requested = _parse_price(limits.get(name))
        limits[name] = nano / 1e9 if requested is None else min(requested, nano / 1e9)
    return {**fields, "max_price": limits}


def _parse_price(price: object) -> float | None:
    """Return a price as OpenRouter accepts it, a number or one as text; None for any other."""
    if isinstance(price, bool) or not isinstance(price, str | int | float):
        return None
    try:
        number = float(price)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None
