"""Metrics of a router on a table of outcomes, each with its bootstrap interval."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from lab.evaluation.curves import (
    CostQualityCurve,
    OperatingPoints,
    SingleArmBaseline,
    build_single_arm_baseline,
    choose_arms,
    cross_validate_points,
    take_chosen,
)
from lab.evaluation.tables import Matrix
from sophia.routing.bandit.policy import Vector

BINS = 10
RESAMPLES = 400
COST_SHARE = 0.25


@dataclass(frozen=True)
class BootstrapInterval:
    """A metric with its 95 % bootstrap interval; None where it is undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PolicyMetrics:
    """Metrics of one policy on one table.

    `gap` is the share of the area between the hull of the single arms and the oracle that was
    recovered, `c100` the cost of equalling the best single arm as a share of its cost, `peak_gain`
    the gain over it in points of quality, `harm` the largest shortfall below the hull in points.
    `held_out` is of operating points chosen on other questions, `hindsight` of those best in
    hindsight. Chance alone puts even single arms chosen on other questions below the hull, so harm
    is read from `hindsight`. `ece_floor` is the calibration error that exact probabilities would
    show on as many questions.
    """

    held_out: dict[str, BootstrapInterval] = field(default_factory=dict)
    hindsight: dict[str, BootstrapInterval] = field(default_factory=dict)
    auc: BootstrapInterval = BootstrapInterval(None)
    ece: BootstrapInterval = BootstrapInterval(None)
    ece_floor: float | None = None
    brier: float | None = None


@dataclass(frozen=True)
class EvaluationBaseline:
    """Outcomes of a table with the references that every policy is compared with."""

    quality: Matrix
    cost: Matrix
    folds: NDArray[np.intp]
    oracle: OperatingPoints
    resamples: Matrix
    single_arms: tuple[SingleArmBaseline, ...]
    oracle_curves: tuple[CostQualityCurve, ...]

    @classmethod
    def prepare(
        cls, quality: Matrix, cost: Matrix, folds: NDArray[np.intp], seed: int = 0
    ) -> "EvaluationBaseline":
        """Prepare the resamples, the hulls of single arms and the oracle; row 0 is the sample."""
        count = len(quality)
        rng = np.random.default_rng(seed)
        draws = np.ones((RESAMPLES + 1, count)) / count
        draws[1:] = rng.multinomial(count, np.ones(count) / count, size=RESAMPLES) / count
        scale = build_single_arm_baseline(quality.mean(axis=0), cost.mean(axis=0)).cost
        chosen = choose_arms(quality, cost, scale)
        oracle = OperatingPoints(
            take_chosen(quality, chosen), take_chosen(cost, chosen), held_out=False
        )
        lines = tuple(build_single_arm_baseline(draw @ quality, draw @ cost) for draw in draws)
        tops = tuple(
            oracle.curve(draw, _cheapest_point(line))
            for draw, line in zip(draws, lines, strict=True)
        )
        return cls(quality, cost, folds, oracle, draws, lines, tops)

    def operating_points(
        self, expected: Matrix, costs: Matrix
    ) -> tuple[OperatingPoints, OperatingPoints]:
        """Return a router's operating points: chosen on the other folds, and in hindsight."""
        scale = self.single_arms[0].cost
        chosen = choose_arms(expected, costs, scale)
        return (
            cross_validate_points(self.quality, self.cost, chosen, self.folds),
            OperatingPoints(
                take_chosen(self.quality, chosen), take_chosen(self.cost, chosen), held_out=False
            ),
        )

    def measure(self, points: OperatingPoints) -> dict[str, BootstrapInterval]:
        """Return `gap`, `c100`, `peak_gain`, `quality_at_25pct_cost` and `harm` of the points."""
        rows = []
        for draw, line, top in zip(
            self.resamples, self.single_arms, self.oracle_curves, strict=True
        ):
            curve = points.curve(draw, _cheapest_point(line))
            rows.append(_compare_curves(curve, line, top, _max_quality(points, curve, draw)))
        names = ("gap", "c100", "peak_gain", "quality_at_25pct_cost", "harm")
        return {
            name: _build_interval(np.array([row[number] for row in rows]))
            for number, name in enumerate(names)
        }


def measure_policy(baseline: EvaluationBaseline, expected: Matrix, costs: Matrix) -> PolicyMetrics:
    """Return all metrics of out-of-fold expectations of quality and cost, both (N, A)."""
    fixed, swept = baseline.operating_points(expected, costs)
    plain = measure_calibration(expected, baseline.quality)
    return PolicyMetrics(
        baseline.measure(fixed),
        baseline.measure(swept),
        plain.auc,
        plain.ece,
        plain.ece_floor,
        plain.brier,
    )


