"""What policies are worth on a table of outcomes, beside the lines that nobody can do without."""

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from sophia.learning.curves import Curve, Points
from sophia.learning.forecasts import POLICIES, expect, told_task
from sophia.learning.measures import Ground, Interval, Verdict, judge
from sophia.learning.reliability import Bin, reliability
from sophia.learning.table_sights import Fold, fold_of, read_texts
from sophia.learning.tables import Matrix, OutcomeTable
from sophia.learning.two_models import TwoModels, two_models

FOLDS = 5
_DRAWN = 300
# The oracle is far off: this many times its lead over the best arm is shown below that arm.
_BELOW = 2.0
LEAST_QUESTIONS = 50

Tell = Callable[[str, float], None]


class Line(Struct, frozen=True):
    """A curve: mean cost of a question in US dollars, rising, and mean quality."""

    cost: tuple[float, ...]
    quality: tuple[float, ...]

    def dense(self) -> "Line":
        """Return the same curve with points so close that it can be drawn on any scale.

        Between two points a coin is tossed: that is straight in dollars, not in their logarithm.
        """
        if len(self.cost) < 2 or self.cost[0] <= 0.0:
            return self
        between = np.geomspace(self.cost[0], self.cost[-1], _DRAWN)[1:-1]
        cost = np.union1d(self.cost, between)
        return Line(
            tuple(cost.tolist()), tuple(np.interp(cost, self.cost, self.quality).tolist())
        )


class Single(Struct, frozen=True):
    """One arm always taken: its mean quality and, where recorded, its mean cost in US dollars."""

    arm: str
    quality: float
    cost_usd: float | None


class Judged(Struct, frozen=True):
    """One policy on one table; measures that need costs are missing where none are recorded.

    Attributes:
        measures: `gap`, `c100`, `peak_gain` and `quality_at_25pct_cost` with what a dollar is
            worth set on other questions, and `harm` with the best in hindsight.
        auc, ece, brier: how well its expectations tell good answers from bad ones.
        ece_floor: the calibration error that exact chances would show on as many questions.
        two_models: RouteLLM's measures, on tables with two arms.
        curve: quality against cost.
        reliability: of its expectations.
    """

    policy: str
    measures: dict[str, Interval]
    auc: Interval
    ece: Interval
    brier: Interval
    ece_floor: Interval
    two_models: TwoModels | None
    curve: Line | None
    reliability: tuple[Bin, ...]


class TableReport(Struct, frozen=True):
    """A whole table: the single arms, what nobody can beat, and every policy in between.

    Attributes:
        hull: what tossing coins between single arms reaches.
        oracle: what the best arm of each question would have given.
        told_task: the policy that knows every question's true task and nothing else.
        notes: what could not be told, and why.
    """

    table: str
    questions: int
    tasks: int
    folds: int
    seed: int
    singles: tuple[Single, ...]
    best: str
    oracle_quality: float
    hull: Line | None
    oracle: Line | None
    oracle_two_models: TwoModels | None
    told_task: Judged
    policies: tuple[Judged, ...]
    notes: tuple[str, ...] = ()


