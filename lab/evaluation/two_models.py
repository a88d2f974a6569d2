"""A router between a weak and a strong arm, measured as RouteLLM does: APGR, CPT50 and CPT80."""

import numpy as np
from msgspec import Struct

from lab.evaluation.measures import BootstrapInterval
from lab.evaluation.tables import Matrix
from sophia.routing.bandit.policy import Vector


class WeakStrongMetrics(Struct, frozen=True):
    """Share of the quality gap between two arms recovered, by share of strong calls.

    Attributes:
        strong: the better of the two arms.
        apgr: the recovered share, mean over all shares of strong calls; random routing has 0.5.
        cpt50, cpt80: the share of strong calls that recovers 50 % or 80 % of the gap.
    """

    strong: str
    apgr: BootstrapInterval
    cpt50: BootstrapInterval
    cpt80: BootstrapInterval


def measure_weak_strong(
    arms: tuple[str, ...], expected: Matrix, quality: Matrix, draws: Matrix
) -> WeakStrongMetrics | None:
    """Return the metrics of expected scores, (N, 2); None unless two arms differ in quality.

    `draws`, (R, N), are the weights of the questions in each resample; row 0 is the sample.
    """
    means = quality.mean(axis=0)
    if len(arms) != 2 or means[0] == means[1]:
        return None
    strong = int(means.argmax())
    advantage = expected[:, strong] - expected[:, 1 - strong]
    gain = quality[:, strong] - quality[:, 1 - strong]
    order = np.argsort(-advantage, kind="stable")
    # Ties are broken at random: only the ends of tied groups are points of the curve.
    ends = np.append(np.flatnonzero(np.diff(advantage[order])), len(order) - 1)
    rows = [_measure_resample(draw[order], gain[order], ends) for draw in draws]
    apgr, half, most = (_interval(np.array(column)) for column in zip(*rows, strict=True))
    return WeakStrongMetrics(arms[strong], apgr, half, most)


def _measure_resample(
    weights: Vector, gain: Vector, ends: np.ndarray
) -> tuple[float, float, float]:
    share = np.concatenate([[0.0], weights.cumsum()[ends]])
    recovered = np.concatenate([[0.0], (weights * gain).cumsum()[ends]])
    if recovered[-1] <= 0.0:
        # In this resample the strong arm is not better.
        return np.nan, np.nan, np.nan
    recovered = recovered / recovered[-1]
    return (
        float(np.trapezoid(recovered, share)),
        _share_at(share, recovered, 0.5),
        _share_at(share, recovered, 0.8),
    )


def _share_at(share: Vector, recovered: Vector, goal: float) -> float:
    """Return the smallest share of strong calls that recovers the share `goal` of the gap."""
    last = int(np.flatnonzero(recovered >= goal)[0])
    rise = recovered[last] - recovered[last - 1]
    return float(
        share[last - 1] + (goal - recovered[last - 1]) / rise * (share[last] - share[last - 1])
    )


def _interval(values: Vector) -> BootstrapInterval:
    known = values[1:][np.isfinite(values[1:])]
    if not len(known):
        return BootstrapInterval(float(values[0]))
    low, high = np.quantile(known, [0.025, 0.975])
    return BootstrapInterval(float(values[0]), float(low), float(high))
