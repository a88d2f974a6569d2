"""How much arms are believed to differ, and how that is read off outcomes (empirical Bayes)."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.routing.policies.joint import Joint, Matrix
from sophia.routing.policies.policy import Vector

Rows = NDArray[np.intp]

ROUNDS = 12


class Settings(Struct, frozen=True):
    """The beliefs before any outcome, as standard deviations on the scale of a score from 0 to 1.

    `shared_*` are of the line common to all arms, the others of one arm's deviation from it. Scores
    of one expectation q vary by `noise` × q(1-q), and never by less than `noise` × `calm`; `noise`
    is learned, counting as `noise_weight` outcomes. `steadiness` is how many terms the widths count
    for when they are re-estimated. `novelty_sd` is what an arm is doubted by on a request unlike
    any seen. `flat` and `unknown_sd` are the mean and the sd for arms of which nothing is known.
    Tenants depart from what all share by `tenant_*`. One model called with another effort or by
    other providers departs by `variant_sd` from how it usually is; so many `variants` are told
    apart in all. `voice` is how many outcomes, arm by arm, one
    tenant can ever move the others' ratings with; at 0 nothing crosses from tenant to tenant.
    """

    shared_bias_sd: float = 0.60
    shared_task_sd: float = 0.30
    shared_embedding_sd: float = 0.03
    shared_feature_sd: float = 0.10
    bias_sd: float = 0.08
    task_sd: float = 0.04
    embedding_sd: float = 0.005
    noise: float = 0.9
    calm: float = 0.15
    noise_weight: float = 100.0
    steadiness: float = 6.0
    novelty_sd: float = 0.10
    flat: float = 0.6
    unknown_sd: float = 0.12
    tenant_shared_sd: float = 0.05
    tenant_bias_sd: float = 0.04
    tenant_task_sd: float = 0.03
    tenant_blocks: int = 2048
    variant_sd: float = 0.04
    variants: int = 64
    voice: float = 0.0


class Outcomes(Struct, frozen=True):
    """Outcomes in bulk: the distinct designs, and arm by arm what was observed of which of them.

    Attributes:
        designs: shape (N, S), what the shared line sees; its first P columns are an arm's terms.
        rows: for each arm, indices into `designs`.
        values: for each arm, the scores less what its prior expected.
        noises: for each arm, the variances of these values.
    """

    designs: Matrix
    rows: Sequence[Rows]
    values: Sequence[Vector]
    noises: Sequence[Vector]


def line_variance(settings: Settings, groups: Sequence[slice], factors: Vector) -> Vector:
    """Return the prior variance of the shared line's terms, (S,).

    Args:
        settings: holds the widths.
        groups: the terms of the constant, the tasks, the embedding and the features.
        factors: shape (4,), what the groups' variances are multiplied by.
    """
    widths = (
        settings.shared_bias_sd,
        settings.shared_task_sd,
        settings.shared_embedding_sd,
        settings.shared_feature_sd,
    )
    variance: Vector = np.empty(groups[-1].stop)
    for group, width, factor in zip(groups, widths, factors, strict=True):
        variance[group] = width * width * factor
    return variance


def arm_variances(
    settings: Settings, groups: Sequence[slice], factors: Vector, doubts: Matrix
) -> Matrix:
    """Return the prior variance of each arm's terms, (A, P), from what its prior doubts, (A, T).

    `groups` and `factors` are as for the line; an arm has no terms for features.
    """
    bias, task = settings.bias_sd**2, settings.task_sd**2
    share = bias / (bias + task)
    doubted = doubts**2
    variances = np.empty((len(doubts), groups[2].stop))
    variances[:, 0] = share * doubted.mean(axis=1)
    variances[:, groups[1]] = (1.0 - share) * doubted
    variances[:, groups[2]] = settings.embedding_sd**2
    for group, factor in zip(groups[:3], factors, strict=False):
        variances[:, group] *= factor
    return variances


def posterior(outcomes: Outcomes, shared: Vector, own: Matrix) -> Joint:
    """Return the posterior of all outcomes at once, from variances (S,) and (A, P)."""
    return _Sums(outcomes, own.shape[1]).posterior(shared, own)


def tune(
    outcomes: Outcomes, shared: Vector, own: Matrix, groups: Sequence[slice], steadiness: float
) -> Matrix:
    """Return the factors, (2, groups), under which the outcomes are likeliest, held towards 1.

    The first row multiplies the variances of the shared line, the second those of the arms.

    Each round takes the posterior's second moments for the prior's (expectation maximisation).
    Arms without outcomes have no say. `groups` are slices of the S terms.
    """
    sums = _Sums(outcomes, own.shape[1])
    seen = [row for row, rows in enumerate(outcomes.rows) if len(rows)]
    line, arm = np.ones(len(groups)), np.ones(len(groups))
    for _ in range(ROUNDS):
        now_line, now_arm = shared.copy(), own.copy()
        for number, group in enumerate(groups):
            now_line[group] *= line[number]
            now_arm[:, group] *= arm[number]
        joint = sums.posterior(now_line, now_arm)
        moments = joint.mean**2 + np.diag(joint.cov)
        line = _ratios(moments[None], shared[None], groups, steadiness)
        if seen:
            pairs = [joint.deviation(row) for row in seen]
            squares = np.stack([mean**2 + variance for mean, variance in pairs])
            arm = _ratios(squares, own[seen], groups, steadiness)
    return np.stack([line, arm])


def _ratios(
    moments: Matrix, variances: Matrix, groups: Sequence[slice], steadiness: float
) -> Vector:
    ratios = np.ones(len(groups))
    for number, group in enumerate(groups):
        part = (moments[:, group] / variances[:, group]).ravel()
        if len(part):
            ratios[number] = (steadiness + part.sum()) / (steadiness + len(part))
    return ratios


class _Sums:
    """The sums over outcomes that a posterior needs, whatever the widths."""

    def __init__(self, outcomes: Outcomes, own: int) -> None:
        terms, arms = outcomes.designs.shape[1], len(outcomes.rows)
        self.whole = np.zeros((terms, terms))
        self.pull = np.zeros(terms)
        self.cross = np.zeros((arms, terms, own))
        self.own_pull = np.zeros((arms, own))
        for row, (picked, values, noises) in enumerate(
            zip(outcomes.rows, outcomes.values, outcomes.noises, strict=True)
        ):
            design = outcomes.designs[picked]
            weighted = design / noises[:, None]
            square, pull = weighted.T @ design, values @ weighted
            self.whole += square
            self.pull += pull
            self.cross[row] = square[:, :own]
            self.own_pull[row] = pull[:own]

    def posterior(self, shared: Vector, own: Matrix) -> Joint:
        arms, _, width = self.cross.shape
        identity = np.eye(width)
        precision = self.cross[:, :width] + identity * (1 / own)[:, None, :]
        spread = np.linalg.inv(precision)
        spread = (spread + spread.transpose(0, 2, 1)) / 2
        tie = self.cross @ spread
        offset = np.einsum("apq,aq->ap", spread, self.own_pull)
        information = np.diag(1 / shared) + self.whole
        pull = self.pull.copy()
        for arm in range(arms):
            information -= tie[arm] @ self.cross[arm].T
            pull -= self.cross[arm] @ offset[arm]
        cov = np.linalg.inv(information)
        cov = (cov + cov.T) / 2
        return Joint.of([cov @ pull, cov, offset, tie, spread])
