"""Report on a table of outcomes: policies, single models and the oracle."""

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from lab.evaluation.curves import CostQualityCurve, OperatingPoints
from lab.evaluation.forecasts import LEARNERS, predict_from_true_task
from lab.evaluation.measures import (
    BootstrapInterval,
    EvaluationBaseline,
    PolicyMetrics,
    measure_policy,
)
from lab.evaluation.reliability import CalibrationBin, bin_calibration
from lab.evaluation.tables import Matrix, OutcomeTable
from lab.evaluation.two_models import WeakStrongMetrics, measure_weak_strong
from lab.training.table_contexts import Fold, build_fold, encode_questions

FOLDS = 5
_PLOT_POINTS = 300
# Plots reach this many times the oracle's lead over the best arm below that arm.
_PLOT_DEPTH = 2.0
MIN_QUESTIONS = 50

StepProgress = Callable[[str, float], None]


class PlotCurve(Struct, frozen=True):
    """A curve: mean cost of a question in US dollars, rising, and mean quality."""

    cost: tuple[float, ...]
    quality: tuple[float, ...]

    def resample(self) -> "PlotCurve":
        """Return the same curve with points close enough to plot on a logarithmic scale.

        Mixtures of two points are a straight line in dollars, not in their logarithm.
        """
        if len(self.cost) < 2 or self.cost[0] <= 0.0:
            return self
        between = np.geomspace(self.cost[0], self.cost[-1], _PLOT_POINTS)[1:-1]
        cost = np.union1d(self.cost, between)
        return PlotCurve(
            tuple(cost.tolist()), tuple(np.interp(cost, self.cost, self.quality).tolist())
        )


class SingleArmResult(Struct, frozen=True):
    """Mean quality of one arm on all questions and, where recorded, its mean cost in US dollars."""

    arm: str
    quality: float
    cost_usd: float | None


class PolicyResult(Struct, frozen=True):
    """Result of one policy on one table, without cost metrics where no costs are recorded.

    Attributes:
        measures: `gap`, `c100`, `peak_gain` and `quality_at_25pct_cost` with the cost weight chosen
            on other questions, and `harm` with the best one in hindsight.
        auc, ece, brier: ranking and calibration of the expected scores.
        ece_floor: the calibration error that exact probabilities would show on as many questions.
        weak_strong: RouteLLM's metrics, on tables with two arms.
        curve: quality against cost.
        reliability: bins of expected and observed scores.
    """

    policy: str
    measures: dict[str, BootstrapInterval]
    auc: BootstrapInterval
    ece: BootstrapInterval
    brier: BootstrapInterval
    ece_floor: BootstrapInterval
    weak_strong: WeakStrongMetrics | None
    curve: PlotCurve | None
    reliability: tuple[CalibrationBin, ...]


class TableReport(Struct, frozen=True):
    """Results on one table: single arms, every policy, and the oracle as the upper bound.

    Attributes:
        hull: the curve of random mixtures of single arms.
        oracle: the curve of the best arm per question.
        true_task: the policy that knows only each question's true task.
        notes: limits of the evaluation and their reasons.
    """

    table: str
    questions: int
    tasks: int
    folds: int
    seed: int
    singles: tuple[SingleArmResult, ...]
    best: str
    oracle_quality: float
    hull: PlotCurve | None
    oracle: PlotCurve | None
    oracle_weak_strong: WeakStrongMetrics | None
    true_task: PolicyResult
    policies: tuple[PolicyResult, ...]
    notes: tuple[str, ...] = ()


