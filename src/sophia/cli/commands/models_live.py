"""`sophia models probe` and `health`: questions to a new model, and which models answer now."""

import asyncio
import os
from collections import Counter
from typing import Annotated

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sophia.cli.client import RequestFailed, get_json, require_key
from sophia.cli.config_file import load_command_settings
from sophia.cli.options import DEFAULT_BASE_URL, BaseUrl, ConfigFile, DataDir, Json, Key
from sophia.cli.terminal import (
    build_console,
    build_table,
    exit_with_error,
    format_money,
    print_json,
    strip_control_characters,
)
from sophia.compose.offline import open_offline_runtime
from sophia.config import Settings
from sophia.core.money import nano_from_usd, nano_to_usd
from sophia.learning.priors.probe_prior import MIN_PAIRS
from sophia.serving.judging.probe_model import (
    ProbeEstimate,
    ProbeNotAllowed,
    ProbeReport,
    ProbeRequest,
    probe_model,
)

_MAX_PROBLEMS = 3


def probe_new_model(
    id: Annotated[str, typer.Argument(help="The model to probe.")],
    against: Annotated[
        list[str] | None,
        typer.Option(help="A known model to compare with; may be repeated. Default: two."),
    ] = None,
    limit_usd: Annotated[float, typer.Option(help="Most that it may cost.", min=0)] = 1.0,
    json: Json = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Ask a new model a set of questions, and learn its quality from the answers.

    Exits with 1 when nothing could be learned.
    """
    settings = load_command_settings(config, data_dir)
    request = ProbeRequest(id, against or (), nano_from_usd(str(limit_usd)))
    try:
        report = asyncio.run(_probe(settings, request))
    except (ProbeNotAllowed, LookupError) as error:
        exit_with_error(strip_control_characters(str(error)))
    if json:
        print_json(_report_to_json(report))
    else:
        _print_report(report)
    if report.snapshot is None:
        raise typer.Exit(1)


async def _probe(settings: Settings, request: ProbeRequest) -> ProbeReport:
    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=build_console(stderr=True), transient=True) as progress:
        task = progress.add_task("asking", total=None)

        def on_estimate(estimate: ProbeEstimate) -> None:
            progress.console.print(_format_estimate(estimate, nano_to_usd(request.max_cost_nano)))
            progress.update(task, total=estimate.requests)

        async with open_offline_runtime(settings, os.environ) as (runtime, archive):
            return await probe_model(
                runtime, archive, request, on_estimate, lambda _: progress.advance(task)
            )


def _format_estimate(estimate: ProbeEstimate, limit_usd: float) -> str:
    baselines = " and ".join(estimate.baselines)
    most_usd = nano_to_usd(estimate.max_nano)
    text = (
        f"{estimate.requests} requests to {estimate.model} and {baselines}: about "
        f"{format_money(nano_to_usd(estimate.expected_nano))}, at most "
        f"{format_money(min(limit_usd, most_usd))}"
    )
    if most_usd <= limit_usd:
        return f"{text}."
    return f"{text}; with the longest answers they would cost {format_money(most_usd)}."


def _print_report(report: ProbeReport) -> None:
    out = build_table(
        "model", "right", "wrong", "no answer", numeric=("right", "wrong", "no answer")
    )
    for model in (report.estimate.model, *report.estimate.baselines):
        counts = Counter(grade.correct for grade in report.grades if grade.model == model)
        out.add_row(model, *(str(counts[correct]) for correct in (True, False, None)))
    build_console().print(out)
    problems = Counter((grade.model, grade.problem) for grade in report.grades if grade.problem)
    for (model, problem), count in problems.most_common(_MAX_PROBLEMS):
        typer.secho(
            strip_control_characters(f"{model}: {problem} ({count} times)"), fg="yellow", err=True
        )
    spent = format_money(nano_to_usd(report.spent_nano))
    before, after = report.update.prior, report.update.posterior
    if after is None:
        typer.echo(
            f"\nFewer than {MIN_PAIRS} questions were answered by both sides: nothing changed. "
            f"It cost {spent}."
        )
        return
    out = build_table("kind of work", "pairs", "won", "lost", "quality before", "quality now")
    for index, kind in enumerate(report.kinds):
        counted = ("", "", "")
        if (pairs := report.pairs.get(kind)) is not None:
            counted = (f"{pairs.count:.0f}", f"{pairs.wins:g}", f"{pairs.losses:g}")
        quality = (f"{each.quality[index]:.2f} ± {each.sd[index]:.2f}" for each in (before, after))
        out.add_row(kind, *counted, *quality)
    build_console().print("", out)
    typer.echo(
        f"\nActive snapshot: {(report.snapshot or '')[:16]}; `sophia policy rollback` undoes this. "
        f"It cost {spent}."
    )


def _report_to_json(report: ProbeReport) -> dict[str, object]:
    before, after = report.update.prior, report.update.posterior
    return {
        "model": report.estimate.model,
        "against": list(report.estimate.baselines),
        "snapshot": report.snapshot,
        "spent_usd": nano_to_usd(report.spent_nano),
        "expected_usd": nano_to_usd(report.estimate.expected_nano),
        "answers": [
            {"model": row.model, "probe": row.probe, "right": row.correct, "problem": row.problem}
            for row in report.grades
        ],
        "kinds": {
            kind: {
                time: None if each is None else [float(each.quality[at]), float(each.sd[at])]
                for time, each in (("before", before), ("after", after))
            }
            for at, kind in enumerate(report.kinds)
        },
    }


class _Row(msgspec.Struct, kw_only=True):
    upstream: str
    model: str | None = None
    state: str
    success: float
    attempts: int
    cause: str | None = None
    next_trial_s: float | None = None


class _Health(msgspec.Struct):
    data: list[_Row]


def show_health(
    json: Json = False,
    base_url: BaseUrl = DEFAULT_BASE_URL,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Show which models answer, by the last attempts of a running Sophia.

    A model that fails is ejected for a while; then one request at a time tries it again. The
    success is the share of answers among the last attempts.
    """
    try:
        body = get_json(base_url, require_key(key, data_dir), "/models/health")
        rows = msgspec.convert(body, _Health).data
    except RequestFailed as error:
        exit_with_error(str(error))
    except msgspec.ValidationError:
        exit_with_error(f"The answer of {base_url} is no health; is it another release?")
    if json:
        print_json(body)
        return
    console = build_console()
    if not rows:
        console.print("No model was asked since this Sophia started.")
        return
    columns = ("model", "upstream", "state", "success", "attempts", "why")
    shown = [tuple(map(strip_control_characters, _format_row(row))) for row in rows]
    console.print(build_table(*columns, numeric=("success", "attempts"), rows=shown))


def _format_row(row: _Row) -> tuple[str, ...]:
    why = row.cause or ""
    if why and row.next_trial_s:
        why += f"; next trial in {row.next_trial_s:.0f} s"
    model = row.model or "every model behind its key"
    return (model, row.upstream, row.state, f"{row.success:.0%}", f"{row.attempts:,}", why)
