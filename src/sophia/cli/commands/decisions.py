"""`sophia decisions`: show logged decisions, and verify that they can be reproduced."""

from typing import Annotated

import msgspec
import typer

from sophia.cli.config_file import load_command_settings
from sophia.cli.options import ConfigFile, DataDir, Json, days_ago_ms, wrap_async_command
from sophia.cli.route_output import print_decision
from sophia.cli.terminal import exit_with_error, print_json
from sophia.compose.offline import DataFolderStores, open_data_folder
from sophia.core.ids import decode_id, encode_id
from sophia.core.rows import AttemptIntent
from sophia.http.v1.decisions import render_decision
from sophia.learning.online.packaged import load_task_names
from sophia.learning.online.replay import DecisionReplay, ReplayResult

decisions = typer.Typer(help="Logged routing decisions.", no_args_is_help=True)

_MAX_DECISIONS = 1_000_000
_MAX_LISTED = 20


@decisions.command("show")
@wrap_async_command
async def show_decision(
    id: Annotated[str, typer.Argument(help="The decision's id, dec-…")],
    json: Json = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Show a decision as it was made, its attempts, and its feedback."""
    settings, number = load_command_settings(config, data_dir), _parse_id(id)
    async with open_data_folder(settings) as folder:
        row, store = await _find(folder, number), folder.store
        attempts, feedback = await store.attempts(number), await store.feedback(number)
    body = msgspec.json.encode(render_decision(row, attempts, feedback, load_task_names()))
    if json:
        typer.echo(msgspec.json.format(body, indent=2).decode())
    else:
        print_decision(body)


@decisions.command("verify")
@wrap_async_command
async def verify_decisions(
    id: Annotated[
        str | None, typer.Argument(help="A decision's id; default: all of the last days.")
    ] = None,
    days: Annotated[float, typer.Option(help="How many days back.", min=0)] = 7,
    json: Json = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Make learned decisions again from their snapshots, and compare them bit by bit.

    Exits with 1 when one comes out differently.
    """
    number = None if id is None else _parse_id(id)
    async with open_data_folder(load_command_settings(config, data_dir)) as folder:
        if number is None:
            since_ms = days_ago_ms(days)
            rows = await folder.store.decisions(since_ms, _MAX_DECISIONS)
        else:
            rows = [await _find(folder, number)]
        result = await DecisionReplay(folder.archive, folder.store).run(rows)
    if json:
        different = [
            {"decision_id": encode_id("dec", row.decision_id), "what": row.description}
            for row in result.different
        ]
        body = {
            "same": result.identical,
            "unlearned": result.skipped,
            "gone": result.expired,
            "different": different,
        }
        print_json(body)
    else:
        _print_result(result)
    if result.different or (number is not None and result.expired):
        raise typer.Exit(1)


def _print_result(result: ReplayResult) -> None:
    typer.echo(
        f"{result.identical:,} learned decisions are identical, bit by bit; "
        f"{len(result.different):,} differ; {result.skipped:,} were not made by the learned policy."
    )
    if result.expired:
        typer.echo(
            f"{result.expired:,} cannot be verified: their snapshots are no longer kept "
            "(`learning.keep_days`)."
        )
    for row in result.different[:_MAX_LISTED]:
        typer.echo(f"  {encode_id('dec', row.decision_id)}: {row.description}")


def _parse_id(id: str) -> int:
    number = decode_id("dec", id)
    if number is None:
        exit_with_error(f"{id!r} is no decision id: dec- and 16 hexadecimal digits.", 2)
    return number


async def _find(folder: DataFolderStores, id: int) -> AttemptIntent:
    row = await folder.store.decision(id)
    if row is None or row.plan is None:
        exit_with_error(f"The ledger has no decision {encode_id('dec', id)}.")
    return row
