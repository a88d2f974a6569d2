"""`sophia usage`: what was asked, spent and held, by model, key or day, with its curve."""

import json as jsonlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from sophia.cli.curve import curve
from sophia.cli.screen import console, count, give_up, money, printable, table
from sophia.cli.settings import load_for
from sophia.compose.books import GROUPS, By, Unreadable, Usage, Used, usage_of
from sophia.core.money import usd

_AXIS = 11


def show(days: int, by: str, json: bool, config: Path | None, data_dir: str | None) -> None:
    """Print the last `days` UTC days, today included. Exits with 2 for a `by` that is none."""
    grouping = next((known for known in GROUPS if known == by), None)
    if grouping is None:
        give_up(f"--by is model, key or day, not {by!r}.", 2)
    path = Path(load_for(config, data_dir).data_dir) / "sophia.db"
    dates = _dates(days)
    found = _read(path, grouping, dates[0])
    rows, daily, names = found.rows, found.daily, found.names
    if json:
        told = {
            "since": dates[0],
            "until": dates[-1],
            "by": grouping,
            "rows": [_facts(row, names) for row in rows],
            "days": [_facts(row, {}) for row in daily],
        }
        typer.echo(jsonlib.dumps(told, indent=2))
    elif not rows:
        typer.echo(f"Nothing was asked from {dates[0]} to {dates[-1]}.")
    else:
        _print(console(), grouping, rows, names)
        _print_curve(console(), dates, daily)


def _read(path: Path, by: By, since: str) -> Usage:
    if not path.exists():
        give_up(f"No ledger at {path}: `sophia serve` begins one, --data-dir names another.")
    try:
        found = usage_of(path, by, since)
    except Unreadable as error:
        give_up(f"{path} cannot be read: {error}. `sophia doctor` looks closer.")
    if found is None:
        give_up(f"{path} is of another release; starting `sophia serve` brings it up to date.")
    return found


def _dates(days: int) -> list[str]:
    now = datetime.fromtimestamp(time.time(), UTC)
    return [f"{now - timedelta(days=back):%Y-%m-%d}" for back in reversed(range(days))]


def _print(paper: Console, by: By, rows: Sequence[Used], names: dict[str, str]) -> None:
    numbers = ("requests", "failed", "tokens", "cost")
    held = any(row.open_holds for row in rows)
    out = table(by, *numbers, *(["held"] if held else []), right=(*numbers, "held"))
    for row in [*rows, *([_total(rows)] if len(rows) > 1 else [])]:
        label = f"{names[row.name]} ({row.name})" if row.name in names else row.name
        out.add_row(
            Text(printable(label)),
            f"{row.requests:,}",
            f"{row.failures:,}" if row.failures else "-",
            f"{count(row.prompt_tokens)}+{count(row.completion_tokens)}",
            money(usd(row.cost_nano)),
            *([f"{row.open_holds}: {money(usd(row.held_nano))}" if row.open_holds else "-"] * held),
            end_section=row is rows[-1],
        )
    paper.print(out)
    if held:
        paper.print(
            "Held: asked, and the bill is not known yet; it counts against the budget "
            "until it is.",
            style="dim",
        )
    if by == "model" and any(row.failures for row in rows):
        paper.print("A request that two models were tried for counts at both.", style="dim")


def _print_curve(paper: Console, dates: Sequence[str], daily: Sequence[Used]) -> None:
    if len(dates) < 2:
        return
    by_date = {row.name: row for row in daily}
    found = [by_date.get(date, Used(date)) for date in dates]
    spent = [float(row.cost_nano) for row in found]
    what = "Dollars" if any(spent) else "Requests"
    values = spent if any(spent) else [float(row.requests) for row in found]
    lines = curve(values, min(paper.width, 110) - _AXIS)
    peak = max(values)
    paper.print(f"\n{what} per day, {dates[0]} to {dates[-1]}, UTC", style="dim")
    for number, line in enumerate(lines):
        most = money(usd(int(peak))) if any(spent) else f"{peak:,.0f}"
        paper.print(f"{most if number == 0 else '':>{_AXIS - 1}} {line}", no_wrap=True)


def _total(rows: Sequence[Used]) -> Used:
    return Used(
        "all",
        sum(row.requests for row in rows),
        sum(row.attempts for row in rows),
        sum(row.failures for row in rows),
        sum(row.prompt_tokens for row in rows),
        sum(row.completion_tokens for row in rows),
        sum(row.cost_nano for row in rows),
        sum(row.open_holds for row in rows),
        sum(row.held_nano for row in rows),
    )


def _facts(row: Used, names: dict[str, str]) -> dict[str, object]:
    named = {"key_name": names[row.name]} if row.name in names else {}
    return {
        "name": row.name,
        **named,
        "requests": row.requests,
        "attempts": row.attempts,
        "failures": row.failures,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "cost_usd": usd(row.cost_nano),
        "open_holds": row.open_holds,
        "held_usd": usd(row.held_nano),
    }
