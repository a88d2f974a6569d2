"""Keeps spending on pace: a price on money that rises when too much is spent, and falls again."""

import math

from msgspec import Struct


class Pace(Struct, frozen=True):
    """How a pacer reacts.

    Attributes:
        gain: what an excess of spending by the factor e adds to the logarithm of the price.
        haste: what is added to the gain at first, and fades away within the horizon.
        horizon: the number of answers over which spending is averaged.
        cap: the largest excess or saving, as a logarithm, that is reacted to at once.
        start: the price that a budget which turns out to bind begins with; below, it is nought.
        ceiling: the highest price, in units of quality per reference cost.
    """

    gain: float = 0.02
    haste: float = 0.12
    horizon: float = 50.0
    cap: float = 1.0
    start: float = 0.002
    ceiling: float = 50.0


class Pacing(Struct, frozen=True):
    """The state of one window: the price in force, and what answers cost lately on average.

    `price` is to be added to `Taste.price`. `average` is in the unit of the costs, `weight` the
    share of it that stands on answers, from 0 to 1.
    """

    price: float = 0.02
    average: float = 0.0
    weight: float = 0.0


def pace(state: Pacing, cost: float, target: float, settings: Pace) -> Pacing:
    """Return the state after an answer of `cost`, when `target` per answer is to be spent.

    The price does not wind up: it stays between nought and the ceiling, whatever is over- or
    underspent, and so it is soon back when things change.
    """
    part = 1.0 / settings.horizon
    average = state.average + part * (cost - state.average)
    weight = state.weight + part * (1.0 - state.weight)
    excess = settings.cap
    if target > 0.0:
        ratio = max(average / weight / target, 1e-9)
        excess = min(max(math.log(ratio), -settings.cap), settings.cap)
    gain = settings.gain + settings.haste * (1.0 - weight)
    price = max(state.price, settings.start) * math.exp(gain * excess)
    if price < settings.start:
        price = 0.0
    return Pacing(min(price, settings.ceiling), average, weight)


def target_of(remaining: float, answers_left: float, usual: float) -> float:
    """Return what an answer may cost on average to use up `remaining` by the window's end.

    Args:
        remaining: the money left in the window, reservations taken off.
        answers_left: the number of answers still expected in the window.
        usual: the whole window's money over all its answers; the target keeps to between a third
            of it and thrice as much, so that the end of a window is not a jolt.
    """
    even = remaining / max(answers_left, 1.0)
    return min(max(even, usual / 3.0), 3.0 * usual)


def affordable(cost: float, remaining: float, target: float, patience: float = 30.0) -> bool:
    """Say whether an arm of `cost` may be explored: within what remains, and `patience` targets."""
    return cost <= remaining and cost <= patience * target
