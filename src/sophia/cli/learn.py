"""`sophia learn` and `sophia replay`: what was learned, going back, and proof of past decisions."""

import asyncio
import json as jsonlib
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import typer

from sophia.cli.means import told_means
from sophia.cli.screen import console, give_up, printable, table
from sophia.cli.settings import load_for
from sophia.compose import data_folder, open_store
from sophia.compose.learning import history_of, lessons_in, refitted, replay_of, roll_back
from sophia.compose.priors import kept_in
from sophia.config import ConfigError, Settings
from sophia.core.ids import decode, encode
from sophia.core.rows import Intent
from sophia.jobs.keep import Overtaken
from sophia.learning.refit import Refit
from sophia.learning.replay import Replayed
from sophia.learning.snapshots import BrokenSnapshot, UnknownSnapshot

_DAY_MS = 86_400_000
_MOST = 1_000_000


def show(json: bool, config: Path | None, data_dir: str | None) -> None:
    """Print which snapshots were in service when, the latest last."""
    folder = data_folder(load_for(config, data_dir))
    try:
        history = history_of(folder)
    except BrokenSnapshot as error:
        give_up(str(error))
    lessons = {step.id: lessons_in(folder, step.id) for step in history if not step.gone}
    if json:
        rows = [
            {
                "id": step.id,
                "at_ms": step.at_ms,
                "reason": step.reason,
                "kept": not step.gone,
                "lessons": lessons.get(step.id),
            }
            for step in history
        ]
        typer.echo(jsonlib.dumps(rows, indent=2))
        return
    if not history:
        typer.echo("Nothing was learned yet: `sophia serve` begins, and feedback teaches it.")
        return
    out = table("since", "snapshot", "lessons", "why", right=("lessons",))
    kept = [step for step in history if not step.gone]
    for step in kept:
        since = datetime.fromtimestamp(step.at_ms / 1000, UTC)
        known = lessons[step.id]
        told = "cannot be read" if known is None else f"{known:,}"
        out.add_row(f"{since:%Y-%m-%d %H:%M}", step.id[:16], told, step.reason)
    console().print(out)
    typer.echo(_priors(folder))
    if len(kept) < len(history):
        typer.echo(f"{len(history) - len(kept)} earlier ones are no longer kept.")


def _priors(data: Path) -> str:
    """Return what new models are believed by, in a line."""
    try:
        made = kept_in(data)
    except ConfigError as error:
        return printable(str(error))
    if made is None:
        return "New models are believed as the shipped priors have it."
    files = ", ".join(f"{one.file} ({one.as_of})" for one in made.sources)
    return printable(f"New models are believed as {files} and the shipped tables have it.")


def back(to: str, config: Path | None, data_dir: str | None) -> None:
    """Put an earlier snapshot into service; a running server takes it within seconds."""
    settings = load_for(config, data_dir)
    try:
        id = asyncio.run(_back(settings, None if to == "previous" else to))
    except (BrokenSnapshot, UnknownSnapshot) as error:
        give_up(f"{error}. `sophia learn --list` names those that were in service.")
    typer.echo(f"In service: {id[:16]}, with what was known then.")


def anew(json: bool, config: Path | None, data_dir: str | None) -> None:
    """Learn from all lessons at once; take the result when it foresees better."""
    settings = load_for(config, data_dir)
    judged, id = asyncio.run(_anew(settings))
    if json:
        told = {**msgspec.to_builtins(judged), "snapshot": id}
        typer.echo(jsonlib.dumps(told, indent=2))
        return
    typer.echo(
        f"{judged.lessons:,} lessons; error on the latest {judged.held_out:,}: "
        f"{judged.before:.4f} as learned so far, {judged.after:.4f} learned anew."
    )
    if judged.means is not None:
        typer.echo(told_means(judged.means))
    if id is None:
        typer.echo("Not clearly better: everything stays as it is.")
    else:
        typer.echo(f"Better: {id[:16]} is in service; `--rollback previous` goes back.")


def replay(
    decision: str | None, days: float, json: bool, config: Path | None, data_dir: str | None
) -> None:
    """Make decisions again and compare bit by bit; exit with 1 when one comes out differently."""
    settings = load_for(config, data_dir)
    number = None if decision is None else decode("dec", decision)
    if decision is not None and number is None:
        give_up(f"{decision!r} is no decision's id: dec- and 16 hexadecimal digits.", 2)
    result = asyncio.run(_replay(settings, number, _now() - int(days * _DAY_MS)))
    if json:
        different = [
            {"decision_id": encode("dec", one.decision_id), "what": one.what}
            for one in result.different
        ]
        told = {
            "same": result.same,
            "unlearned": result.unlearned,
            "gone": result.gone,
            "different": different,
        }
        typer.echo(jsonlib.dumps(told, indent=2))
    else:
        typer.echo(
            f"{result.same:,} learned decisions came out the same, bit by bit; "
            f"{len(result.different):,} did not; {result.unlearned:,} were not taken by what was "
            "learned."
        )
        if result.gone:
            typer.echo(
                f"{result.gone:,} rest on snapshots that are no longer kept (`learning.keep_days`):"
                " nobody can make them again."
            )
        for one in result.different[:20]:
            typer.echo(f"  {encode('dec', one.decision_id)}: {one.what}")
    if result.different or (number is not None and result.gone):
        raise typer.Exit(1)


async def _replay(settings: Settings, number: int | None, since_ms: int) -> Replayed:
    store = open_store(settings)
    try:
        decisions: list[Intent] = []
        if number is None:
            decisions = list(await store.decisions(since_ms, _MOST))
        elif (found := await store.decision(number)) is not None and found.plan:
            decisions = [found]
        else:
            give_up("There is no such decision in this ledger.")
        again = replay_of(settings.learning, data_folder(settings), store)
        return await again.run(decisions)
    finally:
        await store.close()


async def _anew(settings: Settings) -> tuple[Refit, str | None]:
    store = open_store(settings)
    try:
        return await refitted(settings.learning, data_folder(settings), store, _now())
    except (ValueError, LookupError) as error:
        give_up(str(error))
    except Overtaken as error:
        give_up(f"{error}. Run it again.")
    finally:
        await store.close()


async def _back(settings: Settings, to: str | None) -> str:
    store = open_store(settings)
    try:
        return await roll_back(settings.learning, data_folder(settings), store, to, _now())
    finally:
        await store.close()


def _now() -> int:
    return int(time.time() * 1000)
