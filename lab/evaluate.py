"""`python -m lab.evaluate --table FOLDER`: compare routing policies on a table of outcomes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from lab.evaluation.figures import write_figures
from lab.evaluation.forecasts import LEARNERS
from lab.evaluation.measures import BootstrapInterval
from lab.evaluation.report import PolicyResult, TableReport, TableTooSmall, evaluate_table
from lab.evaluation.schema import read_checked_table
from lab.evaluation.tables import InvalidTable, OutcomeTable
from sophia.cli import terminal
from sophia.cli.terminal import (
    build_console,
    exit_with_error,
    format_money,
    strip_control_characters,
)

_SINGLES = 5
# Narrower terminals show the metrics without intervals.
_WITH_INTERVALS = 122
_BY_CHANCE = "by chance"


def _metric_getter(name: str) -> Callable[[PolicyResult], BootstrapInterval | None]:
    return lambda result: result.measures.get(name)


# Heading, getter, number format, and whether the metric needs costs.
_MEASURES: Sequence[tuple[str, Callable[[PolicyResult], BootstrapInterval | None], str, bool]] = (
    ("gap", _metric_getter("gap"), ".3f", True),
    ("c100", _metric_getter("c100"), ".0%", True),
    ("q at 25 %", _metric_getter("quality_at_25pct_cost"), ".1%", True),
    ("peak", _metric_getter("peak_gain"), "+.2f", False),
    ("harm", _metric_getter("harm"), ".2f", True),
    ("AUC", lambda result: result.auc, ".3f", False),
    ("ECE", lambda result: result.ece, ".3f", False),
    (_BY_CHANCE, lambda result: result.ece_floor, ".3f", False),
    ("Brier", lambda result: result.brier, ".3f", False),
)
# Resampling adds to a calibration error, so its interval would lie above the estimate.
_WITHOUT_INTERVAL = {"harm", "AUC", "ECE", _BY_CHANCE, "Brier"}
_LEGEND = (
    "gap: recovered share of the area between single models and the oracle, over all budgets.",
    "c100: cost at which the best model's quality is reached, as a share of its cost.",
    "q at 25 %: quality at a quarter of the best model's cost, as a share of its quality.",
    "peak: largest gain over the best model, in points of quality.",
    "harm: largest loss against a random mix of single models, in points.",
)


def main(  # the options of a command are its parameters
    table: Annotated[
        list[Path],
        typer.Option(help="A folder with queries.parquet and outcomes.parquet; may be repeated."),
    ],
    policy: Annotated[
        list[str] | None, typer.Option(help="Evaluate only this policy; may be repeated.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(help="Folder for the cost-quality and calibration figures, PNG and SVG."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="File for the results as JSON.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of folds and resamples.", min=0)] = 0,
) -> None:
    """Compare routing policies on tables of outcomes. Exits with 2 for an unknown policy."""
    policies = policy or list(LEARNERS)
    unknown = [name for name in policies if name not in LEARNERS]
    if unknown:
        exit_with_error(
            f"Unknown policy: {', '.join(unknown)}; they are: {', '.join(LEARNERS)}.", 2
        )
    reports = []
    for folder in table:
        report = _evaluate(_read_table(folder), policies, seed)
        reports.append(report)
        show_report(report, build_console())
        if figures is not None:
            for path in _draw_figures(report, figures):
                typer.echo(str(path))
    if json is not None:
        _write_json(json, reports)


def show_report(report: TableReport, output: Console) -> None:
    """Print a report: the table, the single models and the policies."""
    output.print(
        f"\n[bold]{escape(strip_control_characters(report.table))}[/]: "
        f"{report.questions:,} questions, "
        f"{len(report.singles)} models, {report.tasks} tasks, {report.folds}-fold cross-validation."
    )
    _print_single_models(report, output)
    _print_policies(report, output)
    if report.singles[0].cost_usd is not None and len(report.singles) == 2:
        _print_two_models(report, output)
    for note in report.notes:
        output.print(note, style="yellow")


def _read_table(folder: Path) -> OutcomeTable:
    try:
        return read_checked_table(folder)
    except InvalidTable as error:
        exit_with_error(
            f"{strip_control_characters(str(error))}\n"
            "docs/how-to/evaluate.md describes the files of a table."
        )


def _evaluate(table: OutcomeTable, policies: Sequence[str], seed: int) -> TableReport:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    output = build_console(stderr=True)
    try:
        with Progress(*columns, TimeElapsedColumn(), console=output, transient=True) as progress:
            return evaluate_table(
                table, policies, seed, _progress_callback(progress, table.name, len(policies) + 1)
            )
    except TableTooSmall as error:
        exit_with_error(str(error))


def _progress_callback(progress: Progress, name: str, steps: int) -> Callable[[str, float], None]:
    bar = progress.add_task(escape(strip_control_characters(name)), total=steps)
    done: list[str] = []

    def report(step: str, share: float) -> None:
        if not done or done[-1] != step:
            done.append(step)
        label = f"{escape(strip_control_characters(name))}: {step}"
        progress.update(bar, description=label, completed=len(done) - 1 + share)

    return report


def _print_single_models(report: TableReport, output: Console) -> None:
    out = terminal.build_table(
        "always the same model", "quality", "cost", numeric=("quality", "cost")
    )
    first = report.singles[:_SINGLES]
    cheapest = min(report.singles, key=lambda one: one.cost_usd or 0.0)
    more = [] if cheapest in first or cheapest.cost_usd is None else [cheapest]
    for one in [*first, *more]:
        price = "-" if one.cost_usd is None else format_money(one.cost_usd)
        out.add_row(Text(strip_control_characters(one.arm)), f"{one.quality:.3f}", price)
    out.add_row("oracle: the best model per question", f"{report.oracle_quality:.3f}", "")
    output.print(out)
    left = len(report.singles) - len(first) - len(more)
    if left:
        output.print(f"and {left} more models.", style="dim")
    output.print()


def _print_policies(report: TableReport, output: Console) -> None:
    wide, priced = output.width >= _WITH_INTERVALS, report.hull is not None
    shown = [one for one in _MEASURES if (priced or not one[3]) and (wide or one[0] != _BY_CHANCE)]
    heads = [head for head, _, _, _ in shown]
    out = terminal.build_table("policy", *heads, numeric=heads)
    for result in (report.true_task, *report.policies):
        cells = [
            _cell(pick(result), form, interval=wide and head not in _WITHOUT_INTERVAL)
            for head, pick, form, _ in shown
        ]
        out.add_row(result.policy, *cells)
    output.print(out)
    if priced:
        output.print("\n".join(_LEGEND), style="dim")
    if wide:
        output.print(
            "by chance: the ECE that exact probabilities would show on as many questions.\n"
            "In brackets: 95 % intervals of a bootstrap over questions.",
            style="dim",
        )


def _cell(one: BootstrapInterval | None, form: str, *, interval: bool) -> str:
    """Return a metric with its interval below it; `never` for a level that is not reached."""
    if one is None:
        return "-"
    ends = ["never" if end is None else format(end, form) for end in (one.value, one.low, one.high)]
    if not interval or one.low is one.high is None:
        return ends[0]
    return f"{ends[0]}\n[dim]\\[{ends[1]}, {ends[2]}][/dim]"


def _print_two_models(report: TableReport, output: Console) -> None:
    heads = ("APGR", "CPT50", "CPT80")
    out = terminal.build_table("two models", *heads, numeric=heads)
    wide = output.width >= _WITH_INTERVALS
    rows = [(one.policy, one.weak_strong) for one in (report.true_task, *report.policies)]
    for name, values in [("oracle", report.oracle_weak_strong), *rows]:
        if values is not None:
            numbers = ((values.apgr, ".3f"), (values.cpt50, ".1%"), (values.cpt80, ".1%"))
            out.add_row(name, *(_cell(one, form, interval=wide) for one, form in numbers))
    output.print()
    output.print(out)
    output.print(
        "APGR: recovered share of the quality gap between the models, mean over all shares of "
        "strong calls; a random router has 0.5.\n"
        "CPT50, CPT80: share of strong calls that recovers 50 % or 80 % of the gap.",
        style="dim",
    )


def _draw_figures(report: TableReport, folder: Path) -> list[Path]:
    try:
        return write_figures(report, folder)
    except OSError as error:
        exit_with_error(f"The figures cannot be written: {error}.")


def _write_json(path: Path, reports: list[TableReport]) -> None:
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(reports), indent=2) + b"\n")
    except OSError as error:
        exit_with_error(f"{path} cannot be written: {error}.")


if __name__ == "__main__":
    typer.run(main)
