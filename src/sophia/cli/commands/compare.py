"""`sophia policy compare`: expected cost and score of other policies on the logged requests."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.text import Text

from sophia.cli.commands.usage import require_ledger
from sophia.cli.config_file import load_command_settings
from sophia.cli.options import ConfigFile, DataDir, Json, days_ago_ms
from sophia.cli.terminal import (
    build_console,
    build_table,
    exit_with_error,
    format_money,
    is_wide_terminal,
    strip_control_characters,
)
from sophia.compose.offline import StoreAddress, load_knowledge, open_data_folder, report
from sophia.config import Settings
from sophia.learning.evaluation.compare import (
    CounterfactualReport,
    CounterfactualResult,
    DecisionSlice,
    NothingLogged,
)
from sophia.learning.evaluation.off_policy import OffPolicyEstimate, PolicyComparison, ValueEstimate
from sophia.learning.operations.compare import (
    POLICY_NAMES,
    ComparisonRequest,
    UnknownPolicy,
    compare_policies,
)

_BAR = 24
_MAX_TASKS = 8
_LEGEND = (
    "score: doubly robust estimate with its 95 % interval; gain: over the logged policy.",
    "cost: as it was expected at the time, by answer; against: share of the logged policy's.",
)
_WIDE_LEGEND = (
    "agrees: how often it chooses the model that was used.",
    "worth: effective number of decisions; below 200 no score is reported.",
)
_REMEDY = (
    "For a score take more days (--days), get feedback on more requests, or choose a policy closer "
    "to the logged one (--quality-bias). With `learning.explore: false` only the logged policy can "
    "be scored."
)


def compare_on_past_traffic(
    policy: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {POLICY_NAMES}; may be repeated. Default: learned."),
    ] = None,
    days: Annotated[float, typer.Option(help="How many days back.", min=0)] = 7,
    quality_bias: Annotated[
        str | None,
        typer.Option(help="Weight of quality against cost: 0 to 10, cheap, balanced or best."),
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Choose among these models only, with commas between.")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="File for a chart, .png or .svg.")] = None,
    json: Json = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Estimate what the last days would have cost and scored with other policies."""
    settings = load_command_settings(config, data_dir)
    address = require_ledger(settings)
    if figure is not None and figure.suffix not in {".png", ".svg"}:
        exit_with_error("--figure names a file that ends in .png or .svg.", 2)
    request = ComparisonRequest(
        policies=policy or ["learned"],
        since_ms=days_ago_ms(days),
        quality_bias=quality_bias,
        models=frozenset(name.strip() for name in (models or "").split(",") if name.strip()),
    )
    try:
        result = asyncio.run(_compare(settings, address, request))
    except UnknownPolicy as error:
        exit_with_error(strip_control_characters(str(error)), 2)
    except NothingLogged as error:
        exit_with_error(f"{error}\nThe comparison needs feedback, sent to `POST /v1/feedback`.")
    if figure is not None:
        _write_figure(result, figure)
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(result), indent=2))
    else:
        print_comparison(result, build_console())


async def _compare(
    settings: Settings, address: StoreAddress, request: ComparisonRequest
) -> CounterfactualReport:
    pool, read_costs = load_knowledge(settings).pool, partial(report.read_request_costs, address)
    with build_console(stderr=True).status("Reading the ledger …") as status:
        async with open_data_folder(settings) as folder:
            return await compare_policies(
                folder.archive,
                folder.store,
                pool,
                request,
                read_costs,
                lambda step: status.update(Text(f"{step} …")),
            )


def print_comparison(comparison: CounterfactualReport, console: Console) -> None:
    """Print all policies, then each one by day and by task."""
    _print_log_summary(comparison, console)
    _print_policies(comparison, console)
    for result in comparison.policies[1:]:
        _print_breakdown("day", result, result.days, console)
        _print_breakdown("task", result, result.tasks[:_MAX_TASKS], console)
        if len(result.tasks) > _MAX_TASKS:
            console.print(f"and {len(result.tasks) - _MAX_TASKS} more tasks.", style="dim")


