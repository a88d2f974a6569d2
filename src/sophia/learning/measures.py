"""What a router is worth on a table of outcomes: every measure with its bootstrap interval."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sophia.learning.curves import Curve, Points, Singles, choose, pick, set_on_others, singles
from sophia.routing.policies.policy import Vector

Matrix = NDArray[np.float64]

BINS = 10
RESAMPLES = 400
QUARTER = 0.25


@dataclass(frozen=True)
class Interval:
    """A measure and the 95 % interval of its bootstrap; None where it does not exist."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Verdict:
    """The measures of one policy on one table.

    `gap` is the share of the area between the hull of the single arms and the oracle that was
    recovered, `c100` the cost of equalling the best single arm as a share of its cost, `peak_gain`
    the gain over it in points of quality, `harm` the largest shortfall below the hull in points.
    `fixed` is of points set on other questions, `swept` of those best in hindsight; chance
    alone puts even single arms set on other questions below the hull, so harm is read off `swept`.
    `ece_floor` is the calibration error that exact chances would show on as many questions.
    """

    fixed: dict[str, Interval] = field(default_factory=dict)
    swept: dict[str, Interval] = field(default_factory=dict)
    auc: Interval = Interval(None)
    ece: Interval = Interval(None)
    ece_floor: float | None = None
    brier: float | None = None


@dataclass(frozen=True)
class Ground:
    """The truth of a table and what every policy on it is compared with."""

    quality: Matrix
    cost: Matrix
    folds: NDArray[np.intp]
    oracle: Points
    draws: Matrix
    lines: tuple[Singles, ...]
    tops: tuple[Curve, ...]

    @classmethod
    def of(
        cls, quality: Matrix, cost: Matrix, folds: NDArray[np.intp], seed: int = 0
    ) -> "Ground":
        """Prepare the resamples, the hulls of single arms and the oracle; row 0 is the sample."""
        count = len(quality)
        rng = np.random.default_rng(seed)
        draws = np.ones((RESAMPLES + 1, count)) / count
        draws[1:] = rng.multinomial(count, np.ones(count) / count, size=RESAMPLES) / count
        scale = singles(quality.mean(axis=0), cost.mean(axis=0)).cost
        chosen = choose(quality, cost, scale)
        oracle = Points(pick(quality, chosen), pick(cost, chosen), fixed=False)
        lines = tuple(singles(draw @ quality, draw @ cost) for draw in draws)
        tops = tuple(
            oracle.curve(draw, _floor(line))
            for draw, line in zip(draws, lines, strict=True)
        )
        return cls(quality, cost, folds, oracle, draws, lines, tops)

    def points(self, expected: Matrix, costs: Matrix) -> tuple[Points, Points]:
        """Return the points of a router with these expectations: set on others, and swept."""
        scale = self.lines[0].cost
        chosen = choose(expected, costs, scale)
        return (
            set_on_others(self.quality, self.cost, chosen, self.folds),
            Points(pick(self.quality, chosen), pick(self.cost, chosen), fixed=False),
        )

    def judge(self, points: Points) -> dict[str, Interval]:
        """Return `gap`, `c100`, `peak_gain`, `quality_at_25pct_cost` and `harm` of points."""
        rows = []
        for draw, line, top in zip(self.draws, self.lines, self.tops, strict=True):
            curve = points.curve(draw, _floor(line))
            rows.append(_compare(curve, line, top, _peak(points, curve, draw)))
        names = ("gap", "c100", "peak_gain", "quality_at_25pct_cost", "harm")
        return {
            name: _interval(np.array([row[number] for row in rows]))
            for number, name in enumerate(names)
        }


def judge(ground: Ground, expected: Matrix, costs: Matrix) -> Verdict:
    """Return all measures of out-of-fold expectations of quality and cost, both (N, A)."""
    fixed, swept = ground.points(expected, costs)
    plain = calibration(expected, ground.quality)
    return Verdict(
        ground.judge(fixed),
        ground.judge(swept),
        plain.auc,
        plain.ece,
        plain.ece_floor,
        plain.brier,
    )


