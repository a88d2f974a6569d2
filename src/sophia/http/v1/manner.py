"""In what manner a request wants to be answered: how much reasoning, and whose hardware."""

from contextlib import suppress
from typing import NamedTuple

import msgspec

from sophia.http.v1.bodies import ChatBody

LITTLE, MUCH = 2_048, 16_384
"""Tokens to reason with, up to which an effort is low, and from which it is high."""

_EFFORTS = {"minimal": "low", "low": "low", "high": "high", "xhigh": "high", "max": "high"}
_SORTS = {"price": "price", "throughput": "fast", "latency": "fast", "exacto": "chosen"}
_CHOOSING = ("order", "only", "ignore", "quantizations")

_json = msgspec.json.Decoder()


class Manner(NamedTuple):
    """Whether reasoning is asked for, with what effort, and how providers are chosen.

    `effort` is `low`, `high` or empty for what is usual; `providers` is `price`, `fast`, `chosen`
    or empty.
    """

    reasoning: bool = False
    effort: str = ""
    providers: str = ""


PLAIN = Manner()


def manner_of(read: ChatBody) -> Manner:
    """Return the manner of a request; what is not understood of it is the upstream's to judge."""
    if read.reasoning is None and read.reasoning_effort is None and read.provider is None:
        return PLAIN
    providers = "" if read.provider is None else _providers(_plain(read.provider))
    told = _plain(read.reasoning or {})
    word = told.get("effort", read.reasoning_effort)
    tokens = told.get("max_tokens")
    asked = read.reasoning is not None or word is not None
    if not asked or word == "none" or told.get("enabled") is False or tokens == 0:
        return Manner(providers=providers)
    effort = _EFFORTS.get(word, "") if isinstance(word, str) else ""
    if not effort and isinstance(tokens, int):
        effort = "low" if tokens <= LITTLE else "high" if tokens >= MUCH else ""
    return Manner(True, effort, providers)


def _providers(told: dict[str, object]) -> str:
    sort = told.get("sort")
    if isinstance(sort, dict):
        sort = sort.get("by")
    if isinstance(sort, str) and sort in _SORTS:
        return _SORTS[sort]
    return "chosen" if any(told.get(name) for name in _CHOOSING) else ""


def _plain(fields: dict[str, msgspec.Raw]) -> dict[str, object]:
    told: dict[str, object] = {}
    for name, raw in fields.items():
        with suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            told[name] = _json.decode(raw)
    return told
