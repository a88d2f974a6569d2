"""Quality against cost: hulls, the share of the oracle's area, and what it costs to be as good."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sophia.routing.policies.policy import Vector

Matrix = NDArray[np.float64]

# What a dollar is worth, in units of quality per mean cost of the best single arm.
WEIGHTS = np.concatenate([[0.0], np.geomspace(1e-4, 1e3, 85)])
TARGETS = 60


@dataclass(frozen=True)
class Curve:
    """Points of rising cost; between them a coin is tossed, beyond the last nothing is gained."""

    cost: Vector
    quality: Vector

    def at(self, cost: Vector) -> Vector:
        """Return the quality at each cost."""
        return np.asarray(np.interp(cost, self.cost, self.quality))

    def area(self, low: float, high: float) -> float:
        """Return the area under the curve between two costs."""
        if high <= low:
            return 0.0
        inside = (self.cost > low) & (self.cost < high)
        cost = np.concatenate([[low], self.cost[inside], [high]])
        return float(np.trapezoid(self.at(cost), cost))

    def price_of(self, quality: float) -> float:
        """Return the least cost at which `quality` is reached; infinity when it never is."""
        reached = np.flatnonzero(self.quality >= quality - 1e-12)
        if not len(reached):
            return float("inf")
        last = int(reached[0])
        if last == 0:
            return float(self.cost[0])
        rise = self.quality[last] - self.quality[last - 1]
        share = (quality - self.quality[last - 1]) / rise
        return float(self.cost[last - 1] + share * (self.cost[last] - self.cost[last - 1]))


def hull(cost: Vector, quality: Vector) -> Curve:
    """Return the upper concave hull of points, rising only: what tossing coins can reach."""
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
    return Curve(found[:, 0], found[:, 1])


@dataclass(frozen=True)
class Singles:
    """What the single arms give: the hull of their mixtures, and the best of them."""

    hull: Curve
    best: int
    quality: float
    cost: float
    cheapest: float


def singles(quality: Vector, cost: Vector) -> Singles:
    """Return the reference lines of arms with these mean qualities and costs, (A,)."""
    best = int(np.lexsort((cost, -quality))[0])
    line = hull(cost, quality)
    return Singles(line, best, float(quality[best]), float(cost[best]), float(cost.min()))


def choose(quality: Matrix, cost: Matrix, scale: float) -> NDArray[np.intp]:
    """Return the arm with the greatest utility for each of `WEIGHTS` and each question, (L, N)."""
    chosen = np.empty((len(WEIGHTS), len(quality)), dtype=np.intp)
    relative = cost / scale
    for number, weight in enumerate(WEIGHTS):
        # A hair of cost breaks ties, which are many where qualities are shares of few answers.
        chosen[number] = (quality - (weight + 1e-9) * relative).argmax(axis=1)
    return chosen


@dataclass(frozen=True)
class Points:
    """Operating points: what each question gave and cost at each, both (P, N).

    `fixed` points were set on other questions and stand in the order of their budget; from others
    the best are taken in hindsight.
    """

    quality: Matrix
    cost: Matrix
    fixed: bool

    def curve(self, weights: Vector, floor: tuple[float, float]) -> Curve:
        """Return the curve for questions counted by `weights`, (N,), above the cheapest arm."""
        cost, quality = self.cost @ weights, self.quality @ weights
        if floor[0] < cost.min():
            cost = np.append(cost, floor[0])
            quality = np.append(quality, floor[1])
        if not self.fixed:
            return hull(cost, quality)
        order = np.argsort(cost, kind="stable")
        return Curve(cost[order], quality[order])


def pick(table: Matrix, chosen: NDArray[np.intp]) -> Matrix:
    """Return `table[n, chosen[p, n]]` for all points and questions, (P, N)."""
    return np.take_along_axis(table[None], chosen[:, :, None], axis=2)[:, :, 0]


def set_on_others(
    quality: Matrix, cost: Matrix, chosen: NDArray[np.intp], folds: NDArray[np.intp]
) -> Points:
    """Return the points when each fold's weights were set on the other folds.

    A point is a budget between the cheapest arm's cost and the best one's: the two neighbouring
    weights on the others' hull, mixed to spend it there. The last point is the weight that gave the
    most of all.
    """
    given, paid = pick(quality, chosen), pick(cost, chosen)
    line = singles(quality.mean(axis=0), cost.mean(axis=0))
    # A budget is given from outside, so it may be the same on all folds.
    steps = np.geomspace(1e-3, 1.0, TARGETS) - 1e-3
    budgets = line.cheapest + steps * (line.cost - line.cheapest)
    points = np.empty((2, TARGETS + 1, len(quality)))
    for fold in np.unique(folds):
        train, held = folds != fold, folds == fold
        means = paid[:, train].mean(axis=1), given[:, train].mean(axis=1)
        top = hull(*means)
        corner = [int(np.flatnonzero(means[0] == one)[0]) for one in top.cost]
        for number, budget in enumerate(budgets):
            place = float(np.interp(budget, top.cost, np.arange(len(corner))))
            low, share = int(place), place - int(place)
            high = min(low + 1, len(corner) - 1)
            for layer, values in enumerate((given, paid)):
                points[layer, number, held] = (1 - share) * values[corner[low]][held] + (
                    share * values[corner[high]][held]
                )
        points[0, -1, held] = given[corner[-1]][held]
        points[1, -1, held] = paid[corner[-1]][held]
    return Points(points[0], points[1], fixed=True)
