"""Compare routing policies on tables of recorded outcomes. `python -m bench.routing --help`."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.routing import as_shipped, online
from bench.routing.cells import Prediction, PredictionCache, build_cache_key
from bench.routing.figures import draw
from bench.routing.online_agent import AGENTS
from bench.routing.online_stream import build_stream
from bench.routing.policies import POLICIES
from bench.routing.report import (
    ONLINE_MEASURES,
    PolicyRow,
    SourceSummary,
    average_by_policy,
    build_table,
    format_source,
    write,
)
from bench.routing.sources import list_files, list_sources, read_source
from lab.evaluation import measures
from lab.evaluation.curves import CostQualityCurve
from lab.evaluation.forecasts import predict_from_true_task
from lab.evaluation.measures import (
    BootstrapInterval,
    EvaluationBaseline,
    PolicyMetrics,
    measure_policy,
)
from lab.evaluation.tables import InvalidTable, OutcomeTable
from lab.training.table_contexts import Fold, build_fold, encode_questions

DATA = Path(__file__).parents[2].parent / "shared/data/routing"

WIDTH = 170


@dataclass
class Bench:
    """Settings of one run, with its cache of predictions."""

    data: Path
    folds: int
    seed: int
    cells: PredictionCache
    console: Console
    online_seeds: int

    def run(
        self, name: str, policies: list[str], figures: Path | None
    ) -> tuple[SourceSummary, list[PolicyRow]]:
        """Return the summary of a source, and the results of each policy on it.

        Raises:
            InvalidTable: the arms of the source cannot be compared.
        """
        table = read_source(self.data, name)
        places = table.assign_folds(self.folds, self.seed)
        found = self._predict(table, places, policies)
        found["true task"] = self._fit_known_task(table, places)
        baseline = None
        if table.cost is not None:
            baseline = EvaluationBaseline.prepare(table.quality, table.cost, places, self.seed)
        rows, curves = [], {}
        for policy, cell in found.items():
            if baseline is None:
                metrics = measures.measure_calibration(cell.quality, table.quality, self.seed)
            else:
                metrics = measure_policy(baseline, cell.quality, cell.cost)
                curves[policy] = _curve(baseline, cell)
            rows.append(PolicyRow(name, policy, metrics, self._online(table, policy)))
        if baseline is not None:
            curves["oracle"] = baseline.oracle_curves[0]
            rows += _reference_rows(name, baseline)
            if figures is not None:
                draw(figures, name, baseline, curves, table.arms)
        return _summarize_source(table), rows

    def _predict(
        self, table: OutcomeTable, places: np.ndarray, policies: list[str]
    ) -> dict[str, Prediction]:
        data = list_files(self.data, table.name)
        keys = {
            policy: build_cache_key(data, (table.name, policy, self.folds, self.seed))
            for policy in policies
        }
        found = {policy: self.cells.load(key) for policy, key in keys.items()}
        missing = [policy for policy in policies if found[policy] is None]
        if missing:
            with _progress(self.console) as progress:
                bar = progress.add_task(table.name, total=(len(missing) + 1) * self.folds)
                folds = []
                texts = encode_questions(table.questions)
                for fold in range(self.folds):
                    folds.append(build_fold(table, texts, places != fold))
                    progress.advance(bar)
                for policy in missing:
                    progress.update(bar, description=f"{table.name}: {policy}")
                    cell = Prediction(np.empty_like(table.quality), np.empty_like(table.quality))
                    for fold in folds:
                        _fill(cell, table, fold, policy)
                        progress.advance(bar)
                    self.cells.save(keys[policy], cell)
                    found[policy] = cell
        return {policy: cell for policy, cell in found.items() if cell is not None}

    def _online(self, table: OutcomeTable, policy: str) -> dict[str, BootstrapInterval]:
        """Return the policy's online results, which see only the chosen arm's outcome, if any."""
        if not self.online_seeds or policy not in AGENTS:
            return {}
        settings = ("online", table.name, policy, self.online_seeds)
        key = build_cache_key(list_files(self.data, table.name), settings)
        numbers = self.cells.load_numbers(key)
        if numbers is None:
            with _progress(self.console) as progress:
                bar = progress.add_task(f"{table.name}: {policy}, online", total=self.online_seeds)
                seeds = self.online_seeds
                found = online.run(
                    build_stream(table),
                    online.OnlineRun(policy, seeds=seeds),
                    report_progress=lambda share: progress.update(
                        bar, completed=round(share * seeds)
                    ),
                )
            numbers = {}
            for measure in ONLINE_MEASURES:
                part = getattr(found, measure)
                numbers[measure] = [part.mean, part.low, part.high]
            self.cells.save_numbers(key, numbers)
        return {measure: BootstrapInterval(*values) for measure, values in numbers.items()}

    def _fit_known_task(self, table: OutcomeTable, places: np.ndarray) -> Prediction:
        cell = Prediction(np.empty_like(table.quality), np.empty_like(table.quality))
        for fold in range(self.folds):
            train = places != fold
            if train.any() and not train.all():
                cell.quality[~train], cell.cost[~train] = predict_from_true_task(table, train)
        return cell


def main() -> None:
    """Run the selected sources and policies."""
    options = _options()
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    cells = PredictionCache(fresh=options.fresh)
    bench = Bench(options.data, options.folds, options.seed, cells, console, options.online)
    names = options.sources.split(",") if options.sources else list_sources(options.data)
    if options.as_shipped:
        results = as_shipped.run(options.data, names, options.online, console)
        if options.json:
            as_shipped.write(options.json, results)
        return
    policies = options.policies.split(",") if options.policies else list(POLICIES)
    sources: list[SourceSummary] = []
    rows: list[PolicyRow] = []
    for name in names:
        try:
            source, found = bench.run(name, policies, options.figures)
        except InvalidTable as error:
            console.print(f"[yellow]skipped[/] {error}")
            continue
        console.print(format_source(source))
        sources.append(source)
        rows += found
    console.print(build_table(rows, sources))
    for policy, mean in average_by_policy(rows).items():
        console.print(
            f"{policy:>24}: mean gap {mean['gap']:.3f} (swept {mean['gap_swept']:.3f}), "
            f"least {mean['least_gap']:.3f}, over {mean['sources']} multi-task sources"
        )
    if options.json:
        settings = {"folds": options.folds, "seed": options.seed, "resamples": measures.RESAMPLES}
        write(options.json, rows, sources, settings)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the sources")
    parser.add_argument("--json", type=Path, help="file for the results as JSON")
    parser.add_argument("--figures", type=Path, help="folder for the curves, PNG and SVG")
    parser.add_argument("--sources", help="comma-separated names; default: all")
    parser.add_argument("--policies", help=f"of {', '.join(map(repr, POLICIES))}; default: all")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--online", type=int, default=2, help="number of seeds of online runs; 0: none"
    )
    parser.add_argument(
        "--as-shipped",
        action="store_true",
        help="judge the shipped task model and priors on sources and models left out of the fits",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", dest="fresh", action="store_false", help="the default")
    again.add_argument("--fresh", action="store_true", help="ignore results of earlier runs")
    parser.set_defaults(fresh=False)
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"no folder {options.data}; set one with --data")
    unknown = set(options.policies.split(",") if options.policies else ()) - set(POLICIES)
    if unknown:
        parser.error(f"unknown policy: {', '.join(sorted(unknown))}")
    return options


def _fill(cell: Prediction, table: OutcomeTable, fold: Fold, policy: str) -> None:
    held = ~fold.train
    if held.any():
        cell.quality[held] = POLICIES[policy](fold, table)
        cell.cost[held] = fold.expected_costs[held]


def _curve(baseline: EvaluationBaseline, cell: Prediction) -> CostQualityCurve:
    line = baseline.single_arms[0]
    floor = float(line.hull.cost[0]), float(line.hull.quality[0])
    return baseline.operating_points(cell.quality, cell.cost)[0].curve(baseline.resamples[0], floor)


def _reference_rows(name: str, baseline: EvaluationBaseline) -> list[PolicyRow]:
    """Return the rows of the oracle and of random mixtures of single arms."""
    oracle = baseline.measure(baseline.oracle)
    hull = dict.fromkeys(oracle, BootstrapInterval(0.0, 0.0, 0.0))
    hull["c100"] = BootstrapInterval(1.0, 1.0, 1.0)
    quarter = baseline.single_arms[0].hull.quality_at(
        np.array([measures.COST_SHARE * baseline.single_arms[0].cost])
    )
    hull["quality_at_25pct_cost"] = BootstrapInterval(
        float(quarter[0]) / baseline.single_arms[0].quality
    )
    return [
        PolicyRow(name, "oracle", PolicyMetrics(oracle, oracle)),
        PolicyRow(name, "random, hull of singles", PolicyMetrics(hull, hull)),
    ]


def _summarize_source(table: OutcomeTable) -> SourceSummary:
    mean = table.quality.mean(axis=0)
    best = int(mean.argmax())
    return SourceSummary(
        table.name,
        len(table.questions),
        len(table.arms),
        len(table.tasks),
        table.cost is not None,
        table.arms[best],
        float(mean[best]),
        None if table.cost is None else float(table.cost[:, best].mean()),
        float(table.quality.max(axis=1).mean()),
    )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<40}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


if __name__ == "__main__":
    main()