def _print_log_summary(report: CounterfactualReport, console: Console) -> None:
    since, until = (
        f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M}"
        for at in (report.since_ms, report.until_ms)
    )
    mean = "-" if report.mean_score is None else f"{report.mean_score:.3f}"
    console.print(
        f"[bold]{report.evaluated:,} decisions[/] sampled with logged probabilities, {since} to "
        f"{until} UTC. They cost {format_money(report.billed_usd)}; {report.scored:,} of them have "
        f"a score, on average {mean}."
    )
    if report.deterministic:
        console.print(
            f"{report.deterministic:,} more, which cost "
            f"{format_money(report.deterministic_billed_usd)}, are left out: "
            "a rule, the heuristic, a tool loop or the caller chose their model, so the score of "
            "any other is unknown.",
            style="yellow",
        )
    console.print()


def _print_policies(report: CounterfactualReport, console: Console) -> None:
    wide, scored = is_wide_terminal(console), _any_score([each.overall for each in report.policies])
    heads = [*(["score", "gain"] if scored else []), "cost", "against"]
    heads += ["agrees", "worth"] if wide else []
    rows, notes, refused = [], [], defaultdict[str, list[str]](list)
    for result in report.policies:
        overall, gain = result.overall, result.gain
        worth = overall.estimate.support.effective_sample_size
        difference = gain.difference if isinstance(gain, PolicyComparison) else None
        gained = _format_estimate(difference, "+.3f") if difference else "-"
        row = (
            result.policy,
            *([_format_score(overall), gained] if scored else []),
            format_money(overall.cost_usd),
            _format_relative_cost(overall),
            *([f"{result.agreement:.0%}", f"{worth:,.0f}"] if wide else []),
        )
        rows.append(row)
        if not isinstance(overall.estimate, OffPolicyEstimate):
            refused[overall.estimate.reason].append(result.policy)
        notes += [f"{result.policy}: {result.note}"] if result.note else []
    console.print(build_table("policy", *heads, numeric=heads, rows=rows))
    legend = _LEGEND if scored else _LEGEND[1:]
    for line in (*legend, *(_WIDE_LEGEND if wide else ())):
        console.print(line, style="dim")
    if refused and not scored:
        # Without a score of the decisions as they were there is none of any other.
        notes.append(f"No scores yet: {next(iter(refused))}.")
    else:
        notes += [
            f"No score yet for {', '.join(names)}: {reason}." for reason, names in refused.items()
        ]
    notes += [_REMEDY] if refused else []
    for line in notes:
        console.print(strip_control_characters(line), style="yellow", markup=False)


def _any_score(parts: Sequence[DecisionSlice]) -> bool:
    return any(isinstance(part.estimate, OffPolicyEstimate) for part in parts)


def _print_breakdown(
    heading: str, result: CounterfactualResult, parts: Sequence[DecisionSlice], console: Console
) -> None:
    if len(parts) < 2:
        return
    scored = _any_score(parts)
    heads = ("decisions", "scored", *(["score"] if scored else []), "cost", "against")
    bars = 1 if is_wide_terminal(console) else 0
    most = max(part.cost_usd for part in parts)
    rows: list[tuple[RenderableType, ...]] = [
        (
            part.name,
            f"{part.decisions:,}",
            f"{part.scored:,}",
            *([_format_score(part)] if scored else []),
            format_money(part.cost_usd),
            _format_relative_cost(part),
            *[Bar(most or 1.0, 0.0, part.cost_usd, width=_BAR)] * bars,
        )
        for part in parts
    ]
    columns = (f"{heading}: {strip_control_characters(result.policy)}", *heads, *[""] * bars)
    console.print("", build_table(*columns, numeric=heads, rows=rows))


def _format_score(part: DecisionSlice) -> Text:
    estimate = part.estimate
    if isinstance(estimate, OffPolicyEstimate):
        return _format_estimate(estimate.dr, ".3f")
    worth = estimate.support.effective_sample_size
    return Text.assemble("no score\n", (f"worth {worth:,.0f}", "dim"))


def _format_relative_cost(part: DecisionSlice) -> str:
    """Return the cost as a share of the logged policy's."""
    return f"{part.cost_usd / part.actual_usd:.0%}" if part.actual_usd > 0 else "-"


def _format_estimate(estimate: ValueEstimate, form: str) -> Text:
    interval = f"[{estimate.low:{form}}, {estimate.high:{form}}]"
    return Text.assemble(f"{estimate.value:{form}}\n", (interval, "dim"))


def _write_figure(report: CounterfactualReport, path: Path) -> None:
    from sophia.learning.evaluation.figure import write_figure

    try:
        write_figure(report, path)
    except ModuleNotFoundError as error:
        exit_with_error(
            f"--figure needs {error.name}, which is not installed. "
            "Install the extra: pip install 'sophia-router[figures]'"
        )
