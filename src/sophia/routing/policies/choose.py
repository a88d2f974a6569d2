"""The choice among rated arms: what each is worth, and with what exact probability it is taken."""

import math
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.routing.normal import signed_normal
from sophia.routing.policies.policy import Ratings, Vector

Mode = Literal["off", "softmax", "thompson"]
Dial = Literal["cheap", "balanced", "best"] | float

DIAL: dict[str, float] = {"cheap": 0.0, "balanced": 5.0, "best": 10.0}
BALANCED_PRICE = 0.1
NODES = 64
REACH = 4.0
LEAST_SD = 1e-4
LEAST_PROPENSITY = 1e-9

_SINGLE = np.float32
_STEPS = np.arange(-1, NODES + 2, dtype=_SINGLE)
_LEAST_BELOW = _SINGLE(1e-12)


class Taste(Struct, frozen=True):
    """What the caller's money, time and conversation are worth, in units of quality (0 to 1).

    Attributes:
        price: quality given up for saving one `reference`; see `price_of`, times the pacer's.
        reference: what a usual answer of the best arm costs, in the unit of `Options.cost`.
        lateness: quality lost with an answer that comes too late.
        switching: quality lost by leaving the arm that the conversation is on.
        failing: quality lost with an attempt that fails, although another arm steps in.
    """

    price: float = BALANCED_PRICE
    reference: float = 1.0
    lateness: float = 0.0
    switching: float = 0.0
    failing: float = 0.0


class Exploration(Struct, frozen=True):
    """How far the choice may depart from the arm that looks best.

    Attributes:
        mode: `off` takes the best; `softmax` by utility over `temperature`; `thompson` takes each
            arm with the probability that it is the best one, as far as is known.
        temperature: utility by which an arm is e times less likely under `softmax`.
        boldness: what the sd is multiplied by under `thompson`.
        floor: the probability shared evenly by the explorable arms, from 0 to 1.
        share: the most that all arms but the best-looking one may be taken with, from 0 to 1.
        extra: the most that exploring may add to the expected cost, as a share of the
            best-looking arm's cost.
    """

    mode: Mode = "thompson"
    temperature: float = 0.01
    boldness: float = 1.0
    floor: float = 0.0
    share: float = 1.0
    extra: float = math.inf


STILL = Exploration("off", extra=0.0)
"""Always take the arm that looks best."""


class Options(Struct, frozen=True):
    """The allowed arms of one request, which their order names.

    Attributes:
        ratings: the qualities and their sd, (A,) each.
        cost: shape (A,), the expected cost of an answer.
        explorable: shape (A,), which arms are healthy and cheap enough to be tried out.
        late: shape (A,), the probability that the answer comes too late; None: nobody is late.
        current: the arm that the conversation is on, if any.
        trial: the position of an arm on trial and the probability set aside for it, which no bound
            of `Exploration` limits; None: nobody is on trial.
        fail: shape (A,), the probability that the attempt fails; None: nobody fails.
    """

    ratings: Ratings
    cost: Vector
    explorable: NDArray[np.bool_]
    late: Vector | None = None
    current: int | None = None
    trial: tuple[int, float] | None = None
    fail: Vector | None = None


class Choice(Struct, frozen=True):
    """What was taken, and all that the probability of taking it rests on.

    Attributes:
        arm: the position of the arm that was taken.
        best: the position of the arm that looked best.
        utility: shape (A,), quality less the price of cost, lateness, failing and switching.
        propensities: shape (A,), the probabilities that the arm was drawn from; they sum to 1.
        extra_cost: what exploring adds to the expected cost, in the unit of `Options.cost`.
    """

    arm: int
    best: int
    utility: Vector
    propensities: Vector
    extra_cost: float

    @property
    def propensity(self) -> float:
        """The exact probability of the arm that was taken."""
        return float(self.propensities[self.arm])


def price_of(dial: Dial) -> float:
    """Return what `Taste.price` should be for a dial from 0 (cheap) to 10 (best).

    Each five steps are a factor of ten: at 0 saving one reference cost is worth the whole score,
    at 5 (balanced) 0.1, and at 10 0.01, so that cost still decides between equals.

    Raises:
        ValueError: the dial is not a known word or a number from 0 to 10.
    """
    position = DIAL.get(dial, math.nan) if isinstance(dial, str) else float(dial)
    if not 0.0 <= position <= 10.0:
        raise ValueError(f"the dial goes from 0 to 10 or is one of {', '.join(DIAL)}, not {dial!r}")
    return float(BALANCED_PRICE * 10.0 ** (1.0 - position / 5.0))


