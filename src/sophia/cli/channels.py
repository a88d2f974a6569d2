"""`sophia learn --channels`: what each channel of feedback is worth, by what the ledger holds."""

import asyncio
import json as jsonlib
import time
from pathlib import Path

import msgspec
import typer

from sophia.cli.screen import console, printable, table
from sophia.cli.settings import load_for
from sophia.compose import open_store
from sophia.compose.learning import read_plan
from sophia.config import Settings
from sophia.learning.ballots import ballots_of
from sophia.learning.calibration import LEAST, credences
from sophia.learning.channels import CHANNELS, Channel, telling
from sophia.learning.credence import NOTHING, Credence
from sophia.learning.verdicts import LATEST_MS

_USUAL = "(everybody)"
_LEGEND = (
    "good, bad: how often the channel calls a good and a bad answer good.",
    "weight: of one word, against the truth itself. compared: answers that others spoke of, too.",
)


def show(json: bool, config: Path | None, data_dir: str | None) -> None:
    """Print what is believed of the channels, and what the last thirty days tell by key."""
    found, names = asyncio.run(_read(load_for(config, data_dir)))
    if json:
        told = {_named(id, names): msgspec.to_builtins(one) for id, one in found.items()}
        typer.echo(jsonlib.dumps(told, indent=2))
        return
    out = table("key", "channel", "good", "bad", "weight", "compared", right=_NUMBERS)
    for name, channel in CHANNELS.items():
        out.add_row(_USUAL, *_cells(name, channel, NOTHING))
    for id, one in found.items():
        for name, channel in one.channels.items():
            out.add_row(printable(_named(id, names)), *_cells(name, channel, one))
    console().print(out)
    for line in _LEGEND:
        console().print(line, style="dim")
    if not found:
        typer.echo(
            f"No key has {LEAST} answers of the last thirty days that several channels spoke of: "
            "all channels are worth what everybody believes."
        )


_NUMBERS = ("good", "bad", "weight", "compared")


def _cells(name: str, channel: Channel, credence: Credence) -> tuple[str, ...]:
    compared = credence.compared.get(name)
    return (
        name,
        f"{channel.hit:.2f}",
        f"{channel.slip:.2f}",
        f"{telling(channel):.3f}",
        "-" if compared is None else f"{compared:,}",
    )


def _named(id: str, names: dict[str, str]) -> str:
    return names.get(id, id) or "all keys"


async def _read(settings: Settings) -> tuple[dict[str, Credence], dict[str, str]]:
    store = open_store(settings)
    try:
        names = {key.id: key.name for key in await store.keys()}
        since = int(time.time() * 1000) - LATEST_MS
        ballots = await ballots_of(store, read_plan, since)
        return credences(ballots, shared=settings.learning.share_keys), names
    finally:
        await store.close()
