"""Factor model of benchmark tables: abilities of arms, loadings of tasks, residual variances.

In log odds, a score is intercept(task) + loading(task) × ability(arm, source), plus a deviation of
this arm on this task, plus the sampling error of the table. An arm's ability varies between
sources, as harnesses and prompts do; abilities within a family are correlated. The updates are
closed-form and alternate until convergence.
"""

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

MAX_ITERATIONS = 300
_LOADING_SD = 0.15
_MIN_VARIANCE = 0.02
_YEARLY_GAIN_PENALTY = 5.0
"""Ridge penalty on the yearly gain in ability, in years²."""

_MAX_SOURCE_VARIANCE = 0.4
"""Upper bound of the variance between sources, relative to an ability variance of 1.

Few arms are in two tables; unbounded, this variance could explain all differences.
"""


class BenchmarkMatrix(Struct, frozen=True):
    """Mean scores of arms on the tasks of all tables, (T, A), NaN where there is none.

    Attributes:
        tasks: the T benchmarks.
        sources: the table of each task.
        arms: the A arms.
        families: the family of each arm.
        released: the release date of each arm as a fractional year; NaN where it is unknown.
        score: (T, A), mean scores from 0 to 1.
        error: (T, A), their standard errors.
    """

    tasks: tuple[str, ...]
    sources: tuple[str, ...]
    arms: tuple[str, ...]
    families: tuple[str, ...]
    released: tuple[float, ...]
    score: Matrix
    error: Matrix

    def mask(self, hidden: NDArray[np.bool_]) -> "BenchmarkMatrix":
        """Return the same tables without the `hidden` cells, (T, A)."""
        return replace(self, score=np.where(hidden, np.nan, self.score))


class FactorModel(Struct, frozen=True):
    """Fitted factors, in log odds.

    Attributes:
        intercept: (T,).
        loading: (T,).
        task_covariance: (T, 2, 2), covariance of each task's intercept and loading.
        ability: (A,), mean 0 and variance 1 over all arms.
        ability_variance: (A,), variance of each ability.
        source_ability: (T, A), each ability on the source of a task.
        source_ability_variance: (T, A), its variance.
        family: mean ability and its variance by family.
        yearly_gain: gain in ability per year of release.
        within_family_variance: variance of abilities around their family's mean and yearly gain.
        source_variance: variance of an arm's ability from source to source.
        task_variance: variance of an arm's deviation on a single task.
    """

    intercept: Vector
    loading: Vector
    task_covariance: NDArray[np.float64]
    ability: Vector
    ability_variance: Vector
    source_ability: Matrix
    source_ability_variance: Matrix
    family: dict[str, tuple[float, float]]
    yearly_gain: float
    within_family_variance: float
    source_variance: float
    task_variance: float


class _AbilityEstimate(Struct, frozen=True):
    """Each arm's ability overall, (A,), and on each source, (S, A), with variances."""

    mean: Vector
    variance: Vector
    by_source: Matrix
    by_source_variance: Matrix
    source_variance: float


def to_log_odds(score: Matrix, error: Matrix) -> tuple[Matrix, Matrix]:
    """Return scores and their squared errors in log odds, clipped away from 0 and 1."""
    inside = np.clip(score, 0.005, 0.995)
    slope = inside * (1 - inside)
    return np.log(inside / (1 - inside)), (np.maximum(error, 0.002) / slope) ** 2


def from_log_odds(odds: Matrix) -> Matrix:
    """Return the scores of log odds."""
    return np.asarray(1 / (1 + np.exp(-odds)), dtype=np.float64)


def fit_factors(cells: BenchmarkMatrix) -> FactorModel:
    """Return the factors of `cells`; deterministic."""
    seen = np.isfinite(cells.score)
    odds, spread = to_log_odds(np.where(seen, cells.score, 0.5), np.where(seen, cells.error, 1.0))
    names, groups = sorted(set(cells.sources)), sorted(set(cells.families))
    source = np.array([names.index(name) for name in cells.sources])
    member = np.array([groups.index(family) for family in cells.families])
    counts = np.maximum(seen.sum(axis=1), 1)
    intercept, loading = (odds * seen).sum(axis=1) / counts, np.ones(len(cells.tasks))
    task_covariance = np.zeros((len(cells.tasks), 2, 2))
    family_mean, family_precision = np.zeros(len(groups)), np.ones(len(groups))
    within, between, source_variance, task_variance = 1.0, 0.5, 0.2, 0.1
    age, yearly_gain = _years_from_mean(cells.released), 0.0
    previous = np.zeros(len(cells.arms))
    for _ in range(MAX_ITERATIONS):
        weight = seen / (spread + task_variance)
        pull = loading[:, None] * weight * (odds - intercept[:, None])
        precision = _sum_by_source(source, loading[:, None] ** 2 * weight, len(names))
        evidence = _sum_by_source(source, pull, len(names)), precision
        abilities = _estimate_abilities(
            evidence, family_mean[member] + yearly_gain * age, within, source_variance
        )
        abilities, intercept, loading = _standardize(abilities, intercept, loading)
        detrended = abilities.mean - yearly_gain * age
        family_mean, family_precision = _estimate_family_means(
            detrended, member, len(groups), within, between
        )
        yearly_gain = float(age @ (abilities.mean - family_mean[member])) / (
            float(age @ age) + _YEARLY_GAIN_PENALTY
        )
        about = (abilities.mean - family_mean[member] - yearly_gain * age) ** 2 + abilities.variance
        within, source_variance = max(float(about.mean()), _MIN_VARIANCE), abilities.source_variance
        between = max(float(np.mean(family_mean**2 + 1 / family_precision)), _MIN_VARIANCE)
        local, local_variance = abilities.by_source[source], abilities.by_source_variance[source]
        mean_loading = float(counts @ loading) / float(counts.sum())
        intercept, loading, task_covariance = _fit_tasks(
            odds, weight, local, local_variance, mean_loading
        )
        residual = (odds - intercept[:, None] - loading[:, None] * local) ** 2
        residual += loading[:, None] ** 2 * local_variance
        free = max(int(seen.sum()) - len(cells.tasks), 1)
        task_variance = max(task_variance * float((residual * weight).sum()) / free, _MIN_VARIANCE)
        change = float(np.abs(abilities.mean - previous).max(initial=0.0))
        previous = abilities.mean
        if change < 1e-5:
            break
    family = {
        name: (float(family_mean[at]), float(1 / family_precision[at]))
        for at, name in enumerate(groups)
    }
    return FactorModel(
        intercept=intercept,
        loading=loading,
        task_covariance=task_covariance,
        ability=previous,
        ability_variance=abilities.variance,
        source_ability=local,
        source_ability_variance=local_variance,
        family=family,
        yearly_gain=yearly_gain,
        within_family_variance=within,
        source_variance=source_variance,
        task_variance=task_variance,
    )


