"""Quality priors from ratings and benchmark tables, joined on the scale of the ratings.

In log odds, a score on a task is a line over the arm's rating. The tables that share arms with the
ratings give the lines; by its line each table then rates its own arms, and an arm's estimates are
averaged by their precision. A single slope, less steep than most tables', turns ratings into
expected scores: the next table may measure something else.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from msgspec import Struct, json

from lab.priors.benchmarks import BenchmarkMatrix, BenchmarkNames
from lab.priors.ratings import Ratings
from sophia.learning.priors.book import ArmPrior, PriorBasis, PriorTable
from sophia.learning.priors.names import ModelName, parse_model_name
from sophia.routing.bandit.policy import Matrix, Vector

REFERENCE = 1400.0
"""The rating at which `levels` are expected, about that of a current model of medium size."""
SLOPE = 0.6
"""Log odds of a right answer per 100 points of rating.

Of 0.4, 0.6, 0.8 and 1.0 the one with the best first choices on left-out tables; the tables' own
slopes are 0.2 to 1.8.
"""
TABLE_SLOPE, TABLE_SLOPE_WEIGHT = 0.7, 2.0
"""The slope that a table's own is shrunk to, and the strength, in squared units of 100 points."""
RATING_SD = 45.0
"""Standard deviation of an arm's ability on a new kind of traffic around its rating."""
UNRATED_SD = 120.0
"""Of all rated models; the starting point of an arm that only tables measure."""
CATEGORY_SHARE, TABLE_SHARE = 0.25, 0.5
"""Share of an arm's deviation in a category, or on a table's tasks of a kind, that carries over."""
LEVEL_RANGE = (0.5, 0.75)
"""Range of levels; tables of easy questions would make all models alike."""
KIND_SD = 0.25
"""Standard deviation of an arm's log odds by kind around its own line."""
SD_RANGE, RELATED_SD_RANGE = (0.06, 0.15), (0.10, 0.15)
SUCCESSOR_GAIN, SUCCESSOR_SD = 22.0, 43.0
"""Median gain of a version over the one before it and its spread, over 116 rated pairs."""


class _Line(Struct, frozen=True):
    """A source's lines: the intercept of each task at the reference, (T,), and their slope."""

    intercept: Vector
    slope: float
    residual_sd: float


class _Estimate:
    """The precision-weighted mean of an arm's ratings, with its deviations by kind of work."""

    def __init__(self) -> None:
        self.weighted = self.precision = 0.0
        self.sources: list[str] = []
        self.deviations: defaultdict[str, float] = defaultdict(float)

    def add(self, rating: float, sd: float, source: str = "") -> None:
        self.weighted += rating / sd**2
        self.precision += 1.0 / sd**2
        if source:
            self.sources.append(source)

    @property
    def rating(self) -> float:
        return self.weighted / self.precision

    @property
    def sd(self) -> float:
        return float(np.hypot(self.precision**-0.5, RATING_SD))


SIZE_BANDS = (20.0,)
"""Upper ends, in billions of parameters, of the bands that give unrated models a prior.

Small models are rated 230 points below the reference, with a spread of about 95 points. Of larger
ones the size tells less than their year.
"""


def encode_table(table: PriorTable) -> bytes:
    """Return the priors as JSON, one arm per line, the same for the same priors."""
    text = json.encode(table, order="deterministic").decode()
    return text.replace('"arms":{', '"arms":{\n').replace("]},", "]},\n").encode() + b"\n"


