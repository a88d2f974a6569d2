"""`sophia feedback`: reliability of the sources of feedback."""

import time

import msgspec
import typer

from sophia.cli.config_file import load_command_settings
from sophia.cli.options import ConfigFile, DataDir, Json, wrap_async_command
from sophia.cli.terminal import build_console, build_table, print_json
from sophia.compose.offline import open_data_folder
from sophia.learning.feedback.joint_ratings import read_multi_channel_ratings
from sophia.learning.feedback.reliability import MIN_DECISIONS, estimate_reliability
from sophia.learning.feedback.source_reliability import PRIOR_RELIABILITY, SourceReliability
from sophia.learning.feedback.sources import (
    MAX_FEEDBACK_AGE_MS,
    PRIOR_CHANNELS,
    ChannelAccuracy,
    compute_squared_correlation,
)

feedback = typer.Typer(help="Feedback on answers.", no_args_is_help=True)

_LEGEND = (
    "good, bad: how often the source rates a good and a bad answer as good.",
    "weight: of one rating; 1 is the true quality. compared: answers rated by other sources, too.",
)


@feedback.command("sources")
@wrap_async_command
async def show_source_reliability(
    json: Json = False, data_dir: DataDir = None, config: ConfigFile = None
) -> None:
    """Show the reliability of each source of feedback by default, and by key from 30 days."""
    settings = load_command_settings(config, data_dir)
    async with open_data_folder(settings) as folder:
        names = {key.id: key.name for key in await folder.store.keys()}
        since_ms = int(time.time() * 1000) - MAX_FEEDBACK_AGE_MS
        ratings = await read_multi_channel_ratings(folder.store, since_ms)
    estimates = estimate_reliability(ratings, shared=settings.learning.share_keys)
    if json:
        rows = {_key_name(id, names): msgspec.to_builtins(row) for id, row in estimates.items()}
        print_json(rows)
        return
    cells = [
        ("(default)", *_build_row(source, accuracy, PRIOR_RELIABILITY))
        for source, accuracy in PRIOR_CHANNELS.items()
    ]
    cells += [
        (_key_name(id, names), *_build_row(source, accuracy, reliability))
        for id, reliability in estimates.items()
        for source, accuracy in reliability.channels.items()
    ]
    numbers = ("good", "bad", "weight", "compared")
    build_console().print(build_table("key", "source", *numbers, numeric=numbers, rows=cells))
    for line in _LEGEND:
        build_console().print(line, style="dim")
    if not estimates:
        typer.echo(
            f"No key has {MIN_DECISIONS} answers of the last thirty days that several sources "
            "rated: the defaults apply to all keys."
        )


def _build_row(
    source: str, accuracy: ChannelAccuracy, reliability: SourceReliability
) -> tuple[str, ...]:
    compared = reliability.comparisons.get(source)
    return (
        source,
        f"{accuracy.true_positive_rate:.2f}",
        f"{accuracy.false_positive_rate:.2f}",
        f"{compute_squared_correlation(accuracy):.3f}",
        "-" if compared is None else f"{compared:,}",
    )


def _key_name(id: str, names: dict[str, str]) -> str:
    return names.get(id, id) or "all keys"
