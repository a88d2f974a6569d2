"""`sophia policy`: the learned policy, its snapshots, and other policies beside it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sophia.cli.commands.compare import compare_on_past_traffic
from sophia.cli.config_file import load_command_settings
from sophia.cli.options import ConfigFile, DataDir, Json, wrap_async_command
from sophia.cli.terminal import (
    build_console,
    build_table,
    exit_with_error,
    format_money,
    print_json,
    strip_control_characters,
)
from sophia.compose.offline import (
    build_policy_archive,
    is_ledger_current,
    load_knowledge,
    open_data_folder,
    open_store,
)
from sophia.config import Settings
from sophia.core.errors import ConfigError
from sophia.core.money import nano_to_usd
from sophia.learning.evaluation.nonresponse import MeanEstimate, ScoreEstimates
from sophia.learning.online.policy import OnlinePolicy
from sophia.learning.operations.arms import (
    EXAMPLE_COMPLETION_TOKENS,
    EXAMPLE_PROMPT_TOKENS,
    ArmSummary,
    load_current_policy,
    summarize_arms,
)
from sophia.learning.operations.retrain import retrain_policy
from sophia.learning.operations.rollback import roll_back
from sophia.learning.priors.book import read_saved_priors
from sophia.learning.snapshots import SnapshotConflict, UnknownSnapshot
from sophia.routing.bandit.performance.latency import SpeedPrior

policy = typer.Typer(help="The learned routing policy.", no_args_is_help=True)

_LEGEND = (
    f"Cost and seconds are of a complete answer to {EXAMPLE_PROMPT_TOKENS:,} tokens where "
    f"{EXAMPLE_COMPLETION_TOKENS} are expected, by the measured answers; `--json` adds the ranges."
)
_FULL_TABLE_COLUMNS = 90
_WEIGHTING_LABELS = {"request": "by request and model", "score": "by request, model and score"}


@policy.command("show")
def show_policy(
    key: Annotated[
        str | None,
        typer.Option(help="The id of the key whose feedback counts; default: the only one."),
    ] = None,
    json: Json = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Show expected quality, cost and time of each model and call mode."""
    learned = load_learned_arms(load_command_settings(config, data_dir), key)
    arms = sorted(learned.arms, key=lambda arm: (-arm.quality, arm.arm))
    if json:
        print_json([arm_to_json(arm) for arm in arms])
    else:
        print_arms(arms)
        build_console().print(strip_control_characters(learned.basis), markup=False)


@policy.command("history")
def list_active_snapshots(
    json: Json = False, data_dir: DataDir = None, config: ConfigFile = None
) -> None:
    """List the snapshots that were active, the latest last."""
    settings = load_command_settings(config, data_dir)
    archive = build_policy_archive(settings)
    steps = archive.read_history()
    lessons = {step.id: archive.read_lesson_count(step.id) for step in steps if not step.expired}
    if json:
        rows = [
            {
                "id": step.id,
                "at_ms": step.at_ms,
                "reason": step.reason,
                "kept": not step.expired,
                "lessons": lessons.get(step.id),
            }
            for step in steps
        ]
        print_json(rows)
        return
    if not steps:
        typer.echo("No snapshots yet: `sophia serve` writes the first one.")
        return
    kept = []
    for step in steps:
        if not step.expired:
            since = datetime.fromtimestamp(step.at_ms / 1000, UTC)
            known = lessons[step.id]
            count = "unreadable" if known is None else f"{known:,}"
            kept.append((f"{since:%Y-%m-%d %H:%M}", step.id[:16], count, step.reason))
    columns = ("since", "snapshot", "lessons", "reason")
    build_console().print(build_table(*columns, numeric=("lessons",), rows=kept))
    typer.echo(_describe_priors(Path(settings.data_dir)))
    if len(lessons) < len(steps):
        typer.echo(f"{len(steps) - len(lessons)} earlier snapshots are no longer kept.")