def fit_priors(
    ratings: Ratings, cells: BenchmarkMatrix, names: BenchmarkNames, listed: Iterable[str] = ()
) -> PriorTable:
    """Return the priors of every rated or measured arm.

    Args:
        ratings: Arena's ratings.
        cells: the mean scores of benchmark tables.
        names: the meaning of the tables' names.
        listed: ids of models; those that follow a rated version get its successor's prior.
    """
    kinds_of_tasks = [names.find_kind(task) for task in cells.tasks]
    finder = ratings.build_finder(names.rated_as)
    measured = [bool(np.isfinite(column).any()) for column in cells.score.T]
    arms = [arm for arm, known in zip(cells.arms, measured, strict=True) if known]
    rated_as = {arm: finder.find(arm) for arm in (*arms, *names.rated_as)}
    rated_as |= {
        name: name for name in ratings.overall if name not in set(rated_as.values()) - {None}
    }
    estimates = {arm: _Estimate() for arm in rated_as}
    mean_rating = float(np.mean(list(ratings.overall.values())))
    for arm, name in rated_as.items():
        if name is None:
            estimates[arm].add(mean_rating, UNRATED_SD)
            continue
        estimates[arm].add(ratings.overall[name], RATING_SD, "Arena")
        for kind, category in names.categories.items():
            value = ratings.by_category[name].get(category, ratings.overall[name])
            estimates[arm].deviations[kind] += CATEGORY_SHARE * (value - ratings.overall[name])
    levels = _fit_tables(cells, kinds_of_tasks, estimates, rated_as, ratings)
    all_levels = {**names.levels, **levels}
    kinds = tuple(sorted(all_levels))
    level = np.log(np.array([all_levels[kind] / (1 - all_levels[kind]) for kind in kinds]))
    priors = {
        arm: _build_prior(one, kinds, level, _find_basis(one))
        for arm, one in sorted(estimates.items())
        if one.sources
    }
    successors = _find_successors(listed, priors, estimates)
    priors |= {id: _build_prior(one, kinds, level, "successor") for id, one in successors.items()}
    by_size = [
        (most, _build_prior(one, kinds, level, "size")) for most, one in _rate_sizes(ratings)
    ]
    return PriorTable(
        kinds=kinds,
        arms=priors,
        by_size=tuple(by_size),
        sources=("Arena 2026-10-05", *sorted(set(cells.sources))),
    )


def _rate_sizes(ratings: Ratings) -> list[tuple[float, _Estimate]]:
    """Return the mean rating of each band of sizes, with the spread of its models."""
    bands: defaultdict[float, list[float]] = defaultdict(list)
    for name, rating in ratings.overall.items():
        size = parse_model_name(name).billions
        for most in SIZE_BANDS:
            if size is not None and size <= most:
                bands[most].append(rating)
                break
    rated = []
    for most, found in sorted(bands.items()):
        estimate = _Estimate()
        estimate.add(float(np.mean(found)), float(np.std(found)))
        rated.append((most, estimate))
    return rated


def _fit_tables(
    cells: BenchmarkMatrix,
    kinds: list[str],
    estimates: Mapping[str, _Estimate],
    rated_as: Mapping[str, str | None],
    ratings: Ratings,
) -> dict[str, float]:
    """Add every table's ratings of its arms to `estimates`, and return the levels by kind."""
    names = [rated_as.get(arm) for arm in cells.arms]
    rating = np.array([np.nan if name is None else ratings.overall[name] for name in names])
    inside = np.clip(cells.score, 0.005, 0.995)
    odds = np.log(inside / (1 - inside))
    intercepts: defaultdict[str, list[float]] = defaultdict(list)
    for source in sorted(set(cells.sources)):
        rows = [at for at, one in enumerate(cells.sources) if one == source]
        line = _fit_line(odds[rows], (rating - REFERENCE) / 100)
        if line is None:
            continue
        residual = odds[rows] - line.intercept[:, None]
        for at, row in enumerate(rows):
            if np.isfinite(line.intercept[at]):
                intercepts[kinds[row]].append(float(line.intercept[at]))
        sd = max(RATING_SD, 100 * line.residual_sd / line.slope)
        for column, arm in enumerate(cells.arms):
            seen = np.isfinite(residual[:, column])
            if not seen.any():
                continue
            mean = float(residual[seen, column].mean())
            estimates[arm].add(REFERENCE + 100 * mean / line.slope, sd, source)
            own = [kinds[row] for row, known in zip(rows, seen, strict=True) if known]
            for kind in set(own):
                of_kind = residual[seen, column][[one == kind for one in own]]
                share = TABLE_SHARE * len(of_kind) / (len(of_kind) + 1)
                deviation = 100 * (float(of_kind.mean()) - mean) / SLOPE
                estimates[arm].deviations[kind] += share * deviation
    return {
        kind: float(np.clip(1 / (1 + np.exp(-np.median(some))), *LEVEL_RANGE))
        for kind, some in intercepts.items()
    }


