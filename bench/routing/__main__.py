"""Compares routing policies on tables of real outcomes. `python -m bench.routing --help`."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.routing import online
from bench.routing.cells import Cell, Cells, key_of
from bench.routing.contestants import POLICIES
from bench.routing.figures import draw
from bench.routing.online_agent import AGENTS
from bench.routing.online_stream import stream_of
from bench.routing.report import LATER, Row, Source, line_of, means_of, table_of, write
from bench.routing.sources import files_of, names_in, read_source
from sophia.learning import measures
from sophia.learning.curves import Curve
from sophia.learning.forecasts import expect, told_task
from sophia.learning.measures import Ground, Interval, Verdict, judge
from sophia.learning.table_sights import Fold, fold_of, read_texts
from sophia.learning.tables import OutcomeTable, Unreadable

DATA = Path(__file__).parents[2].parent / "shared/data/routing"

WIDTH = 170


@dataclass
class Bench:
    """One run: what was asked for, and what is known so far."""

    data: Path
    folds: int
    seed: int
    cells: Cells
    console: Console
    online_seeds: int

    def run(self, name: str, policies: list[str], figures: Path | None) -> tuple[Source, list[Row]]:
        """Return what a source is, and how each policy did on it.

        Raises:
            Unreadable: the arms of the source cannot be compared.
        """
        table = read_source(self.data, name)
        places = table.folds(self.folds, self.seed)
        found = self._expectations(table, places, policies)
        found["told task"] = self._told(table, places)
        ground = None
        if table.cost is not None:
            ground = Ground.of(table.quality, table.cost, places, self.seed)
        rows, curves = [], {}
        for policy, cell in found.items():
            if ground is None:
                verdict = measures.calibration(cell.quality, table.quality, self.seed)
            else:
                verdict = judge(ground, cell.quality, cell.cost)
                curves[policy] = _curve(ground, cell)
            rows.append(Row(name, policy, verdict, self._online(table, policy)))
        if ground is not None:
            curves["oracle"] = ground.tops[0]
            rows += _lines(name, ground)
            if figures is not None:
                draw(figures, name, ground, curves, table.arms)
        return _source(table), rows

    def _expectations(
        self, table: OutcomeTable, places: np.ndarray, policies: list[str]
    ) -> dict[str, Cell]:
        data = files_of(self.data, table.name)
        keys = {
            policy: key_of(data, (table.name, policy, self.folds, self.seed)) for policy in policies
        }
        found = {policy: self.cells.load(key) for policy, key in keys.items()}
        open_ = [policy for policy in policies if found[policy] is None]
        if open_:
            with _progress(self.console) as progress:
                bar = progress.add_task(table.name, total=(len(open_) + 1) * self.folds)
                folds = []
                texts = read_texts(table)
                for fold in range(self.folds):
                    folds.append(fold_of(table, texts, places != fold))
                    progress.advance(bar)
                for policy in open_:
                    progress.update(bar, description=f"{table.name}: {policy}")
                    cell = Cell(np.empty_like(table.quality), np.empty_like(table.quality))
                    for fold in folds:
                        _fill(cell, table, fold, policy)
                        progress.advance(bar)
                    self.cells.keep(keys[policy], cell)
                    found[policy] = cell
        return {policy: cell for policy, cell in found.items() if cell is not None}

    def _online(self, table: OutcomeTable, policy: str) -> dict[str, Interval]:
        """Return how the policy does when it is told only what it chose, if it can learn so."""
        if not self.online_seeds or policy not in AGENTS:
            return {}
        settings = ("online", table.name, policy, self.online_seeds)
        key = key_of(files_of(self.data, table.name), settings)
        numbers = self.cells.load_numbers(key)
        if numbers is None:
            with _progress(self.console) as progress:
                bar = progress.add_task(f"{table.name}: {policy}, online", total=self.online_seeds)
                seeds = self.online_seeds
                found = online.run(
                    stream_of(table),
                    online.Plan(policy, seeds=seeds),
                    tell=lambda share: progress.update(bar, completed=round(share * seeds)),
                )
            numbers = {}
            for measure in LATER:
                part = getattr(found, measure)
                numbers[measure] = [part.mean, part.low, part.high]
            self.cells.keep_numbers(key, numbers)
        return {measure: Interval(*values) for measure, values in numbers.items()}

    def _told(self, table: OutcomeTable, places: np.ndarray) -> Cell:
        cell = Cell(np.empty_like(table.quality), np.empty_like(table.quality))
        for fold in range(self.folds):
            train = places != fold
            if train.any() and not train.all():
                cell.quality[~train], cell.cost[~train] = told_task(table, train)
        return cell


def main() -> None:
    """Run the sources and policies that were asked for."""
    options = _options()
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    cells = Cells(fresh=options.fresh)
    bench = Bench(options.data, options.folds, options.seed, cells, console, options.online)
    names = options.sources.split(",") if options.sources else names_in(options.data)
    policies = options.policies.split(",") if options.policies else list(POLICIES)
    sources: list[Source] = []
    rows: list[Row] = []
    for name in names:
        try:
            source, found = bench.run(name, policies, options.figures)
        except Unreadable as refusal:
            console.print(f"[yellow]left out[/] {refusal}")
            continue
        console.print(line_of(source))
        sources.append(source)
        rows += found
    console.print(table_of(rows, sources))
    for policy, mean in means_of(rows).items():
        console.print(
            f"{policy:>24}: mean gap {mean['gap']:.3f} (swept {mean['gap_swept']:.3f}), "
            f"least {mean['least_gap']:.3f}, over {mean['sources']} multi-task sources"
        )
    if options.json:
        settings = {"folds": options.folds, "seed": options.seed, "resamples": measures.RESAMPLES}
        write(options.json, rows, sources, settings)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of the sources")
    parser.add_argument("--json", type=Path, help="where to write the results for programs")
    parser.add_argument("--figures", type=Path, help="where to write the curves, PNG and SVG")
    parser.add_argument("--sources", help="names, with commas between; default: all")
    parser.add_argument("--policies", help=f"of {', '.join(map(repr, POLICIES))}; default: all")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--online", type=int, default=2, help="seeds of the runs that learn online; 0: none"
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", dest="fresh", action="store_false", help="the default")
    again.add_argument("--fresh", action="store_true", help="take nothing of an earlier run")
    parser.set_defaults(fresh=False)
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"there is no folder {options.data}; name one with --data")
    unknown = set(options.policies.split(",") if options.policies else ()) - set(POLICIES)
    if unknown:
        parser.error(f"there is no policy {', '.join(sorted(unknown))}")
    return options


def _fill(cell: Cell, table: OutcomeTable, fold: Fold, policy: str) -> None:
    held = ~fold.train
    if held.any():
        cell.quality[held] = expect(table, fold, policy, POLICIES)
        cell.cost[held] = fold.costs[held]


def _curve(ground: Ground, cell: Cell) -> Curve:
    line = ground.lines[0]
    floor = float(line.hull.cost[0]), float(line.hull.quality[0])
    return ground.points(cell.quality, cell.cost)[0].curve(ground.draws[0], floor)


def _lines(name: str, ground: Ground) -> list[Row]:
    """Return the oracle, and what tossing coins between single arms gives."""
    oracle = ground.judge(ground.oracle)
    hull = dict.fromkeys(oracle, Interval(0.0, 0.0, 0.0))
    hull["c100"] = Interval(1.0, 1.0, 1.0)
    quarter = ground.lines[0].hull.at(np.array([measures.QUARTER * ground.lines[0].cost]))
    hull["quality_at_25pct_cost"] = Interval(float(quarter[0]) / ground.lines[0].quality)
    return [
        Row(name, "oracle", Verdict(oracle, oracle)),
        Row(name, "random, hull of singles", Verdict(hull, hull)),
    ]


def _source(table: OutcomeTable) -> Source:
    mean = table.quality.mean(axis=0)
    best = int(mean.argmax())
    return Source(
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
