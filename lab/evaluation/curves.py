"""Cost-quality curves: hulls, areas, and the cost of a given quality."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.evaluation.tables import Matrix
from sophia.routing.bandit.policy import Vector

# Weights of cost, in units of quality per mean cost of the best single arm.
COST_WEIGHTS = np.concatenate([[0.0], np.geomspace(1e-4, 1e3, 85)])
BUDGET_STEPS = 60


@dataclass(frozen=True)
class CostQualityCurve:
    """Points of rising cost; linear between them, constant beyond the last.

    A point between two others is reached by choosing one of them at random.
    """

    cost: Vector
    quality: Vector

    def quality_at(self, cost: Vector) -> Vector:
        """Return the quality at each cost."""
        return np.asarray(np.interp(cost, self.cost, self.quality))

    def area(self, low: float, high: float) -> float:
        """Return the area under the curve between two costs."""
        if high <= low:
            return 0.0
        inside = (self.cost > low) & (self.cost < high)
        cost = np.concatenate([[low], self.cost[inside], [high]])
        return float(np.trapezoid(self.quality_at(cost), cost))

    def cost_of(self, quality: float) -> float:
        """Return the lowest cost at which `quality` is reached; infinity if it never is."""
        reached = np.flatnonzero(self.quality >= quality - 1e-12)
        if not len(reached):
            return float("inf")
        last = int(reached[0])
        if last == 0:
            return float(self.cost[0])
        rise = self.quality[last] - self.quality[last - 1]
        share = (quality - self.quality[last - 1]) / rise
        return float(self.cost[last - 1] + share * (self.cost[last] - self.cost[last - 1]))


def concave_hull(cost: Vector, quality: Vector) -> CostQualityCurve:
    """Return the rising upper concave hull of points, which random mixtures of them reach."""
    order = np.lexsort((-quality, cost))
    points: list[tuple[float, float]] = []
    for x, y in zip(cost[order].tolist(), quality[order].tolist(), strict=True):
        if points and y <= points[-1][1]:
            continue
        while len(points) >= 2:
            (x0, y0), (x1, y1) = points[-2], points[-1]
            if (x1 - x0) * (y - y0) < (x - x0) * (y1 - y0):
                break
            points.pop()
        if points and x <= points[-1][0]:
            points.pop()
        points.append((x, y))
    found = np.array(points)
    return CostQualityCurve(found[:, 0], found[:, 1])


@dataclass(frozen=True)
class SingleArmBaseline:
    """Baseline of the single arms: the hull of their mixtures, and the best arm."""

    hull: CostQualityCurve
    best: int
    quality: float
    cost: float
    cheapest: float


def build_single_arm_baseline(quality: Vector, cost: Vector) -> SingleArmBaseline:
    """Return the baseline of arms with these mean qualities and costs, (A,)."""
    best = int(np.lexsort((cost, -quality))[0])
    line = concave_hull(cost, quality)
    return SingleArmBaseline(line, best, float(quality[best]), float(cost[best]), float(cost.min()))


def choose_arms(quality: Matrix, cost: Matrix, scale: float) -> NDArray[np.intp]:
    """Return the arm of the highest utility for each of `COST_WEIGHTS` and question, (L, N)."""
    chosen = np.empty((len(COST_WEIGHTS), len(quality)), dtype=np.intp)
    relative = cost / scale
    for number, weight in enumerate(COST_WEIGHTS):
        # A tiny cost weight breaks ties, common where qualities are shares of few answers.
        chosen[number] = (quality - (weight + 1e-9) * relative).argmax(axis=1)
    return chosen


@dataclass(frozen=True)
class OperatingPoints:
    """Quality and cost of each question at each operating point, both (P, N).

    `held_out` points were chosen on other questions and are ordered by budget; the others are
    chosen in hindsight.
    """

    quality: Matrix
    cost: Matrix
    held_out: bool

    def curve(self, weights: Vector, floor: tuple[float, float]) -> CostQualityCurve:
        """Return the curve for questions weighted by `weights`, (N,), from the cheapest arm on."""
        cost, quality = self.cost @ weights, self.quality @ weights
        if floor[0] < cost.min():
            cost = np.append(cost, floor[0])
            quality = np.append(quality, floor[1])
        if not self.held_out:
            return concave_hull(cost, quality)
        order = np.argsort(cost, kind="stable")
        return CostQualityCurve(cost[order], quality[order])


def take_chosen(table: Matrix, chosen: NDArray[np.intp]) -> Matrix:
    """Return `table[n, chosen[p, n]]` for all points and questions, (P, N)."""
    return np.take_along_axis(table[None], chosen[:, :, None], axis=2)[:, :, 0]


def cross_validate_points(
    quality: Matrix, cost: Matrix, chosen: NDArray[np.intp], folds: NDArray[np.intp]
) -> OperatingPoints:
    """Return the points of each fold at cost weights that were chosen on the other folds.

    A point is a budget between the cheapest arm's cost and the best one's: a mixture of the two
    neighbouring weights on the training hull that spends it there. The last point is the weight of
    the highest quality.
    """
    quality_at_points, cost_at_points = take_chosen(quality, chosen), take_chosen(cost, chosen)
    line = build_single_arm_baseline(quality.mean(axis=0), cost.mean(axis=0))
    # Budgets are inputs, not fitted, so all folds can share them.
    steps = np.geomspace(1e-3, 1.0, BUDGET_STEPS) - 1e-3
    budgets = line.cheapest + steps * (line.cost - line.cheapest)
    points = np.empty((2, BUDGET_STEPS + 1, len(quality)))
    for fold in np.unique(folds):
        train, held = folds != fold, folds == fold
        means = cost_at_points[:, train].mean(axis=1), quality_at_points[:, train].mean(axis=1)
        top = concave_hull(*means)
        corner = [int(np.flatnonzero(means[0] == one)[0]) for one in top.cost]
        for number, budget in enumerate(budgets):
            place = float(np.interp(budget, top.cost, np.arange(len(corner))))
            low, share = int(place), place - int(place)
            high = min(low + 1, len(corner) - 1)
            for layer, values in enumerate((quality_at_points, cost_at_points)):
                points[layer, number, held] = (1 - share) * values[corner[low]][held] + (
                    share * values[corner[high]][held]
                )
        points[0, -1, held] = quality_at_points[corner[-1]][held]
        points[1, -1, held] = cost_at_points[corner[-1]][held]
    return OperatingPoints(points[0], points[1], held_out=True)