def _years_from_mean(released: tuple[float, ...]) -> Vector:
    """Return the years since the mean release date; 0 where the date is unknown."""
    years = np.array(released, dtype=np.float64)
    known = np.isfinite(years)
    if not known.any():
        return np.zeros(len(years))
    return np.where(known, years - years[known].mean(), 0.0)


def _sum_by_source(source: NDArray[np.intp], rows: Matrix, count: int) -> Matrix:
    summed = np.zeros((count, rows.shape[1]))
    np.add.at(summed, source, rows)
    return summed


def _estimate_abilities(
    evidence: tuple[Matrix, Matrix], expected: Vector, within: float, source_variance: float
) -> _AbilityEstimate:
    """Return abilities from each source's weighted residuals and precisions, both (S, A)."""
    pull, precision = evidence
    present = precision > 0
    alone = np.divide(pull, precision, out=np.zeros_like(pull), where=present)
    weights_by_source = precision / (1 + source_variance * precision)
    total = 1 / within + weights_by_source.sum(axis=0)
    mean = (expected / within + (weights_by_source * alone).sum(axis=0)) / total
    others = total - weights_by_source
    elsewhere = (total * mean - weights_by_source * alone) / others
    loose = source_variance + 1 / others
    tight = precision + 1 / loose
    local = (pull + elsewhere / loose) / tight
    # Only arms with two or more sources inform the variance between sources.
    several = present & (present.sum(axis=0) > 1)
    error = np.divide(1.0, precision, out=np.ones_like(pull), where=present) + 1 / others
    weight = several / (error + source_variance) ** 2
    apart = ((alone - elsewhere) ** 2 - error) * weight
    found = float(apart.sum() / weight.sum()) if several.any() else source_variance
    return _AbilityEstimate(
        mean, 1 / total, local, 1 / tight, min(max(found, _MIN_VARIANCE), _MAX_SOURCE_VARIANCE)
    )


def _standardize(
    abilities: _AbilityEstimate, intercept: Vector, loading: Vector
) -> tuple[_AbilityEstimate, Vector, Vector]:
    """Standardise abilities and adjust the tasks, since only differences are identified."""
    mean, variance = abilities.mean, abilities.variance
    centre = float(mean.mean())
    scale = float(np.sqrt(np.mean((mean - centre) ** 2 + variance)))
    standardized = _AbilityEstimate(
        (mean - centre) / scale,
        variance / scale**2,
        (abilities.by_source - centre) / scale,
        abilities.by_source_variance / scale**2,
        abilities.source_variance / scale**2,
    )
    return standardized, intercept + loading * centre, loading * scale


def _estimate_family_means(
    ability: Vector, member: NDArray[np.intp], count: int, within: float, between: float
) -> tuple[Vector, Vector]:
    sizes = np.bincount(member, minlength=count)
    family_precision = sizes / within + 1 / between
    sums = np.bincount(member, ability, minlength=count)
    return sums / within / family_precision, family_precision


def _fit_tasks(
    odds: Matrix, weight: Matrix, ability: Matrix, local_variance: Matrix, mean_loading: float
) -> tuple[Vector, Vector, NDArray[np.float64]]:
    """Fit each task's line over the abilities, (T, A), shrinking loadings to `mean_loading`."""
    normal = np.empty((len(odds), 2, 2))
    normal[:, 0, 0] = weight.sum(axis=1) + 1e-3
    normal[:, 0, 1] = normal[:, 1, 0] = (weight * ability).sum(axis=1)
    normal[:, 1, 1] = (weight * (ability**2 + local_variance)).sum(axis=1) + 1 / _LOADING_SD**2
    right = np.empty((len(odds), 2, 1))
    right[:, 0, 0] = (weight * odds).sum(axis=1)
    right[:, 1, 0] = (weight * odds * ability).sum(axis=1) + mean_loading / _LOADING_SD**2
    line = np.asarray(np.linalg.solve(normal, right)[..., 0], dtype=np.float64)
    return line[:, 0], line[:, 1], np.asarray(np.linalg.inv(normal), dtype=np.float64)
