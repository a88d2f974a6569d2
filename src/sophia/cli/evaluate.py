"""`sophia eval`: what policies are worth on a table of outcomes, as tables and curves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from sophia.cli.chart import Frame, Series, chart
from sophia.cli.screen import console, give_up, money, printable, table

if TYPE_CHECKING:
    from sophia.learning.measures import Interval
    from sophia.learning.report import Judged, TableReport
    from sophia.learning.tables import OutcomeTable

_MARKS = "abcdefghijklmnopqrstuvwxyz"
_AXIS, _HEIGHT, _WIDEST = 8, 16, 100
_SINGLES = 5
_FAR_APART = 20.0
# With less room the measures stand alone, without their intervals.
_WITH_INTERVALS = 122
_BY_CHANCE = "by chance"


def _measure(name: str) -> "Callable[[Judged], Interval | None]":
    return lambda judged: judged.measures.get(name)


# Heading, where it is found, how it is written, and whether it needs costs.
_MEASURES: "Sequence[tuple[str, Callable[[Judged], Interval | None], str, bool]]" = (
    ("gap", _measure("gap"), ".3f", True),
    ("c100", _measure("c100"), ".0%", True),
    ("q at 25 %", _measure("quality_at_25pct_cost"), ".1%", True),
    ("peak", _measure("peak_gain"), "+.2f", False),
    ("harm", _measure("harm"), ".2f", True),
    ("AUC", lambda judged: judged.auc, ".3f", False),
    ("ECE", lambda judged: judged.ece, ".3f", False),
    (_BY_CHANCE, lambda judged: judged.ece_floor, ".3f", False),
    ("Brier", lambda judged: judged.brier, ".3f", False),
)
# Resampling adds to a calibration error, so its interval would lie above it.
_WITHOUT = {"harm", "AUC", "ECE", _BY_CHANCE, "Brier"}
_LEGEND = (
    "gap: share of the area between single models and the oracle that was won, over all budgets.",
    "c100: cost of equalling the best model, as a share of its cost.",
    "q at 25 %: quality at a quarter of the best model's cost, as a share of its quality.",
    "peak: most gained over the best model, in points of quality.",
    "harm: most lost against mixing single models by a coin, in points.",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to evaluate, and where to put it beside the terminal."""

    tables: Sequence[Path]
    ledger: bool = False
    days: float = 30.0
    policies: Sequence[str] = ()
    seed: int = 0
    figures: Path | None = None
    json: Path | None = None


def show(wanted: Wanted, config: Path | None, data_dir: str | None) -> None:
    """Evaluate tables or the ledger. Exits with 2 for a wrong request, 1 for bad files."""
    if bool(wanted.tables) == wanted.ledger:
        give_up("Name what to evaluate: --table FOLDER or --ledger, one of the two.", 2)
    _check_names(wanted.policies)
    if wanted.ledger:
        from sophia.cli.evaluate_ledger import judged

        found: Any = judged(wanted.policies, wanted.days, wanted.seed, config, data_dir)
    else:
        found = _tables(wanted)
    if wanted.json is not None:
        _write(wanted.json, found)


def _tables(wanted: Wanted) -> "list[TableReport]":
    from sophia.learning.forecasts import POLICIES

    _require_learn(figures=wanted.figures is not None)
    reports = []
    for folder in wanted.tables:
        report = _evaluated(_read(folder), wanted.policies or tuple(POLICIES), wanted.seed)
        reports.append(report)
        show_report(report, console())
        if wanted.figures is not None:
            _draw(report, wanted.figures)
    return reports


def show_report(report: "TableReport", paper: Console) -> None:
    """Print a report: what it is of, the single arms, the policies and the curve."""
    paper.print(
        f"\n[bold]{escape(printable(report.table))}[/]: {report.questions:,} questions, "
        f"{len(report.singles)} models, {report.tasks} tasks; each judged by what was learned from "
        f"others, in {report.folds} parts."
    )
    _print_singles(report, paper)
    _print_policies(report, paper)
    if report.singles[0].cost_usd is not None and len(report.singles) == 2:
        _print_two_models(report, paper)
    if report.hull is not None:
        _print_curve(report, paper)
    for note in report.notes:
        paper.print(note, style="yellow")


def _check_names(names: Sequence[str]) -> None:
    from sophia.learning.forecasts import POLICIES

    unknown = [name for name in names if name not in POLICIES]
    if unknown:
        give_up(f"No policy is called {', '.join(unknown)}; they are: {', '.join(POLICIES)}.", 2)


def _require_learn(*, figures: bool) -> None:
    from sophia.learning.schema import NotInstalled, require_learn

    try:
        require_learn(figures=figures)
    except NotInstalled as error:
        give_up(
            f"`sophia eval --table` needs {error.name}, which is not installed. "
            "Install the extra: pip install 'sophia-router[learn]'"
        )


def _read(folder: Path) -> "OutcomeTable":
    from sophia.learning.schema import checked_table
    from sophia.learning.tables import Unreadable

    try:
        return checked_table(folder)
    except Unreadable as error:
        give_up(f"{printable(str(error))}\ndocs/how-to/evaluate.md describes the files of a table.")


def _evaluated(found: "OutcomeTable", policies: Sequence[str], seed: int) -> "TableReport":
    from sophia.learning.report import TooSmall, report

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    paper = console(stderr=True)
    try:
        with Progress(*columns, TimeElapsedColumn(), console=paper, transient=True) as progress:
            return report(found, policies, seed, _teller(progress, found.name, len(policies) + 1))
    except TooSmall as error:
        give_up(str(error))