def _fit_line(odds: Matrix, rating: Vector) -> _Line | None:
    """Fit the lines of one source's tasks, (T, A), over the arms' ratings, (A,)."""
    seen = np.isfinite(odds) & np.isfinite(rating)
    if not seen.any():
        return None
    products = squares = 0.0
    for task, known in enumerate(seen):
        if known.sum() > 1:
            x = rating[known] - rating[known].mean()
            squares += float(x @ x) / len(odds)
            products += float(x @ odds[task, known]) / len(odds)
    slope = (products + TABLE_SLOPE_WEIGHT * TABLE_SLOPE) / (squares + TABLE_SLOPE_WEIGHT)
    # An arm or a task without any entry has no mean.
    apart = np.where(seen, odds - slope * rating, np.nan)
    counts = np.maximum(seen.sum(axis=1), 1)
    intercept = np.where(seen.any(axis=1), np.nansum(apart, axis=1) / counts, np.nan)
    means = np.nansum(apart - intercept[:, None], axis=0) / np.maximum(seen.sum(axis=0), 1)
    return _Line(intercept, slope, float(means[seen.any(axis=0)].std()))


def _find_basis(estimate: _Estimate) -> PriorBasis:
    return "rated" if estimate.sources == ["Arena"] else "measured"


def _build_prior(
    estimate: _Estimate, kinds: tuple[str, ...], level: Vector, basis: PriorBasis
) -> ArmPrior:
    shift = np.array([estimate.deviations.get(kind, 0.0) for kind in kinds])
    odds = level + SLOPE * (estimate.rating + shift - REFERENCE) / 100
    mean = 1 / (1 + np.exp(-odds))
    limits = RELATED_SD_RANGE if basis in ("successor", "size") else SD_RANGE
    sd = np.clip(np.hypot(SLOPE * estimate.sd / 100, KIND_SD) * mean * (1 - mean), *limits)
    return ArmPrior(
        mean=tuple(round(float(value), 3) for value in mean),
        sd=tuple(round(float(value), 3) for value in sd),
        basis=basis,
        derived_from=tuple(estimate.sources),
    )


def _find_successors(
    listed: Iterable[str], priors: Mapping[str, ArmPrior], estimates: Mapping[str, _Estimate]
) -> dict[str, _Estimate]:
    """Return the estimates of listed models that follow, or precede, a version with a prior."""
    parsed = [(name, parse_model_name(name)) for name in priors]
    found = {}
    for id in sorted(listed):
        wanted = parse_model_name(id)
        if any(one.similarity(wanted) >= 0 for _, one in parsed):
            continue
        relatives = [
            (one, name)
            for name, one in parsed
            if one.line[0] == wanted.line[0] and one.line[1] and one.sizes == wanted.sizes
        ]
        if not relatives or not wanted.line[1]:
            continue
        older = [pair for pair in relatives if _version(pair[0]) <= _version(wanted)]
        by_version = sorted(older or relatives, key=lambda pair: (_version(pair[0]), pair[1]))
        name = by_version[-1 if older else 0][1]
        gain = SUCCESSOR_GAIN if older else -SUCCESSOR_GAIN
        estimate = _Estimate()
        sd = float(np.hypot(estimates[name].precision ** -0.5, SUCCESSOR_SD))
        estimate.add(estimates[name].rating + gain, sd, name)
        estimate.deviations.update(estimates[name].deviations)
        found[id] = estimate
    return found


def _version(name: ModelName) -> tuple[int, ...]:
    return tuple(int(number) for number in name.line[1])