@policy.command("rollback")
@wrap_async_command
async def roll_back_policy(
    snapshot: Annotated[
        str | None, typer.Argument(help="A snapshot's id or its beginning; default: the previous.")
    ] = None,
    json: Json = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Return to an earlier snapshot; a running server loads it within seconds."""
    settings = load_command_settings(config, data_dir)
    try:
        async with open_data_folder(settings) as folder:
            id = await roll_back(folder.archive, folder.store, snapshot, _now_ms())
    except UnknownSnapshot as error:
        exit_with_error(f"{error}. `sophia policy history` lists the snapshots.")
    if json:
        print_json({"snapshot": id})
    else:
        typer.echo(f"Active snapshot: {id[:16]}, a copy of the earlier one.")


@policy.command("retrain")
@wrap_async_command
async def retrain_learned_policy(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only report; activate nothing.")
    ] = False,
    json: Json = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Retrain on all feedback, and activate the result if it predicts held-out feedback better."""
    settings = load_command_settings(config, data_dir)
    try:
        async with open_data_folder(settings) as folder:
            archive, store = folder.archive, folder.store
            result, id = await retrain_policy(archive, store, _now_ms(), dry_run=dry_run)
    except SnapshotConflict as error:
        exit_with_error(f"{error}. Run it again.")
    except (ValueError, LookupError) as error:
        exit_with_error(str(error))
    if json:
        print_json({**msgspec.to_builtins(result), "snapshot": id})
        return
    typer.echo(
        f"{result.lessons:,} lessons; squared error on the latest {result.held_out_lessons:,}: "
        f"{result.current_mse:.4f} trained online, {result.refit_mse:.4f} retrained."
    )
    if result.weighted_means is not None:
        typer.echo(_format_means(result.weighted_means))
    if id is not None:
        typer.echo(f"Better: {id[:16]} is active; `sophia policy rollback` undoes this.")
    elif result.better:
        typer.echo("Better; without --dry-run it would be activated.")
    else:
        typer.echo("Not clearly better: the policy stays as it is.")


policy.command("compare")(compare_on_past_traffic)


def _now_ms() -> int:
    return int(time.time() * 1000)


@dataclass(frozen=True, slots=True)
class LearnedArms:
    """The arms of the pool, and a sentence that names the source of their qualities."""

    arms: list[ArmSummary]
    basis: str


def load_learned_arms(settings: Settings, key_id: str | None = None) -> LearnedArms:
    """Return what was learned from the feedback of a key, by default of the only one that gave any.

    Raises BrokenSnapshot.
    """
    pool = load_knowledge(settings).pool
    learned = asyncio.run(_load_policy(settings, pool.speed_prior))
    keys = [key for key in learned.tenants() if key]
    if learned.shared:
        key_id = ""
    elif key_id is None and len(keys) == 1:
        (key_id,) = keys
    arms = summarize_arms(learned, pool, key_id or "")
    return LearnedArms(arms, _describe_basis(learned, key_id))


async def _load_policy(
    settings: Settings, speed_prior: Callable[[str], SpeedPrior]
) -> OnlinePolicy:
    archive = build_policy_archive(settings, speed_prior)
    if not is_ledger_current(settings):
        return archive.load_active()
    async with open_store(settings) as store:
        return await load_current_policy(archive, store)


def _describe_basis(learned: OnlinePolicy, key_id: str | None) -> str:
    if key_id is None:
        keys = [key for key in learned.tenants() if key]
        counts = ", ".join(f"{key}: {learned.status(key).lessons:,}" for key in keys)
        note = f" Outcomes by key: {counts}; --key ID shows those of one key." if counts else ""
        return f"Qualities are by public ratings and benchmarks.{note}"
    status = learned.status(key_id)
    owner = f"key {key_id}" if key_id else "all keys"
    text = f"Qualities are by outcomes of {owner}, {status.lessons:,} until now"
    if not learned.shared and status.lessons < status.eligible_at:
        return f"{text}; they decide from {status.eligible_at:,} on, public ratings until then."
    return f"{text}."


def print_arms(arms: Sequence[ArmSummary]) -> None:
    """Print arms as a table, on a narrow terminal without the rarer columns."""
    console = build_console()
    wide = console.width >= _FULL_TABLE_COLUMNS
    numbers = ("quality", "cost", "p50", *(("p95", "fails") if wide else ()), "answers")
    out = build_table("model", *numbers, numeric=numbers)
    for arm in arms:
        summary = arm.performance
        rare = (_seconds(summary.p95_ms), f"{summary.failure_rate:.1%}")
        out.add_row(
            arm.arm,
            f"{arm.quality:.2f} ± {arm.sd:.2f}",
            format_money(nano_to_usd(round(arm.cost_nano))),
            _seconds(summary.p50_ms),
            *(rare if wide else ()),
            f"{arm.timed_answers:,}",
        )
    console.print(out)
    console.print("", _LEGEND, markup=False, highlight=False, sep="\n")


def arm_to_json(arm: ArmSummary) -> dict[str, object]:
    """Return an arm as JSON-able data."""
    summary = arm.performance
    return {
        "arm": arm.arm,
        "quality": arm.quality,
        "sd": arm.sd,
        "expected_usd": nano_to_usd(round(arm.cost_nano)),
        "cost_sd_usd": nano_to_usd(round(summary.cost_sd_nano)),
        "p50_ms": round(summary.p50_ms),
        "p50_range_ms": [round(edge) for edge in summary.p50_range_ms],
        "p95_ms": round(summary.p95_ms),
        "failure_rate": round(summary.failure_rate, 4),
        "failure_range": [round(edge, 4) for edge in summary.failure_range],
        "answers": arm.timed_answers,
    }


def _seconds(milliseconds: float) -> str:
    seconds = milliseconds / 1000
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _describe_priors(data: Path) -> str:
    """Return the origin of the priors of new models, in a line."""
    try:
        saved = read_saved_priors(data)
    except ConfigError as error:
        return strip_control_characters(str(error))
    if saved is None:
        return "Priors of new models: shipped."
    files = ", ".join(f"{source.file} ({source.as_of})" for source in saved.sources)
    return strip_control_characters(f"Priors of new models: shipped tables and {files}.")


def _format_means(means: ScoreEstimates) -> str:
    parts = [f"Mean score of answers with feedback {_format_mean(means.unweighted)}"]
    if means.basis in _WEIGHTING_LABELS:
        label, weighted = _WEIGHTING_LABELS[means.basis], _format_mean(means.weighted)
        parts.append(f"weighted for non-response {label} {weighted}")
    if means.judge_sampled is not None:
        parts.append(f"of answers sampled for the judge {_format_mean(means.judge_sampled)}")
    return f"{'; '.join(parts)}."


def _format_mean(mean: MeanEstimate) -> str:
    return f"{mean.value:.3f} ± {mean.se:.3f} ({mean.count:,})"