def measure_calibration(expected: Matrix, quality: Matrix, seed: int = 0) -> PolicyMetrics:
    """Return the metrics that need no cost."""
    count = len(quality)
    draws = np.ones((RESAMPLES + 1, count)) / count
    rng = np.random.default_rng(seed)
    draws[1:] = rng.multinomial(count, np.ones(count) / count, size=RESAMPLES) / count
    return PolicyMetrics(
        auc=BootstrapInterval(_mean_over_arms(auc, expected, quality)),
        ece=_bootstrap_ece(expected, quality, draws),
        ece_floor=_expected_ece(expected),
        brier=float(((expected - quality) ** 2).mean()),
    )


def auc(expected: Vector, quality: Vector) -> float:
    """Return the probability that a good answer was expected to be better than a bad one."""
    good = quality >= 0.5
    return float(roc_auc_score(good, expected)) if 0 < good.sum() < len(good) else float("nan")


def ece(expected: Vector, quality: Vector) -> float:
    """Return the mean gap between expected and observed scores, over bins of equal width."""
    return float(np.abs(_sum_bin_gaps(expected, quality)).sum() / len(expected))


def _sum_bin_gaps(expected: Vector, quality: Vector) -> Vector:
    bins = np.clip((expected * BINS).astype(np.intp), 0, BINS - 1)
    return np.asarray(np.bincount(bins, weights=expected - quality, minlength=BINS), np.float64)


def _bootstrap_ece(expected: Matrix, quality: Matrix, draws: Matrix) -> BootstrapInterval:
    """Return the calibration error, mean over arms, with its interval."""
    total: Vector = np.zeros(len(draws))
    for arm in range(expected.shape[1]):
        bins = np.clip((expected[:, arm] * BINS).astype(np.intp), 0, BINS - 1)
        spread = np.zeros((len(expected), BINS))
        spread[np.arange(len(expected)), bins] = expected[:, arm] - quality[:, arm]
        total += np.abs(draws @ spread).sum(axis=1)
    return _build_interval(total / expected.shape[1])


def _expected_ece(expected: Matrix) -> float:
    """Return the calibration error that outcomes drawn with the expected probabilities show."""
    total = 0.0
    for arm in expected.T:
        probabilities = np.clip(arm, 0.0, 1.0)
        bins = np.clip((arm * BINS).astype(np.intp), 0, BINS - 1)
        variance = np.bincount(bins, weights=probabilities * (1.0 - probabilities), minlength=BINS)
        total += float(np.sqrt(2.0 / np.pi * variance).sum())
    return total / expected.size


def _mean_over_arms(
    measure: Callable[[Vector, Vector], float], expected: Matrix, quality: Matrix
) -> float:
    return float(
        np.nanmean([measure(expected[:, arm], quality[:, arm]) for arm in range(quality.shape[1])])
    )


def _cheapest_point(line: SingleArmBaseline) -> tuple[float, float]:
    return float(line.hull.cost[0]), float(line.hull.quality[0])


def _max_quality(points: OperatingPoints, curve: CostQualityCurve, draw: Vector) -> float:
    return float(points.quality[-1] @ draw) if points.held_out else float(curve.quality.max())


def _compare_curves(
    curve: CostQualityCurve, line: SingleArmBaseline, top: CostQualityCurve, peak: float
) -> tuple[float, ...]:
    low, high = line.cheapest, line.cost
    base, most = line.hull.area(low, high), top.area(low, high)
    area = curve.area(low, high)
    grid = low + (np.geomspace(1e-3, 1.0, 80) - 1e-3) * (high - low)
    below = float((line.hull.quality_at(grid) - curve.quality_at(grid)).max())
    quarter = float(curve.quality_at(np.array([COST_SHARE * high]))[0])
    return (
        (area - base) / (most - base) if most > base else 0.0,
        curve.cost_of(line.quality) / high,
        100.0 * (peak - line.quality),
        quarter / line.quality,
        100.0 * max(below, 0.0),
    )


def _build_interval(values: Vector) -> BootstrapInterval:
    """Return row 0 with the 2.5 % and 97.5 % quantiles of the others; infinity becomes None."""
    low, high = np.quantile(values[1:], [0.025, 0.975], method="nearest")
    return BootstrapInterval(
        *(float(one) if np.isfinite(one) else None for one in (values[0], low, high))
    )
