"""Benchmark tables as abilities of arms and loadings of tasks, with what the model leaves open.

On the scale of log odds, a score is intercept(task) + loading(task) × ability(arm, source), plus a
departure that only this arm has on this task, plus the sampling error of the table. An arm's
ability differs a little from source to source, as harness and prompts do; abilities of one family
are alike. Everything is closed form, alternated until it stands still.
"""

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

ROUNDS = 300
_LOADING_SD = 0.15
_LEAST = 0.02
_STEADY = 5.0
"""How many years² of doubt the progress of a year is held down by."""

_MOST_DRIFT = 0.4
"""Of an ability's variance, 1. Few arms stand in two tables; unbounded, drift could explain all."""


class Cells(Struct, frozen=True):
    """Benchmark tables joined: mean scores of arms on tasks, (T, A), NaN where there is none.

    Attributes:
        tasks: the T benchmarks.
        sources: which table each task is from.
        arms: the A arms.
        families: the family of each arm.
        released: when each arm came out, as a year with its fraction; NaN where that is unknown.
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

    def without(self, hidden: NDArray[np.bool_]) -> "Cells":
        """Return the same tables with the `hidden` cells, (T, A), taken out."""
        return replace(self, score=np.where(hidden, np.nan, self.score))


class Factors(Struct, frozen=True):
    """What the tables come to, on the scale of log odds.

    Attributes:
        intercept: (T,).
        loading: (T,).
        doubt: (T, 2, 2), covariance of each task's intercept and loading.
        ability: (A,), mean 0 and variance 1 over all arms.
        unsure: (A,), variance of each ability.
        local: (T, A), each ability on the source that a task is from.
        local_unsure: (T, A), its variance.
        family: mean ability and its variance by family.
        progress: what a year later gains in ability.
        within: variance of abilities about their family's mean and the year's progress.
        drift: variance of an arm's ability from source to source.
        noise: variance of an arm's departure on a single task.
    """

    intercept: Vector
    loading: Vector
    doubt: NDArray[np.float64]
    ability: Vector
    unsure: Vector
    local: Matrix
    local_unsure: Matrix
    family: dict[str, tuple[float, float]]
    progress: float
    within: float
    drift: float
    noise: float


class _Abilities(Struct, frozen=True):
    """Each arm's ability (A,), and what it is on each source (S, A); all with variances."""

    mean: Vector
    variance: Vector
    local: Matrix
    unsure: Matrix
    drift: float


def log_odds(score: Matrix, error: Matrix) -> tuple[Matrix, Matrix]:
    """Return scores and their squared errors as log odds; none is surer than its border allows."""
    inside = np.clip(score, 0.005, 0.995)
    slope = inside * (1 - inside)
    return np.log(inside / (1 - inside)), (np.maximum(error, 0.002) / slope) ** 2


def share(odds: Matrix) -> Matrix:
    """Return the scores of log odds."""
    return np.asarray(1 / (1 + np.exp(-odds)), dtype=np.float64)


def fit(cells: Cells) -> Factors:
    """Return the factors of `cells`; the same for the same tables."""
    seen = np.isfinite(cells.score)
    odds, spread = log_odds(np.where(seen, cells.score, 0.5), np.where(seen, cells.error, 1.0))
    names, groups = sorted(set(cells.sources)), sorted(set(cells.families))
    source = np.array([names.index(name) for name in cells.sources])
    member = np.array([groups.index(family) for family in cells.families])
    counts = np.maximum(seen.sum(axis=1), 1)
    intercept, loading = (odds * seen).sum(axis=1) / counts, np.ones(len(cells.tasks))
    doubt = np.zeros((len(cells.tasks), 2, 2))
    middle, certain = np.zeros(len(groups)), np.ones(len(groups))
    within, between, drift, noise = 1.0, 0.5, 0.2, 0.1
    age, progress = _ages(cells.released), 0.0
    before = np.zeros(len(cells.arms))
    for _ in range(ROUNDS):
        weight = seen / (spread + noise)
        pull = loading[:, None] * weight * (odds - intercept[:, None])
        precision = _by(source, loading[:, None] ** 2 * weight, len(names))
        told = _by(source, pull, len(names)), precision
        abilities = _abilities(told, middle[member] + progress * age, within, drift)
        abilities, intercept, loading = _centred(abilities, intercept, loading)
        younger = abilities.mean - progress * age
        middle, certain = _middles(younger, member, len(groups), within, between)
        progress = float(age @ (abilities.mean - middle[member])) / (float(age @ age) + _STEADY)
        about = (abilities.mean - middle[member] - progress * age) ** 2 + abilities.variance
        within, drift = max(float(about.mean()), _LEAST), abilities.drift
        between = max(float(np.mean(middle**2 + 1 / certain)), _LEAST)
        local, unsure = abilities.local[source], abilities.unsure[source]
        usual = float(counts @ loading) / float(counts.sum())
        intercept, loading, doubt = _tasks(odds, weight, local, unsure, usual)
        missed = (odds - intercept[:, None] - loading[:, None] * local) ** 2
        missed += loading[:, None] ** 2 * unsure
        free = max(int(seen.sum()) - len(cells.tasks), 1)
        noise = max(noise * float((missed * weight).sum()) / free, _LEAST)
        moved = float(np.abs(abilities.mean - before).max(initial=0.0))
        before = abilities.mean
        if moved < 1e-5:
            break
    family = {
        name: (float(middle[at]), float(1 / certain[at])) for at, name in enumerate(groups)
    }
    return Factors(
        intercept=intercept,
        loading=loading,
        doubt=doubt,
        ability=before,
        unsure=abilities.variance,
        local=local,
        local_unsure=unsure,
        family=family,
        progress=progress,
        within=within,
        drift=drift,
        noise=noise,
    )