def window(report: TableReport) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Return the costs and the qualities that are worth drawing; None without costs.

    What is far worse than the best arm is left out, with the costs at which nothing is better.
    """
    if report.hull is None:
        return None
    best, least = report.hull.quality[-1], report.hull.quality[0]
    lead = report.oracle_quality - best
    low = max(least, best - _BELOW * lead) if lead > 0.0 else least
    start = float(np.interp(low, report.hull.quality, report.hull.cost))
    return (start, report.hull.cost[-1]), (low, report.oracle_quality)


class TooSmall(ValueError):
    """The table has too few questions to learn from some and judge on others."""


def report(
    table: OutcomeTable,
    names: Sequence[str] = tuple(POLICIES),
    seed: int = 0,
    tell: Tell = lambda step, share: None,
) -> TableReport:
    """Return what the policies called `names` are worth on `table`.

    Every question is judged by what was learned from other questions; all that is random comes
    from `seed`. `tell` hears the name of each step and the share of it that is done.

    Raises:
        TooSmall: there are fewer than `LEAST_QUESTIONS` questions.
        KeyError: a name is not among `POLICIES`.
    """
    if len(table.questions) < LEAST_QUESTIONS:
        raise TooSmall(
            f"{table.name} has {len(table.questions)} questions that all arms answered; "
            f"{LEAST_QUESTIONS} are the least that can be learned from and judged on."
        )
    bench = _Bench(table, seed)
    bench.read(lambda share: tell("reading the questions", share))
    judged = tuple(bench.judged(name, _telling(tell, name)) for name in names)
    told = bench.told()
    quality = table.quality.mean(axis=0)
    cost = None if bench.cost is None else bench.cost.mean(axis=0)
    order = np.lexsort((np.zeros(len(quality)) if cost is None else cost, -quality))
    ground = bench.ground
    return TableReport(
        table.name,
        len(table.questions),
        len(table.tasks),
        FOLDS,
        seed,
        tuple(
            Single(table.arms[at], float(quality[at]), None if cost is None else float(cost[at]))
            for at in order
        ),
        table.arms[order[0]],
        float(table.quality.max(axis=1).mean()),
        None if bench.cost is None else _line(ground.lines[0].hull),
        None if bench.cost is None else _line(ground.tops[0]),
        two_models(table.arms, table.quality, table.quality, ground.draws),
        told,
        judged,
        tuple(_notes(table, bench.cost)),
    )


class _Bench:
    """A table made ready: all policies are judged on the same folds and resamples."""

    def __init__(self, table: OutcomeTable, seed: int) -> None:
        self.table = table
        self.cost = _usable(table)
        # Without costs all answers cost the same, and the measures of cost are left out.
        paid = np.ones_like(table.quality) if self.cost is None else self.cost
        places = table.folds(FOLDS, seed)
        self.ground = Ground.of(table.quality, paid, places, seed)
        self.trains = [places != fold for fold in np.unique(places)]
        self.folds: list[Fold] = []

    def read(self, tell: Callable[[float], None]) -> None:
        texts = read_texts(self.table, lambda share: tell(share / 2))
        for number, train in enumerate(self.trains):
            self.folds.append(fold_of(self.table, texts, train))
            tell(0.5 + (number + 1) / len(self.trains) / 2)

    def judged(self, name: str, tell: Callable[[float], None]) -> Judged:
        expected, costs = np.empty_like(self.table.quality), np.empty_like(self.table.quality)
        for number, fold in enumerate(self.folds):
            expected[~fold.train] = expect(self.table, fold, name)
            costs[~fold.train] = fold.costs[~fold.train]
            tell((number + 1) / len(self.folds))
        return self._verdict(name, expected, costs)

    def told(self) -> Judged:
        expected, costs = np.empty_like(self.table.quality), np.empty_like(self.table.quality)
        for train in self.trains:
            expected[~train], costs[~train] = told_task(self.table, train)
        return self._verdict("told task", expected, costs)

    def _verdict(self, name: str, expected: Matrix, costs: Matrix) -> Judged:
        ground, table = self.ground, self.table
        verdict = judge(ground, expected, costs)
        fixed, _ = ground.points(expected, costs)
        return Judged(
            name,
            self._measures(verdict),
            verdict.auc,
            verdict.ece,
            Interval(verdict.brier),
            Interval(verdict.ece_floor),
            two_models(table.arms, expected, table.quality, ground.draws),
            None if self.cost is None else _line(_whole(fixed, ground)),
            reliability(expected, table.quality),
        )

    def _measures(self, verdict: Verdict) -> dict[str, Interval]:
        if self.cost is not None:
            # Set on other questions, chance alone puts even single arms below their hull.
            return {**verdict.fixed, "harm": verdict.swept["harm"]}
        return {"peak_gain": verdict.fixed["peak_gain"]}


def _telling(tell: Tell, name: str) -> Callable[[float], None]:
    return lambda share: tell(name, share)


def _usable(table: OutcomeTable) -> Matrix | None:
    """Return the costs when they can be compared with."""
    if table.cost is None:
        return None
    best = int(table.quality.mean(axis=0).argmax())
    return table.cost if table.cost[:, best].mean() > 0.0 and (table.cost >= 0.0).all() else None


def _whole(points: Points, ground: Ground) -> Curve:
    """Return the curve of all questions, from the cheapest arm on."""
    line = ground.lines[0].hull
    return points.curve(ground.draws[0], (float(line.cost[0]), float(line.quality[0])))


def _line(curve: Curve) -> Line:
    return Line(tuple(curve.cost.tolist()), tuple(curve.quality.tolist()))


def _notes(table: OutcomeTable, cost: Matrix | None) -> list[str]:
    notes = []
    if cost is None:
        notes.append("No costs that can be compared: only quality is judged, not what it costs.")
    if not any(question.text for question in table.questions):
        notes.append("No texts: the policies saw only what is counted, such as tools and turns.")
    if len(table.tasks) == 1:
        notes.append("One task only: what knowing the task is worth cannot be seen.")
    return notes