def _teller(progress: Progress, name: str, steps: int) -> Callable[[str, float], None]:
    bar = progress.add_task(escape(printable(name)), total=steps)
    done: list[str] = []

    def tell(step: str, share: float) -> None:
        if not done or done[-1] != step:
            done.append(step)
        label = f"{escape(printable(name))}: {step}"
        progress.update(bar, description=label, completed=len(done) - 1 + share)

    return tell


def _print_singles(report: "TableReport", paper: Console) -> None:
    out = table("always the same model", "quality", "cost", right=("quality", "cost"))
    first = report.singles[:_SINGLES]
    cheapest = min(report.singles, key=lambda one: one.cost_usd or 0.0)
    more = [] if cheapest in first or cheapest.cost_usd is None else [cheapest]
    for one in [*first, *more]:
        price = "-" if one.cost_usd is None else money(one.cost_usd)
        out.add_row(Text(printable(one.arm)), f"{one.quality:.3f}", price)
    out.add_row("oracle: the best of each", f"{report.oracle_quality:.3f}", "")
    paper.print(out)
    left = len(report.singles) - len(first) - len(more)
    if left:
        paper.print(f"and {left} more models.", style="dim")
    paper.print()


def _print_policies(report: "TableReport", paper: Console) -> None:
    roomy, priced = paper.width >= _WITH_INTERVALS, report.hull is not None
    shown = [
        one for one in _MEASURES if (priced or not one[3]) and (roomy or one[0] != _BY_CHANCE)
    ]
    heads = [head for head, _, _, _ in shown]
    out = table("  policy", *heads, right=heads)
    for mark, judged in zip((":", *_MARKS), (report.told_task, *report.policies), strict=False):
        cells = [
            _cell(pick(judged), form, interval=roomy and head not in _WITHOUT)
            for head, pick, form, _ in shown
        ]
        out.add_row(f"{mark} {judged.policy}", *cells)
    paper.print(out)
    if priced:
        paper.print("\n".join(_LEGEND), style="dim")
    if roomy:
        paper.print(
            "by chance: the ECE that exact chances would show on as many questions.\n"
            "In brackets: 95 % intervals of a bootstrap over questions.",
            style="dim",
        )


def _cell(one: "Interval | None", form: str, *, interval: bool) -> str:
    """Return a measure, and its interval below it; what was never reached says so."""
    if one is None:
        return "-"
    ends = [_said(end, form) for end in (one.value, one.low, one.high)]
    if not interval or one.low is one.high is None:
        return ends[0]
    return f"{ends[0]}\n[dim]\\[{ends[1]}, {ends[2]}][/dim]"


def _said(value: float | None, form: str) -> str:
    return "never" if value is None else format(value, form)


def _print_two_models(report: "TableReport", paper: Console) -> None:
    heads = ("APGR", "CPT50", "CPT80")
    out = table("two models", *heads, right=heads)
    roomy = paper.width >= _WITH_INTERVALS
    rows = [(one.policy, one.two_models) for one in (report.told_task, *report.policies)]
    for name, found in [("oracle", report.oracle_two_models), *rows]:
        if found is not None:
            numbers = ((found.apgr, ".3f"), (found.cpt50, ".1%"), (found.cpt80, ".1%"))
            out.add_row(name, *(_cell(one, form, interval=roomy) for one, form in numbers))
    paper.print()
    paper.print(out)
    paper.print(
        "APGR: share of the way from the weak to the strong model, over all shares of strong calls"
        "; a coin has 0.5.\nCPT50, CPT80: share of strong calls that goes 50 % or 80 % of the way.",
        style="dim",
    )


def _print_curve(report: "TableReport", paper: Console) -> None:
    from sophia.learning.report import window

    shown = window(report)
    if shown is None:
        return
    (low, high), (bottom, top) = shown
    far = low > 0 and high / low > _FAR_APART
    frame = Frame(*shown, min(paper.width, _WIDEST) - _AXIS, _HEIGHT, far)
    lines = [
        ("·", report.hull),
        ("*", report.oracle),
        (":", report.told_task.curve),
        *reversed([(mark, one.curve) for mark, one in zip(_MARKS, report.policies, strict=False)]),
    ]
    dense = [(mark, line.dense()) for mark, line in lines if line is not None]
    scale = ", on a logarithmic scale" if far else ""
    paper.print(f"\nQuality against the mean cost of a question{scale}", style="dim")
    for number, row in enumerate(chart([Series(m, x.cost, x.quality) for m, x in dense], frame)):
        value = top - (top - bottom) * number / (_HEIGHT - 1)
        label = f"{value:.3f} ┤" if number % 5 == 0 else "│"
        paper.print(f"{label:>{_AXIS}}{row}", no_wrap=True, markup=False)
    left, right = money(low), money(high)
    paper.print(f"{'':>{_AXIS}}{left}{right:>{frame.width - len(left)}}", no_wrap=True)
    paper.print("*=oracle  :=told task  ·=single models, mixed  " + _key(report), style="dim")


def _key(report: "TableReport") -> str:
    named = zip(_MARKS, report.policies, strict=False)
    return "  ".join(f"{mark}={one.policy}" for mark, one in named)


def _draw(report: "TableReport", folder: Path) -> None:
    from sophia.learning.figures import draw

    try:
        written = draw(report, folder)
    except OSError as error:
        give_up(f"The figures cannot be written: {error}.")
    for path in written:
        typer.echo(str(path))


def _write(path: Path, found: Any) -> None:
    told = msgspec.json.format(msgspec.json.encode(found), indent=2)
    try:
        path.write_bytes(told + b"\n")
    except OSError as error:
        give_up(f"{path} cannot be written: {error}.")
