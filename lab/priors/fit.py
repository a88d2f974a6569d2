"""Quality priors fitted to benchmark tables: one per model, by kind of work."""

from collections.abc import Container, Mapping, Sequence

import numpy as np
from msgspec import json

from lab.priors.factor_model import (
    BenchmarkMatrix,
    FactorModel,
    Vector,
    fit_factors,
    from_log_odds,
    to_log_odds,
)
from lab.priors.held_out import predict_held_out, variance_inflation
from sophia.learning.priors.book import (
    MIN_SD,
    UNMEASURED_SD_RANGE,
    ArmPrior,
    PriorBasis,
    PriorTable,
)

_CARRY_OVER = 0.5
"""Share of a model's deviation on a task that carries over to other tasks of the kind, and of a
family's mean to its next model; our judgement."""


def encode_book(book: PriorTable) -> bytes:
    """Return the book as JSON, the same for the same book."""
    return json.format(json.encode(book, order="deterministic"), indent=1) + b"\n"


def fit_prior_book(  # noqa: PLR0913 # the tables, and the meaning of their names
    cells: BenchmarkMatrix,
    kinds: Mapping[str, str],
    successors: Mapping[str, tuple[str, int]],
    pairs: Sequence[tuple[str, str]],
    listed: Container[str],
    *,
    folds: int = 30,
    anchors: Container[str] | None = None,
) -> PriorTable:
    """Return the priors fitted to benchmark tables.

    Args:
        cells: the tables.
        kinds: the kind of each task.
        successors: by current id a measured predecessor and the number of generations between them;
            0 for another name of the same model.
        pairs: older and newer arms of one line that were both measured.
        listed: the ids of the catalogue; unmeasured models start from the mean ability of those
            that were measured.
        folds: the number of cross-validation folds that the spread is calibrated on.
        anchors: the sources with tasks as hard as requests, so that their levels count; the
            others only compare models, as an index does. None: all.
    """
    spread = variance_inflation(predict_held_out(cells, folds=folds))
    builder = _PriorBuilder(cells, fit_factors(cells), kinds, spread, anchors)
    gain, gain_variance = builder.generation_gain(pairs)
    arms = {arm: builder.build_measured(at) for at, arm in enumerate(cells.arms)}
    for arm, (predecessor, generations) in sorted(successors.items()):
        if arm not in arms and predecessor in cells.arms:
            at = cells.arms.index(predecessor)
            same = arms[predecessor] if not generations else None
            arms[arm] = same or builder.build_successor(
                at, gain * generations, gain_variance * generations
            )
    mean_ability = builder.mean_ability([arm for arm in cells.arms if arm in listed])
    known = {
        name: builder.build_unmeasured(name, mean_ability)
        for name in sorted(builder.factors.family)
    }
    sources = tuple(sorted(set(cells.sources)))
    return PriorTable(
        kinds=builder.names,
        arms=arms,
        families=known,
        unknown_family=builder.build_unmeasured("", mean_ability),
        variance_inflation=spread,
        sources=sources,
    )


