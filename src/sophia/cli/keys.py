"""`sophia keys`: make, list and revoke API keys."""

import asyncio
import json as jsonlib
import time
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from sophia.cli.screen import console, printable
from sophia.cli.settings import load_for
from sophia.compose import data_folder, new_key, open_store
from sophia.config import Settings
from sophia.core.money import format_usd, nano_from_usd
from sophia.core.rows import KeyRow
from sophia.tenants.budget import day_window


def create(  # noqa: PLR0913 - the options of the command
    name: str,
    daily_usd: float | None,
    per_request_usd: float | None,
    explore: bool,
    json: bool,
    config: Path | None,
    data_dir: str | None,
) -> None:
    """Make a key and print it, the only time it can be seen."""
    settings = load_for(config, data_dir)
    token, row = new_key(
        data_folder(settings),
        name,
        daily=_nano(daily_usd, "--daily-budget-usd"),
        each=_nano(per_request_usd, "--per-request-usd"),
    )
    asyncio.run(_add(settings, row._replace(explores=explore)))
    if json:
        typer.echo(jsonlib.dumps({"id": row.id, "name": name, "key": token}))
    else:
        typer.echo(f"{token}\nKeep it: it is shown this once. Its id is {row.id}.")


def show(config: Path | None, data_dir: str | None) -> None:
    """Print the keys as a table."""
    settings = load_for(config, data_dir)
    rows, spent = asyncio.run(_all(settings))
    table = Table("id", "name", "scope", "spent today", "daily budget", "per request", "explores")
    table.add_column("state")
    for row in rows:
        table.add_row(
            row.id,
            Text(printable(row.name)),
            row.scope,
            format_usd(spent.get(row.id, 0)),
            _limit(row.daily_budget_nano),
            _limit(row.per_request_nano),
            "yes" if row.explores else "no",
            "in force" if row.revoked_ms is None else "revoked",
        )
    console().print(table)


def revoke(id: str, config: Path | None, data_dir: str | None) -> None:
    """Revoke the key with this id. Exits with 1 when there is none."""
    settings = load_for(config, data_dir)
    if not asyncio.run(_revoke(settings, id)):
        typer.secho(f"There is no key {id!r} in force; `sophia keys list` shows them.", err=True)
        raise typer.Exit(1)
    typer.echo(f"Key {id} is revoked.")


def _nano(usd: float | None, option: str) -> int | None:
    if usd is not None and usd < 0:
        typer.secho(f"{option} must be 0 or more US dollars.", fg="red", err=True)
        raise typer.Exit(2)
    return None if usd is None else nano_from_usd(usd)


def _limit(nano: int | None) -> str:
    return "default" if nano is None else format_usd(nano)


async def _add(settings: Settings, row: KeyRow) -> None:
    store = open_store(settings)
    await store.add_key(row)
    await store.close()


async def _all(settings: Settings) -> tuple[list[KeyRow], dict[str, int]]:
    store = open_store(settings)
    rows = list(await store.keys())
    spends = await store.spends(day_window(time.time()))
    await store.close()
    return rows, {spend.key_id: spend.spent_nano for spend in spends}


async def _revoke(settings: Settings, id: str) -> bool:
    store = open_store(settings)
    found = any(row.id == id and row.revoked_ms is None for row in await store.keys())
    if found:
        await store.revoke_key(id, time.time_ns() // 1_000_000)
    await store.close()
    return found
