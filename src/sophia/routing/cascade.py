"""Whether to ask a better model after an answer was checked: chances and the break-even, pure.

An answer starts with the chance that was expected of its model; each check moves the odds by how
much more often good answers pass it than bad ones. Escalating pays when the gain in that chance,
at the value of a good answer, is more than the next attempt is expected to cost.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct


class Reliability(Struct, frozen=True):
    """How a check speaks: the shares of good (`hit`) and of bad (`slip`) answers that pass it."""

    hit: float
    slip: float


# Our judgement. Passing the cheap checks says little, since most bad answers are well formed;
# failing one says nearly all, since a caller can hardly use such an answer.
RELIABILITIES: Mapping[str, Reliability] = {
    "empty": Reliability(0.999, 0.97),
    "truncation": Reliability(0.98, 0.90),
    "refusal": Reliability(0.99, 0.85),
    "schema": Reliability(0.998, 0.80),
    "tool_call": Reliability(0.998, 0.80),
    "rubric": Reliability(0.80, 0.30),
    "webhook": Reliability(0.95, 0.05),
}

LIKENESS = 0.3
"""Correlation between two models' success on one request, within its task: the mean of the tables
that Sophia's priors come from is 0.28. What one model fails at is harder for the next one, too."""

VALUE_IN_BEST = 10
"""A good answer's worth over the best candidate's cost, where nothing else is set."""

_LEAST, _MOST = 0.01, 0.99


class Signal(Struct, frozen=True):
    """What one check said: `value` from 0 (failed) to 1 (passed)."""

    check: str
    value: float


class Standby(Struct, frozen=True):
    """A model that may be asked next: the chance that it does well, and its nano-dollars.

    `held` is the most that it can cost after its answer was clamped to `max_tokens`.
    """

    model: str
    quality: float
    expected: int
    held: int
    max_tokens: int | None = None


class Stakes(Struct, frozen=True):
    """What a good answer is worth in place of a bad one, and what may still be spent (None: all).

    Both in nano-dollars.
    """

    value: int
    left: int | None = None


def chance(
    expected: float,
    signals: Iterable[Signal],
    reliabilities: Mapping[str, Reliability] = RELIABILITIES,
) -> float:
    """Return the chance that an answer is good, from what was expected of it and its checks.

    Checks are taken to err independently; one that is not in `reliabilities` is not heard. A check
    that no good answer fails, or no bad one passes, decides alone; failing goes before passing.
    """
    prior = min(max(expected, _LEAST), _MOST)
    odds = math.log(prior / (1 - prior))
    for signal in signals:
        known = reliabilities.get(signal.check)
        if known is not None:
            odds += _evidence(signal.value, known)
    if odds == -math.inf or math.isnan(odds):
        return 0.0
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0


def after(other: float, quality: float, good: float, likeness: float = LIKENESS) -> float:
    """Return the chance that another model does well, once the first one's answer is known.

    Args:
        other: what was expected of the other model.
        quality: what was expected of the first.
        good: the chance that the first one's answer is good, now that it was checked.
        likeness: the correlation between the two models' success on one request.
    """
    first, second = (min(max(one, _LEAST), _MOST) for one in (quality, other))
    spread = math.sqrt(first * (1 - first) * second * (1 - second))
    both = min(max(first * second + likeness * spread, first + second - 1, 0.0), first, second)
    when_good, when_bad = both / first, (second - both) / (1 - first)
    return good * when_good + (1 - good) * when_bad


def break_even(standby: Standby, value: int) -> float:
    """Return the chance of a good answer below which asking `standby` pays."""
    return standby.quality - (standby.expected / value if value else math.inf)


def escalate(good: float, standbys: Sequence[Standby], stakes: Stakes) -> Standby | None:
    """Return whom to ask after an answer that is good with chance `good`, or None to keep it.

    It is the one that gains most above its break-even among those whose worst case is paid for.
    """
    best, most = None, good
    for standby in standbys:
        if stakes.left is not None and standby.held > stakes.left:
            continue
        worth = break_even(standby, stakes.value)
        if worth > most:
            best, most = standby, worth
    return best


def _evidence(value: float, known: Reliability) -> float:
    odds = 0.0
    if value < 1:
        odds += (1 - value) * _log_ratio(1 - known.hit, 1 - known.slip)
    if value > 0 and odds > -math.inf:
        odds += value * _log_ratio(known.hit, known.slip)
    return odds


def _log_ratio(good: float, bad: float) -> float:
    """Return how much more often good answers do it than bad ones, as a logarithm."""
    if good <= 0:
        return -math.inf
    return math.inf if bad <= 0 else math.log(good / bad)
