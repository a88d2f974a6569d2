"""The choice among rated arms: the utility of each, and the exact probability of taking it."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.routing.bandit.normal import approximate_scaled_erf
from sophia.routing.bandit.policy import ArmRatings, Vector
from sophia.routing.types import BALANCED_COST_WEIGHT, Exploration, UtilityWeights

QUALITY_BIAS_PRESETS: dict[str, float] = {"cheap": 0.0, "balanced": 5.0, "best": 10.0}
QUADRATURE_NODES = 64
QUADRATURE_SDS = 4.0
MIN_SD = 1e-4
MIN_PLAUSIBLE_SD = 0.04
MIN_PROPENSITY = 1e-9

_FLOAT32 = np.float32
_NODE_OFFSETS = np.arange(-1, QUADRATURE_NODES + 2, dtype=_FLOAT32)
_MIN_CDF = _FLOAT32(1e-12)


class ChoiceSet(Struct, frozen=True, kw_only=True):
    """The allowed arms of one request, by position.

    Attributes:
        ratings: the qualities and their sd, (A,) each.
        cost: shape (A,), the expected cost of an answer.
        explorable: shape (A,), the arms that are healthy and cheap enough to be tried out.
        late_probability: shape (A,), the probability that the answer comes too late.
        failure_probability: shape (A,), the probability that the attempt fails.
        current_arm: the arm that the conversation is on, if any.
        trial: the position of an arm on trial and the probability set aside for it, which no bound
            of `Exploration` limits.
    """

    ratings: ArmRatings
    cost: Vector
    explorable: NDArray[np.bool_]
    late_probability: Vector
    failure_probability: Vector
    current_arm: int | None = None
    trial: tuple[int, float] | None = None


class ArmChoice(Struct, frozen=True, kw_only=True):
    """The positions of the arm taken and of the one that looked best, and how they were chosen.

    Attributes:
        utility: shape (A,), quality less the price of cost, lateness, failing and switching.
        propensities: shape (A,), the probability of taking each arm; they sum to 1.
    """

    arm: int
    best: int
    utility: Vector
    propensities: Vector

    @property
    def propensity(self) -> float:
        """The exact probability of the arm that was taken."""
        return float(self.propensities[self.arm])


def cost_weight(quality_bias: float) -> float:
    """Return `UtilityWeights.cost` for a quality bias from 0 (cheap) to 10 (best).

    Each five steps are a factor of ten: at 0 saving one reference cost is worth the whole score,
    at 5 (balanced) 0.1, and at 10 0.01, so that cost still decides between equals.

    Raises:
        ValueError: the bias is not from 0 to 10.
    """
    if not 0.0 <= quality_bias <= 10.0:
        raise ValueError(f"the quality bias is a number from 0 to 10, not {quality_bias!r}")
    return float(BALANCED_COST_WEIGHT * 10.0 ** (1.0 - quality_bias / 5.0))


def expect_best_cost(ratings: ArmRatings, cost: Vector) -> float:
    """Return the expected cost of the best arm: the mean cost of the plausible ones.

    An arm weighs less by a factor of e for each half of a standard deviation that it looks worse
    than the best-looking one, so that no single belief sets the price of money.
    """
    width = 0.5 * np.maximum(ratings.sd, MIN_PLAUSIBLE_SD)
    weights = np.exp((ratings.quality - ratings.quality.max()) / width)
    return max(float(weights @ cost) / float(weights.sum()), 1.0)


def compute_utilities(choice_set: ChoiceSet, weights: UtilityWeights) -> Vector:
    """Return the utility of each arm, (A,), on the scale of quality."""
    utility = choice_set.ratings.quality - (weights.cost / weights.reference_cost) * choice_set.cost
    if weights.lateness:
        utility = utility - weights.lateness * choice_set.late_probability
    if weights.failure:
        utility = utility - weights.failure * choice_set.failure_probability
    if choice_set.current_arm is not None and weights.switching:
        utility = utility - weights.switching
        utility[choice_set.current_arm] += weights.switching
    return utility


def choose_arm(
    choice_set: ChoiceSet, weights: UtilityWeights, exploration: Exploration, uniform: float
) -> ArmChoice:
    """Return the choice among `choice_set` for the random number `uniform`, in [0, 1).

    The propensities are computed before the arm is drawn, so that they are exact.
    """
    utility = compute_utilities(choice_set, weights)
    best = int(utility.argmax())
    explored = _exploration_probabilities(choice_set, utility, best, exploration)
    propensities = explored * _exploration_scale(explored, choice_set.cost, best, exploration)
    propensities[best] = 1.0 - propensities.sum()
    if choice_set.trial is not None:
        position, probability = choice_set.trial
        propensities *= 1.0 - probability
        propensities[position] += probability
    steps = propensities.cumsum()
    arm = int(steps.searchsorted(uniform * steps[-1], side="right"))
    if arm >= len(propensities) or propensities[arm] <= 0.0:
        arm = best
    return ArmChoice(arm=arm, best=best, utility=utility, propensities=propensities)


def best_arm_probabilities(mean: Vector, sd: Vector) -> Vector:
    """Return the probability of each of independent Gaussians to be the greatest, (A,).

    By quadrature on `QUADRATURE_NODES` fixed steps; a Gaussian much narrower than a step is widened
    to half of one.
    """
    low, high = float((mean - QUADRATURE_SDS * sd).max()), float((mean + QUADRATURE_SDS * sd).max())
    step = (high - low) / QUADRATURE_NODES
    probabilities: Vector = np.zeros(len(mean))
    if step <= 0.0:
        greatest = mean == mean.max()
        probabilities[greatest] = 1.0 / np.count_nonzero(greatest)
        return probabilities
    able = np.flatnonzero(mean + QUADRATURE_SDS * sd >= low)
    width = np.maximum(sd[able], 0.5 * step)
    # Single precision is enough here, and takes half the time.
    nodes = (step / width).astype(_FLOAT32)[:, None] * _NODE_OFFSETS
    nodes -= ((mean[able] - low) / width).astype(_FLOAT32)[:, None]
    below = approximate_scaled_erf(nodes)
    mass = below[:, 1:] - below[:, :-1]
    middle = np.maximum((below[:, 1:] + below[:, :-1]) * _FLOAT32(0.25) + _FLOAT32(0.5), _MIN_CDF)
    sums = ((mass / middle) @ middle.prod(axis=0)).astype(np.float64)
    probabilities[able] = sums / sums.sum()
    return probabilities


def _exploration_probabilities(
    choice_set: ChoiceSet, utility: Vector, best: int, exploration: Exploration
) -> Vector:
    """Return the probabilities of the arms other than the best before they are bounded, (A,)."""
    if exploration.mode == "off":
        return np.zeros(len(utility))
    if exploration.mode == "softmax":
        weights = np.exp((utility - utility.max()) / exploration.temperature)
        probabilities: Vector = weights / weights.sum()
    else:
        sd = np.maximum(choice_set.ratings.sd * exploration.sd_scale, MIN_SD)
        probabilities = best_arm_probabilities(utility, sd)
    allowed = choice_set.explorable.copy()
    allowed[best] = False
    probabilities = np.where(allowed, probabilities, 0.0)
    count = int(choice_set.explorable.sum())
    if exploration.floor > 0.0 and count:
        even = allowed * (exploration.floor / count)
        probabilities = probabilities * (1.0 - exploration.floor) + even
    probabilities[probabilities < MIN_PROPENSITY] = 0.0
    return probabilities


def _exploration_scale(
    probabilities: Vector, cost: Vector, best: int, exploration: Exploration
) -> float:
    """Return the factor, 0 to 1, that keeps exploration within its share and its cost."""
    factor = 1.0
    total = float(probabilities.sum())
    if total > exploration.max_share:
        factor = exploration.max_share / total
    added = float(probabilities @ cost) - total * float(cost[best])
    allowance = exploration.max_extra_cost * float(cost[best])
    if added * factor > allowance:
        factor = allowance / added
    return factor
