"""`sophia usage`: requests, cost and open reservations by model, key or day."""

import dataclasses
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.bar import Bar
from rich.console import Console
from rich.text import Text

from sophia.cli.config_file import load_command_settings
from sophia.cli.options import ConfigFile, DataDir, Json
from sophia.cli.terminal import (
    build_console,
    build_table,
    exit_with_error,
    format_count,
    format_money,
    print_json,
    strip_control_characters,
)
from sophia.compose.offline import (
    StoreAddress,
    build_catalogue,
    build_role_follower,
    find_store,
    report,
)
from sophia.config import Settings
from sophia.core.money import nano_to_usd

_BAR = 40


def usage(
    days: Annotated[int, typer.Option(help="How many days back.", min=1, max=366)] = 14,
    by: Annotated[report.GroupBy, typer.Option(help="Rows of the table.")] = "model",
    json: Json = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Show requests, tokens and cost by model, key or day (UTC)."""
    dates = _dates(days)
    settings = load_command_settings(config, data_dir)
    found = _read_report(require_ledger(settings), by, dates[0])
    saving = _compare(settings, found)
    if json:
        body = {
            "since": dates[0],
            "until": dates[-1],
            "by": by,
            "rows": [_row_to_json(row, found.key_names) for row in found.rows],
            "days": [_row_to_json(row, {}) for row in found.daily],
            "saving": saving and dataclasses.asdict(saving),
        }
        print_json(body)
    elif not found.rows:
        typer.echo(f"No requests from {dates[0]} to {dates[-1]}.")
    else:
        _print_table(build_console(), by, found.rows, found.key_names)
        _print_days(build_console(), dates, found.daily)
        if saving is not None:
            build_console().print("", Text(saving.sentence))


@dataclasses.dataclass(frozen=True)
class _Saving:
    """Cost of all attempts, and of the answers' tokens at the list price of another model."""

    compared_with: str
    spent_usd: float
    compared_usd: float

    @property
    def sentence(self) -> str:
        saved = self.compared_usd - self.spent_usd
        text = (
            f"Spent {format_money(self.spent_usd)}; the same answers by {self.compared_with} would "
            f"have cost {format_money(self.compared_usd)}"
        )
        if saved <= 0.0:
            return f"{text}."
        return f"{text}: saved {format_money(saved)} ({saved / self.compared_usd:.0%})."


def _compare(settings: Settings, found: report.UsageReport) -> _Saving | None:
    """Return the comparison with `routing.compare_with`; None where that has no price."""
    model = build_role_follower(settings).find_compared_model(build_catalogue(settings))
    if model is None or not model.prices.known:
        return None
    nano = model.prices.cost(*found.served_tokens)
    spent = _total(found.daily).cost_nano
    return _Saving(model.id, nano_to_usd(spent), nano_to_usd(nano))


def require_ledger(settings: Settings) -> StoreAddress:
    """Return the address of the ledger; exits where there is none."""
    address = find_store(settings)
    if address.is_missing():
        exit_with_error(
            f"No ledger at {address}: `sophia serve` creates one, --data-dir names another folder."
        )
    return address


def _read_report(address: StoreAddress, by: report.GroupBy, since: str) -> report.UsageReport:
    try:
        found = report.read_usage(address, by, since)
    except report.LedgerUnreadable as error:
        exit_with_error(f"{address} cannot be read: {error}. `sophia doctor` checks it.")
    if found is None:
        exit_with_error(
            f"{address} is of another release; starting `sophia serve` brings it up to date."
        )
    return found


def _dates(days: int) -> list[str]:
    now = datetime.fromtimestamp(time.time(), UTC)
    return [f"{now - timedelta(days=back):%Y-%m-%d}" for back in reversed(range(days))]


def _print_table(
    console: Console, by: report.GroupBy, rows: Sequence[report.UsageTotals], names: dict[str, str]
) -> None:
    numbers = ("requests", "failed", "tokens", "cost")
    held = any(row.open_holds for row in rows)
    out = build_table(by, *numbers, *(["held"] if held else []), numeric=(*numbers, "held"))
    for row in [*rows, *([_total(rows)] if len(rows) > 1 else [])]:
        label = f"{names[row.name]} ({row.name})" if row.name in names else row.name
        out.add_row(
            Text(strip_control_characters(label)),
            f"{row.requests:,}",
            f"{row.failures:,}" if row.failures else "-",
            f"{format_count(row.prompt_tokens)}+{format_count(row.completion_tokens)}",
            format_money(nano_to_usd(row.cost_nano)),
            *(
                [
                    f"{row.open_holds}: {format_money(nano_to_usd(row.held_nano))}"
                    if row.open_holds
                    else "-"
                ]
                * held
            ),
            end_section=row is rows[-1],
        )
    console.print(out)
    if held:
        console.print(
            "Held: the bill is not known yet; the amount counts against the budget until it is, "
            "or as spent after `budget.unknown_hold_minutes`.",
            style="dim",
        )
    if by == "model" and any(row.failures for row in rows):
        console.print("A request that two models were tried for counts for both.", style="dim")


def _print_days(
    console: Console, dates: Sequence[str], daily: Sequence[report.UsageTotals]
) -> None:
    """Print a bar per day: its cost, or its requests where nothing cost anything."""
    if len(dates) < 2:
        return
    by_date = {row.name: row for row in daily}
    totals = [by_date.get(date, report.UsageTotals(name=date)) for date in dates]
    paid = any(row.cost_nano for row in totals)
    values = [row.cost_nano if paid else row.requests for row in totals]
    heading = "cost" if paid else "requests"
    rows: list[tuple[str, str, Bar]] = []
    for date, value in zip(dates, values, strict=True):
        label = format_money(nano_to_usd(value)) if paid else f"{value:,}"
        bar = Bar(max(values) or 1, 0, value, width=_BAR)
        rows.append((date, label if value else "-", bar))
    console.print("", build_table("day (UTC)", heading, "", numeric=(heading,), rows=rows))


def _total(rows: Sequence[report.UsageTotals]) -> report.UsageTotals:
    names = [field.name for field in dataclasses.fields(report.UsageTotals)][1:]
    sums = {name: sum(getattr(row, name) for row in rows) for name in names}
    return report.UsageTotals(name="all", **sums)


def _row_to_json(row: report.UsageTotals, names: dict[str, str]) -> dict[str, object]:
    body = dataclasses.asdict(row)
    for name in ("cost", "held"):
        body[f"{name}_usd"] = nano_to_usd(body.pop(f"{name}_nano"))
    return body | ({"key_name": names[row.name]} if row.name in names else {})