def utilities(options: Options, taste: Taste) -> Vector:
    """Return what each arm is worth, (A,), on the scale of quality."""
    worth = options.ratings.quality - (taste.price / taste.reference) * options.cost
    if options.late is not None and taste.lateness:
        worth = worth - taste.lateness * options.late
    if options.fail is not None and taste.failing:
        worth = worth - taste.failing * options.fail
    if options.current is not None and taste.switching:
        worth = worth - taste.switching
        worth[options.current] += taste.switching
    return worth


def choose(options: Options, taste: Taste, exploration: Exploration, draw: float) -> Choice:
    """Return the choice that `draw`, uniform in [0, 1), makes among `options`.

    The propensities are worked out first and drawn from after, so that they are exact.
    """
    worth = utilities(options, taste)
    best = int(worth.argmax())
    chances = _chances(options, worth, exploration)
    allowed = options.explorable.copy()
    allowed[best] = False
    chances = np.where(allowed, chances, 0.0)
    if exploration.floor > 0.0 and exploration.mode != "off":
        count = int(allowed.sum()) + int(options.explorable[best])
        if count:
            chances = chances * (1.0 - exploration.floor) + allowed * (exploration.floor / count)
    chances[chances < LEAST_PROPENSITY] = 0.0
    chances *= _restraint(chances, options.cost, best, exploration)
    chances[best] = 1.0 - chances.sum()
    if options.trial is not None:
        position, probability = options.trial
        chances *= 1.0 - probability
        chances[position] += probability
    steps = chances.cumsum()
    arm = int(steps.searchsorted(draw * steps[-1], side="right"))
    if arm >= len(chances) or chances[arm] <= 0.0:
        arm = best
    extra = float(chances @ options.cost - options.cost[best])
    return Choice(arm, best, worth, chances, extra)


def best_chances(mean: Vector, sd: Vector) -> Vector:
    """Return the probability of each of independent Gaussians to be the greatest, (A,).

    By quadrature on `NODES` fixed steps; a Gaussian much narrower than a step is taken as wide as
    half of one.
    """
    low, high = float((mean - REACH * sd).max()), float((mean + REACH * sd).max())
    step = (high - low) / NODES
    if step <= 0.0:
        chances: Vector = np.zeros(len(mean))
        chances[mean == mean.max()] = 1.0 / np.count_nonzero(mean == mean.max())
        return chances
    able = np.flatnonzero(mean + REACH * sd >= low)
    width = np.maximum(sd[able], 0.5 * step)
    # Single precision is enough here, and takes half the time.
    nodes = (step / width).astype(_SINGLE)[:, None] * _STEPS
    nodes -= ((mean[able] - low) / width).astype(_SINGLE)[:, None]
    below = signed_normal(nodes)
    mass = below[:, 1:] - below[:, :-1]
    middle = np.maximum((below[:, 1:] + below[:, :-1]) * _SINGLE(0.25) + _SINGLE(0.5), _LEAST_BELOW)
    found = ((mass / middle) @ middle.prod(axis=0)).astype(np.float64)
    chances = np.zeros(len(mean))
    chances[able] = found / found.sum()
    return chances


def _chances(options: Options, worth: Vector, exploration: Exploration) -> Vector:
    if exploration.mode == "softmax":
        weights: Vector = np.exp((worth - worth.max()) / exploration.temperature)
        softmax: Vector = weights / weights.sum()
        return softmax
    if exploration.mode == "thompson":
        sd = np.maximum(options.ratings.sd * exploration.boldness, LEAST_SD)
        return best_chances(worth, sd)
    return np.zeros(len(worth))


def _restraint(chances: Vector, cost: Vector, best: int, exploration: Exploration) -> float:
    """Return the factor, 0 to 1, that brings the exploring within its share and its cost."""
    factor = 1.0
    total = float(chances.sum())
    if total > exploration.share:
        factor = exploration.share / total
    added = float(chances @ cost) - total * float(cost[best])
    allowance = exploration.extra * float(cost[best])
    if added * factor > allowance:
        factor = allowance / added
    return factor
