"""Keeps spending on pace: a price on money that rises when too much is spent, and falls again."""

import math

from msgspec import Struct


class Pace(Struct, frozen=True):
    """How a pacer reacts.

    Attributes:
        gain: how strongly the price moves with the logarithm of spending over target.
        horizon: the number of requests over which spending is averaged.
        ceiling: the highest price, in units of quality per reference cost.
        floor: the lowest price that is not nought; from below it, it takes `start` to begin.
        carry: the share of what was over- or underspent so far that the next `horizon` requests
            should make good, from 0 to 1.
    """

    gain: float = 0.08
    horizon: float = 60.0
    ceiling: float = 30.0
    floor: float = 0.003
    carry: float = 0.6


class Pacing(Struct, frozen=True):
    """The state of one window: `price` is in force now, the rest is what it is worked out from.

    Costs are in any one unit. `price` multiplies cost over reference cost in the utility.
    """

    price: float = 0.0
    average: float = 0.0
    weight: float = 0.0
    spent: float = 0.0
    requests: int = 0
    owed: float = 0.0


def pace(state: Pacing, cost: float, target: float, settings: Pace) -> Pacing:
    """Return the state after an answer of `cost`, when `target` per answer is to be spent.

    Windup is held off twice: the price stays within its bounds, and what is made good of the past
    is at most as much again as the target.
    """
    keep = 1.0 - 1.0 / settings.horizon
    average = keep * state.average + (1.0 - keep) * cost
    weight = keep * state.weight + (1.0 - keep)
    limit = target * settings.horizon
    owed = min(max(state.owed + target - cost, -limit), limit)
    wanted = target + settings.carry * owed / settings.horizon
    price = _moved(state.price, average / weight / max(wanted, 0.05 * target), settings)
    return Pacing(price, average, weight, state.spent + cost, state.requests + 1, owed)


def target_of(remaining: float, share_left: float, expected: float) -> float:
    """Return what an answer may cost on average to use up `remaining` by the window's end.

    Args:
        remaining: the money left in the window, reservations taken off.
        share_left: how much of the window is left, from 0 to 1.
        expected: the number of answers expected in a whole window.
    """
    return max(remaining, 0.0) / max(share_left * expected, 1.0)


def affordable(cost: float, remaining: float, target: float, patience: float = 20.0) -> bool:
    """Say whether trying an arm of `cost` fits: within what remains, and `patience` targets."""
    return cost <= remaining and cost <= patience * target


def _moved(price: float, ratio: float, settings: Pace) -> float:
    step = settings.gain * min(max(math.log(max(ratio, 1e-6)), -1.0), 1.0)
    if price <= 0.0:
        return settings.floor if step > 0.0 else 0.0
    moved = price * math.exp(step)
    return 0.0 if moved < settings.floor else min(moved, settings.ceiling)