class _PriorBuilder:
    """Priors of arms from fitted factors."""

    def __init__(
        self,
        cells: BenchmarkMatrix,
        factors: FactorModel,
        kinds: Mapping[str, str],
        spread: float,
        anchors: Container[str] | None,
    ) -> None:
        self._cells = cells
        self.factors = factors
        self.names = tuple(sorted({kinds[task] for task in cells.tasks}))
        member = np.array([self.names.index(kinds[task]) for task in cells.tasks])
        self._of_kind = member == np.arange(len(self.names))[:, None]
        self._spread = spread
        # A kind's line is that of its median task, so that small tables do not count more.
        typical = np.array([anchors is None or source in anchors for source in cells.sources])
        lines = [rows & typical if np.any(rows & typical) else rows for rows in self._of_kind]
        self._intercept = np.array([np.median(factors.intercept[rows]) for rows in lines])
        self._loading = np.array([np.median(factors.loading[rows]) for rows in lines])

    def build_measured(self, at: int) -> ArmPrior:
        """Return the prior of a measured arm, with its deviation on each kind."""
        shift, left = self._deviations(at)
        odds = self._intercept + self._loading * self.factors.ability[at] + shift
        variance = self._loading**2 * self.factors.ability_variance[at] + left
        seen = np.isfinite(self._cells.score[:, at])
        of = {source for source, known in zip(self._cells.sources, seen, strict=True) if known}
        return self._build_arm_prior(odds, variance, "measured", tuple(sorted(of)))

    def build_successor(self, at: int, gain: float, gain_variance: float) -> ArmPrior:
        """Return the prior of a measured arm's successor, which keeps its deviations."""
        shift, left = self._deviations(at)
        odds = self._intercept + self._loading * (self.factors.ability[at] + gain) + shift
        variance = self._loading**2 * (self.factors.ability_variance[at] + gain_variance) + left
        return self._build_arm_prior(
            odds, variance, "successor", (self._cells.arms[at],), UNMEASURED_SD_RANGE
        )

    def build_unmeasured(self, family: str, mean_ability: float) -> ArmPrior:
        """Return the wide prior of an arm without a benchmark, at the mean of current arms."""
        family_mean, family_variance = self.factors.family.get(family, (0.0, 0.0))
        variance = (
            self._loading**2 * (family_variance + self.factors.within_family_variance)
            + self._deviation_variance()
        )
        # Tables lag behind: current arms give the level, the family only the deviation from it.
        odds = self._intercept + self._loading * (mean_ability + _CARRY_OVER * family_mean)
        return self._build_arm_prior(odds, variance, "unmeasured", (), UNMEASURED_SD_RANGE)

    def mean_ability(self, arms: Sequence[str]) -> float:
        """Return the mean ability of `arms`."""
        places = [at for at, arm in enumerate(self._cells.arms) if arm in set(arms)]
        return float(self.factors.ability[places].mean()) if places else 0.0

    def generation_gain(self, pairs: Sequence[tuple[str, str]]) -> tuple[float, float]:
        """Return the mean gain in ability per generation, and its variance between lines."""
        place = {arm: at for at, arm in enumerate(self._cells.arms)}
        gains = [
            float(self.factors.ability[place[new]] - self.factors.ability[place[old]])
            for old, new in pairs
            if old in place and new in place
        ]
        if len(gains) < 2:
            return 0.0, 0.25
        return float(np.mean(gains)), float(np.var(gains, ddof=1))

    def _deviation_variance(self) -> Vector:
        """Return the variance of an arm's scores on tasks of a kind, given its ability."""
        return np.asarray(
            self._loading**2 * self.factors.source_variance + self.factors.task_variance
        )

    def _deviations(self, at: int) -> tuple[Vector, Vector]:
        cells, factors = self._cells, self.factors
        seen = np.isfinite(cells.score[:, at])
        score = np.where(seen, cells.score[:, at], 0.5)
        odds, sampling = to_log_odds(score, np.where(seen, cells.error[:, at], 1.0))
        residual = odds - factors.intercept - factors.loading * factors.ability[at]
        shared_variance, task_variance = (
            _CARRY_OVER * self._deviation_variance(),
            (1 - _CARRY_OVER) * self._deviation_variance(),
        )
        shift, left = np.zeros(len(self.names)), shared_variance + task_variance
        for kind, rows in enumerate(self._of_kind & seen):
            if not rows.any():
                continue
            weight = 1 / (sampling[rows] + factors.task_variance)
            error = 1 / weight.sum() + task_variance[kind]
            keep = shared_variance[kind] / (shared_variance[kind] + error)
            shift[kind] = keep * float(weight @ residual[rows]) / float(weight.sum())
            left[kind] = shared_variance[kind] * (1 - keep) + task_variance[kind]
        return shift, left

    def _build_arm_prior(
        self,
        odds: Vector,
        variance: Vector,
        basis: PriorBasis,
        of: tuple[str, ...],
        limits: tuple[float, float] = (MIN_SD, UNMEASURED_SD_RANGE[1]),
    ) -> ArmPrior:
        mean = from_log_odds(odds)
        sd = np.clip(np.sqrt(variance * self._spread) * mean * (1 - mean), *limits)
        return ArmPrior(_rounded(mean), _rounded(sd), basis, of)


def _rounded(values: Vector) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