def plot_window(report: TableReport) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Return the ranges of cost and quality to plot; None without costs.

    Qualities far below the best arm are left out, with the costs at which none is better.
    """
    if report.hull is None:
        return None
    best, least = report.hull.quality[-1], report.hull.quality[0]
    lead = report.oracle_quality - best
    low = max(least, best - _PLOT_DEPTH * lead) if lead > 0.0 else least
    start = float(np.interp(low, report.hull.quality, report.hull.cost))
    return (start, report.hull.cost[-1]), (low, report.oracle_quality)


class TableTooSmall(ValueError):
    """The table has too few questions to train on some and evaluate on the others."""


def evaluate_table(
    table: OutcomeTable,
    names: Sequence[str] = tuple(LEARNERS),
    seed: int = 0,
    report_progress: StepProgress = lambda step, share: None,
) -> TableReport:
    """Evaluate the policies `names` on `table` by cross-validation.

    Policies are trained on other questions than they are evaluated on; all randomness comes from
    `seed`. `report_progress` is called with the name of each step and the share that is done.

    Raises:
        TableTooSmall: there are fewer than `MIN_QUESTIONS` questions.
        KeyError: a name is not among `LEARNERS`.
    """
    if len(table.questions) < MIN_QUESTIONS:
        raise TableTooSmall(
            f"{table.name} has {len(table.questions)} questions that all arms answered; "
            f"an evaluation needs at least {MIN_QUESTIONS}."
        )
    evaluation = _TableEvaluation(table, seed)
    evaluation.build_folds(lambda share: report_progress("reading the questions", share))
    results = tuple(
        evaluation.evaluate_policy(name, _step_progress(report_progress, name)) for name in names
    )
    true_task = evaluation.evaluate_true_task()
    quality = table.quality.mean(axis=0)
    cost = None if evaluation.cost is None else evaluation.cost.mean(axis=0)
    order = np.lexsort((np.zeros(len(quality)) if cost is None else cost, -quality))
    baseline = evaluation.baseline
    return TableReport(
        table.name,
        len(table.questions),
        len(table.tasks),
        FOLDS,
        seed,
        tuple(
            SingleArmResult(
                table.arms[at], float(quality[at]), None if cost is None else float(cost[at])
            )
            for at in order
        ),
        table.arms[order[0]],
        float(table.quality.max(axis=1).mean()),
        None if evaluation.cost is None else _build_plot_curve(baseline.single_arms[0].hull),
        None if evaluation.cost is None else _build_plot_curve(baseline.oracle_curves[0]),
        measure_weak_strong(table.arms, table.quality, table.quality, baseline.resamples),
        true_task,
        results,
        tuple(_build_notes(table, evaluation.cost)),
    )


class _TableEvaluation:
    """Evaluation of one table with the same folds and resamples for all policies."""

    def __init__(self, table: OutcomeTable, seed: int) -> None:
        self.table = table
        self.cost = _comparable_costs(table)
        # Without costs all answers cost the same, and the cost metrics are left out.
        paid = np.ones_like(table.quality) if self.cost is None else self.cost
        places = table.assign_folds(FOLDS, seed)
        self.baseline = EvaluationBaseline.prepare(table.quality, paid, places, seed)
        self.trains = [places != fold for fold in np.unique(places)]
        self.folds: list[Fold] = []

    def build_folds(self, report_share: Callable[[float], None]) -> None:
        texts = encode_questions(self.table.questions, lambda share: report_share(share / 2))
        for number, train in enumerate(self.trains):
            self.folds.append(build_fold(self.table, texts, train))
            report_share(0.5 + (number + 1) / len(self.trains) / 2)

    def evaluate_policy(self, name: str, report_share: Callable[[float], None]) -> PolicyResult:
        expected, costs = np.empty_like(self.table.quality), np.empty_like(self.table.quality)
        for number, fold in enumerate(self.folds):
            expected[~fold.train] = LEARNERS[name](fold, self.table)
            costs[~fold.train] = fold.expected_costs[~fold.train]
            report_share((number + 1) / len(self.folds))
        return self._build_result(name, expected, costs)

    def evaluate_true_task(self) -> PolicyResult:
        expected, costs = np.empty_like(self.table.quality), np.empty_like(self.table.quality)
        for train in self.trains:
            expected[~train], costs[~train] = predict_from_true_task(self.table, train)
        return self._build_result("true task", expected, costs)

    def _build_result(self, name: str, expected: Matrix, costs: Matrix) -> PolicyResult:
        baseline, table = self.baseline, self.table
        metrics = measure_policy(baseline, expected, costs)
        fixed, _ = baseline.operating_points(expected, costs)
        return PolicyResult(
            name,
            self._select_metrics(metrics),
            metrics.auc,
            metrics.ece,
            BootstrapInterval(metrics.brier),
            BootstrapInterval(metrics.ece_floor),
            measure_weak_strong(table.arms, expected, table.quality, baseline.resamples),
            None if self.cost is None else _build_plot_curve(_full_curve(fixed, baseline)),
            bin_calibration(expected, table.quality),
        )

    def _select_metrics(self, metrics: PolicyMetrics) -> dict[str, BootstrapInterval]:
        if self.cost is not None:
            # With points chosen on other questions, chance alone puts single arms below the hull.
            return {**metrics.held_out, "harm": metrics.hindsight["harm"]}
        return {"peak_gain": metrics.held_out["peak_gain"]}


def _step_progress(report_progress: StepProgress, name: str) -> Callable[[float], None]:
    return lambda share: report_progress(name, share)


def _comparable_costs(table: OutcomeTable) -> Matrix | None:
    """Return the costs, or None unless they are non-negative and the best arm's are positive."""
    if table.cost is None:
        return None
    best = int(table.quality.mean(axis=0).argmax())
    return table.cost if table.cost[:, best].mean() > 0.0 and (table.cost >= 0.0).all() else None


def _full_curve(points: OperatingPoints, baseline: EvaluationBaseline) -> CostQualityCurve:
    """Return the curve over all questions, from the cheapest arm on."""
    line = baseline.single_arms[0].hull
    return points.curve(baseline.resamples[0], (float(line.cost[0]), float(line.quality[0])))


def _build_plot_curve(curve: CostQualityCurve) -> PlotCurve:
    return PlotCurve(tuple(curve.cost.tolist()), tuple(curve.quality.tolist()))


def _build_notes(table: OutcomeTable, cost: Matrix | None) -> list[str]:
    notes = []
    if cost is None:
        notes.append("No costs that can be compared: only quality is evaluated.")
    if not any(question.text for question in table.questions):
        notes.append("No texts: the policies saw only counts, such as tools and turns.")
    if len(table.tasks) == 1:
        notes.append("One task only: the value of knowing the task cannot be measured.")
    return notes