def _ages(released: tuple[float, ...]) -> Vector:
    """Return the years since the mean release; 0 where that is unknown."""
    years = np.array(released, dtype=np.float64)
    known = np.isfinite(years)
    if not known.any():
        return np.zeros(len(years))
    return np.where(known, years - years[known].mean(), 0.0)


def _by(source: NDArray[np.intp], rows: Matrix, count: int) -> Matrix:
    summed = np.zeros((count, rows.shape[1]))
    np.add.at(summed, source, rows)
    return summed


def _abilities(
    told: tuple[Matrix, Matrix], expected: Vector, within: float, drift: float
) -> _Abilities:
    """Weigh what each source says of each arm; no source says more than its drift lets it."""
    pull, precision = told
    spoke = precision > 0
    alone = np.divide(pull, precision, out=np.zeros_like(pull), where=spoke)
    worth = precision / (1 + drift * precision)
    total = 1 / within + worth.sum(axis=0)
    mean = (expected / within + (worth * alone).sum(axis=0)) / total
    others = total - worth
    elsewhere = (total * mean - worth * alone) / others
    loose = drift + 1 / others
    tight = precision + 1 / loose
    local = (pull + elsewhere / loose) / tight
    # Only an arm that is known from two sources tells how far sources differ.
    several = spoke & (spoke.sum(axis=0) > 1)
    error = np.divide(1.0, precision, out=np.ones_like(pull), where=spoke) + 1 / others
    weight = several / (error + drift) ** 2
    apart = ((alone - elsewhere) ** 2 - error) * weight
    found = float(apart.sum() / weight.sum()) if several.any() else drift
    return _Abilities(mean, 1 / total, local, 1 / tight, min(max(found, _LEAST), _MOST_DRIFT))


def _centred(
    abilities: _Abilities, intercept: Vector, loading: Vector
) -> tuple[_Abilities, Vector, Vector]:
    """Move what abilities have in common into the tasks: only the differences are identified."""
    mean, variance = abilities.mean, abilities.variance
    centre = float(mean.mean())
    scale = float(np.sqrt(np.mean((mean - centre) ** 2 + variance)))
    moved = _Abilities(
        (mean - centre) / scale,
        variance / scale**2,
        (abilities.local - centre) / scale,
        abilities.unsure / scale**2,
        abilities.drift / scale**2,
    )
    return moved, intercept + loading * centre, loading * scale


def _middles(
    ability: Vector, member: NDArray[np.intp], count: int, within: float, between: float
) -> tuple[Vector, Vector]:
    sizes = np.bincount(member, minlength=count)
    certain = sizes / within + 1 / between
    return np.bincount(member, ability, minlength=count) / within / certain, certain


def _tasks(
    odds: Matrix, weight: Matrix, ability: Matrix, unsure: Matrix, usual: float
) -> tuple[Vector, Vector, NDArray[np.float64]]:
    """Fit each task's line over the abilities, (T, A); loadings are pulled to the usual one."""
    normal = np.empty((len(odds), 2, 2))
    normal[:, 0, 0] = weight.sum(axis=1) + 1e-3
    normal[:, 0, 1] = normal[:, 1, 0] = (weight * ability).sum(axis=1)
    normal[:, 1, 1] = (weight * (ability**2 + unsure)).sum(axis=1) + 1 / _LOADING_SD**2
    right = np.empty((len(odds), 2, 1))
    right[:, 0, 0] = (weight * odds).sum(axis=1)
    right[:, 1, 0] = (weight * odds * ability).sum(axis=1) + usual / _LOADING_SD**2
    line = np.asarray(np.linalg.solve(normal, right)[..., 0], dtype=np.float64)
    return line[:, 0], line[:, 1], np.asarray(np.linalg.inv(normal), dtype=np.float64)
