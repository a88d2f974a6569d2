"""Raw feedback sifted into votes: replays, strangers and the too late are out, the last word wins.

A signal counts only for a decision of its own tenant. Whoever changes their mind is heard with
their last word, and less with every turn; saying the same again adds nothing.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Literal

from msgspec import Struct

from sophia.learning.channels import CHANNELS, Channel, Vote

LATEST_MS = 30 * 86_400_000
"""Feedback that comes more than thirty days after its decision is not learned from."""

Refusal = Literal["replayed", "unknown decision", "foreign", "late", "unknown channel", "no score"]


class Decided(Struct, frozen=True):
    """What feedback may refer to: a decision, whose it was, and what was expected of the arm."""

    id: int
    tenant: str
    arm: str
    at_ms: int
    expected: float = 0.5


class Signal(Struct, frozen=True):
    """One piece of feedback as it came in; `value` runs from 0 (bad) to 1 (good).

    `tenant` is who the key belongs to that sent it, whatever decision it names.
    """

    idempotency: str
    decision: int
    tenant: str
    key: str
    channel: str
    value: float
    at_ms: int


class Sifted(Struct, frozen=True):
    """What is left: the votes of each decision, who cast them, and why the others do not count."""

    votes: dict[int, tuple[Vote, ...]]
    keys: dict[int, tuple[str, ...]]
    refused: tuple[tuple[Signal, Refusal], ...]


def sift(
    signals: Iterable[Signal],
    decisions: Mapping[int, Decided],
    channels: Mapping[str, Channel] = CHANNELS,
) -> Sifted:
    """Return the votes that `signals`, in any order, cast on `decisions`.

    One decision gets at most one vote per channel, however many signals and keys there are.
    """
    refused: list[tuple[Signal, Refusal]] = []
    seen: set[tuple[str, str]] = set()
    said: dict[tuple[int, str], dict[str, list[Signal]]] = {}
    for signal in sorted(signals, key=lambda one: (one.at_ms, one.idempotency)):
        reason = _reason(signal, decisions, channels, seen)
        if reason:
            refused.append((signal, reason))
            continue
        seen.add((signal.tenant, signal.idempotency))
        by_key = said.setdefault((signal.decision, signal.channel), {})
        by_key.setdefault(signal.key, []).append(signal)
    votes: dict[int, tuple[Vote, ...]] = {}
    keys: dict[int, tuple[str, ...]] = {}
    for (decision, channel), by_key in sorted(said.items()):
        votes[decision] = (*votes.get(decision, ()), _vote(channel, by_key))
        keys[decision] = tuple(sorted({*keys.get(decision, ()), *by_key}))
    return Sifted(votes, keys, tuple(refused))


def _reason(
    signal: Signal,
    decisions: Mapping[int, Decided],
    channels: Mapping[str, Channel],
    seen: set[tuple[str, str]],
) -> Refusal | None:
    decided = decisions.get(signal.decision)
    if decided is None:
        return "unknown decision"
    if decided.tenant != signal.tenant:
        return "foreign"
    if (signal.tenant, signal.idempotency) in seen:
        return "replayed"
    if not 0 <= signal.at_ms - decided.at_ms <= LATEST_MS:
        return "late"
    if signal.channel not in channels:
        return "unknown channel"
    return None if 0 <= signal.value <= 1 else "no score"


def _vote(channel: str, by_key: Mapping[str, list[Signal]]) -> Vote:
    """Join what the keys of one tenant say: the mean of their last words, weaker by each turn."""
    words = [(said[-1].value, _steadiness(said)) for said in by_key.values()]
    total = sum(steadiness for _, steadiness in words)
    value = sum(value * steadiness for value, steadiness in words) / total
    return Vote(channel, value, total / len(words))


def _steadiness(said: list[Signal]) -> float:
    turned = sum(abs(b.value - a.value) for a, b in pairwise(said))
    return 1 / (1 + turned)
