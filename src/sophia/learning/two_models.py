"""A router between a weak and a strong arm, measured as RouteLLM does: APGR, CPT50 and CPT80."""

import numpy as np
from msgspec import Struct

from sophia.learning.measures import Interval
from sophia.learning.tables import Matrix
from sophia.routing.policies.policy import Vector


class TwoModels(Struct, frozen=True):
    """How much of the way from the weak to the strong arm is gone with how many strong calls.

    Attributes:
        strong: the better of the two arms.
        apgr: the share of the way, mean over all shares of strong calls; a coin has 0.5.
        cpt50, cpt80: the share of strong calls that goes 50 % or 80 % of the way.
    """

    strong: str
    apgr: Interval
    cpt50: Interval
    cpt80: Interval


def two_models(
    arms: tuple[str, ...], expected: Matrix, quality: Matrix, draws: Matrix
) -> TwoModels | None:
    """Return the measures of expectations, (N, 2), against the truth; None without two arms apart.

    `draws`, (R, N), are the weights of the questions in each resample; row 0 is the sample.
    """
    means = quality.mean(axis=0)
    if len(arms) != 2 or means[0] == means[1]:
        return None
    strong = int(means.argmax())
    advantage = expected[:, strong] - expected[:, 1 - strong]
    gain = quality[:, strong] - quality[:, 1 - strong]
    order = np.argsort(-advantage, kind="stable")
    # Between equals a coin decides: only the ends of their groups are points of the curve.
    ends = np.append(np.flatnonzero(np.diff(advantage[order])), len(order) - 1)
    rows = [_measures(draw[order], gain[order], ends) for draw in draws]
    apgr, half, most = (_interval(np.array(column)) for column in zip(*rows, strict=True))
    return TwoModels(arms[strong], apgr, half, most)


def _measures(weights: Vector, gain: Vector, ends: np.ndarray) -> tuple[float, float, float]:
    share = np.concatenate([[0.0], weights.cumsum()[ends]])
    way = np.concatenate([[0.0], (weights * gain).cumsum()[ends]])
    if way[-1] <= 0.0:
        # In this resample the strong arm is not the stronger one.
        return np.nan, np.nan, np.nan
    way = way / way[-1]
    return float(np.trapezoid(way, share)), _reached(share, way, 0.5), _reached(share, way, 0.8)


def _reached(share: Vector, way: Vector, goal: float) -> float:
    """Return the least share of strong calls that goes `goal` of the way."""
    last = int(np.flatnonzero(way >= goal)[0])
    rise = way[last] - way[last - 1]
    return float(share[last - 1] + (goal - way[last - 1]) / rise * (share[last] - share[last - 1]))


def _interval(values: Vector) -> Interval:
    known = values[1:][np.isfinite(values[1:])]
    if not len(known):
        return Interval(float(values[0]))
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(float(values[0]), float(low), float(high))