def calibration(expected: Matrix, quality: Matrix, seed: int = 0) -> Verdict:
    """Return the measures that need no cost."""
    count = len(quality)
    draws = np.ones((RESAMPLES + 1, count)) / count
    rng = np.random.default_rng(seed)
    draws[1:] = rng.multinomial(count, np.ones(count) / count, size=RESAMPLES) / count
    return Verdict(
        auc=Interval(_over_arms(auc, expected, quality)),
        ece=_resampled(expected, quality, draws),
        ece_floor=_floor_of_ece(expected),
        brier=float(((expected - quality) ** 2).mean()),
    )


def auc(expected: Vector, quality: Vector) -> float:
    """Return the chance that a good answer was expected to be better than a bad one."""
    good = quality >= 0.5
    count, bad = int(good.sum()), int((~good).sum())
    if not count or not bad:
        return float("nan")
    _, place, ties = np.unique(expected, return_inverse=True, return_counts=True)
    ranks = np.cumsum(ties) - (ties - 1) / 2
    return float((ranks[place][good].sum() - count * (count + 1) / 2) / (count * bad))


def ece(expected: Vector, quality: Vector) -> float:
    """Return the mean gap between what was expected and what came, over bins of equal width."""
    return float(np.abs(_sums(expected, quality)).sum() / len(expected))


def _sums(expected: Vector, quality: Vector) -> Vector:
    bins = np.clip((expected * BINS).astype(np.intp), 0, BINS - 1)
    return np.asarray(np.bincount(bins, weights=expected - quality, minlength=BINS), np.float64)


def _resampled(expected: Matrix, quality: Matrix, draws: Matrix) -> Interval:
    """Return the calibration error, mean over arms, with its interval."""
    total: Vector = np.zeros(len(draws))
    for arm in range(expected.shape[1]):
        bins = np.clip((expected[:, arm] * BINS).astype(np.intp), 0, BINS - 1)
        spread = np.zeros((len(expected), BINS))
        spread[np.arange(len(expected)), bins] = expected[:, arm] - quality[:, arm]
        total += np.abs(draws @ spread).sum(axis=1)
    return _interval(total / expected.shape[1])


def _floor_of_ece(expected: Matrix) -> float:
    """Return the mean calibration error of coins that fall with the expected chances."""
    total = 0.0
    for arm in expected.T:
        chances = np.clip(arm, 0.0, 1.0)
        bins = np.clip((arm * BINS).astype(np.intp), 0, BINS - 1)
        variance = np.bincount(bins, weights=chances * (1.0 - chances), minlength=BINS)
        total += float(np.sqrt(2.0 / np.pi * variance).sum())
    return total / expected.size


def _over_arms(
    measure: Callable[[Vector, Vector], float], expected: Matrix, quality: Matrix
) -> float:
    return float(
        np.nanmean([measure(expected[:, arm], quality[:, arm]) for arm in range(quality.shape[1])])
    )


def _floor(line: Singles) -> tuple[float, float]:
    return float(line.hull.cost[0]), float(line.hull.quality[0])


def _peak(points: Points, curve: Curve, draw: Vector) -> float:
    return float(points.quality[-1] @ draw) if points.fixed else float(curve.quality.max())


def _compare(curve: Curve, line: Singles, top: Curve, peak: float) -> tuple[float, ...]:
    low, high = line.cheapest, line.cost
    base, most = line.hull.area(low, high), top.area(low, high)
    got = curve.area(low, high)
    grid = low + (np.geomspace(1e-3, 1.0, 80) - 1e-3) * (high - low)
    below = float((line.hull.at(grid) - curve.at(grid)).max())
    quarter = float(curve.at(np.array([QUARTER * high]))[0])
    return (
        (got - base) / (most - base) if most > base else 0.0,
        curve.price_of(line.quality) / high,
        100.0 * (peak - line.quality),
        quarter / line.quality,
        100.0 * max(below, 0.0),
    )


def _interval(values: Vector) -> Interval:
    """Return row 0 with the 2.5 % and 97.5 % quantiles of the others; infinity becomes None."""
    low, high = np.quantile(values[1:], [0.025, 0.975], method="nearest")
    return Interval(*(float(one) if np.isfinite(one) else None for one in (values[0], low, high)))
