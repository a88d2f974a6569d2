"""`sophia learn --challengers`: who challenges the learned policy, how far, and why."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import typer

from sophia.cli.screen import console, give_up, table
from sophia.cli.settings import load_for
from sophia.compose import data_folder, open_store
from sophia.compose.challenge import Standing, challenge_now, standings
from sophia.config import Settings
from sophia.learning.snapshots import BrokenSnapshot


def show(json: bool, config: Path | None, data_dir: str | None, *, now: bool) -> None:
    """Print how all challenges stand; with `now` the steps that are due are taken first."""
    settings = load_for(config, data_dir)
    try:
        found = asyncio.run(_standings(settings, now=now))
    except (BrokenSnapshot, LookupError) as error:
        give_up(str(error))
    if json:
        text = msgspec.json.format(msgspec.json.encode(found), indent=2)
        typer.echo(text.decode())
        return
    if not found:
        typer.echo("Nobody challenges the learned policy yet: it takes 4,000 outcomes of a key.")
        return
    out = table("key", "stage", "serves", "looks", "gain", "next step", right=("serves", "looks"))
    for one in found:
        out.add_row(
            one.tenant or "all",
            one.stage,
            f"{one.share:.0%}",
            str(one.looks),
            _gain(one),
            _next(one),
        )
    console().print(out)
    for one in found:
        for step in one.history:
            at = datetime.fromtimestamp(step.at_ms / 1000, UTC)
            who = f"{one.challenger} for {one.tenant or 'all'}"
            typer.echo(f"{at:%Y-%m-%d %H:%M} {who}: {step.after}, {step.reason}.")


async def _standings(settings: Settings, *, now: bool) -> list[Standing]:
    store = open_store(settings)
    try:
        work = challenge_now if now else standings
        return await work(settings.learning, data_folder(settings), store)
    finally:
        await store.close()


def _gain(one: Standing) -> str:
    """Return where the gain lies by the last look, in points of score for the price of money."""
    if one.low is not None and one.high is not None:
        return f"{one.low:+.3f} to {one.high:+.3f}"
    return f"cannot be told: {one.refused}" if one.refused else "not looked at yet"


def _next(one: Standing) -> str:
    if one.lessons_left is None:
        (ours, score), (theirs, other) = one.ours, one.theirs
        return f"by live scores: {score:.3f} of {ours:,}, {other:.3f} of {theirs:,}"
    return "due" if one.lessons_left <= 0 else f"in {one.lessons_left:,} outcomes"
