"""Budget pacing: a price on cost that rises while spending is ahead of its target."""

import math

from msgspec import Struct

GAIN, INITIAL_GAIN = 0.02, 0.12
"""Increase of the log-price per unit of log-excess; the second is added at first and fades away."""
HORIZON_ANSWERS = 50.0
"""The number of answers over which spending is averaged."""
MAX_LOG_EXCESS = 1.0
"""The largest excess or saving, as a logarithm, that one step reacts to."""
MIN_PRICE, MAX_PRICE = 0.002, 50.0
"""Bounds of a price above 0, in units of quality per reference cost."""


class PacingState(Struct, frozen=True):
    """The state of one budget.

    `price` is added to `UtilityWeights.cost`; `average_cost` is in the unit of the costs, and
    `weight` is the share of it that comes from answers, from 0 to 1.
    """

    price: float = 0.0
    average_cost: float = 0.0
    weight: float = 0.0


def update_pacing(state: PacingState, cost: float, target: float) -> PacingState:
    """Return the state after an answer of `cost`, where `target` is the cost per answer to reach.

    The price is bounded whatever is over- or underspent, so it recovers soon after a change.
    """
    part = 1.0 / HORIZON_ANSWERS
    average = state.average_cost + part * (cost - state.average_cost)
    weight = state.weight + part * (1.0 - state.weight)
    excess = MAX_LOG_EXCESS
    if target > 0.0:
        ratio = max(average / weight / target, 1e-9)
        excess = min(max(math.log(ratio), -MAX_LOG_EXCESS), MAX_LOG_EXCESS)
    gain = GAIN + INITIAL_GAIN * (1.0 - weight)
    price = max(state.price, MIN_PRICE) * math.exp(gain * excess)
    if price < MIN_PRICE:
        price = 0.0
    return PacingState(min(price, MAX_PRICE), average, weight)
