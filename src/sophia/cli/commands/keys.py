"""`sophia keys`: create, list, change and revoke API keys."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from sophia.cli.config_file import load_command_settings
from sophia.cli.options import ConfigFile, DataDir, Json, wrap_async_command
from sophia.cli.terminal import build_console, build_table, exit_with_error, print_json
from sophia.compose.keys import create_key, ensure_data_folder
from sophia.compose.offline import open_store
from sophia.config import SANDBOX_FOLDER
from sophia.core.money import format_usd, nano_from_usd, nano_to_usd
from sophia.core.rows import KeyRow
from sophia.tenants.budget import day_window

keys = typer.Typer(help="API keys.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The key's id, as `sophia keys list` shows it.")]
DailyBudget = Annotated[
    float | None, typer.Option(min=0, help="Daily budget; default: the configured one.")
]
PerRequest = Annotated[
    float | None, typer.Option(min=0, help="Most that a single request may cost.")
]


@keys.command("create")
@wrap_async_command
async def create_api_key(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    daily_budget_usd: DailyBudget = None,
    per_request_usd: PerRequest = None,
    explore: Annotated[
        bool, typer.Option(help="Whether its requests may explore models that may be better.")
    ] = True,
    json: Json = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Create an inference key; it is shown once."""
    settings = load_command_settings(config, data_dir)
    token, row = create_key(
        ensure_data_folder(settings),
        name,
        daily_budget_nano=_nano(daily_budget_usd),
        per_request_nano=_nano(per_request_usd),
    )
    async with open_store(settings) as store:
        await store.add_key(replace(row, explores=explore))
    if json:
        print_json({"id": row.id, "name": name, "key": token})
    else:
        typer.echo(f"{token}\nStore it now: it is not shown again. Its id is {row.id}.")
        if Path(settings.data_dir).name == SANDBOX_FOLDER:
            typer.echo("It is a key of the sandbox. For real models, set OPENROUTER_API_KEY first.")


@keys.command("list")
@wrap_async_command
async def list_api_keys(
    json: Json = False, data_dir: DataDir = None, config: ConfigFile = None
) -> None:
    """List the keys, with what each has spent today."""
    settings = load_command_settings(config, data_dir)
    async with open_store(settings) as store:
        accounts = await store.accounts(day_window(time.time()))
        rows, spent = await store.keys(), {each.account: each.spent_nano for each in accounts}
    if json:
        print_json([_key_to_json(row, spent.get(row.id, 0)) for row in rows])
        return
    amounts = ("spent today", "daily budget", "per request")
    columns = ("id", "name", "scope", *amounts, "explores", "state")
    cells = [
        (
            row.id,
            row.name,
            row.scope,
            format_usd(spent.get(row.id, 0)),
            _format_limit(row.daily_budget_nano, settings.budget.daily_usd),
            _format_limit(row.per_request_nano, settings.budget.per_request_usd),
            "yes" if row.explores else "no",
            "active" if row.revoked_ms is None else "revoked",
        )
        for row in rows
    ]
    build_console().print(build_table(*columns, numeric=amounts, rows=cells))


@keys.command("update")
@wrap_async_command
async def update_api_key(
    id: Id,
    name: Annotated[str | None, typer.Option(help="What the key is for.")] = None,
    daily_budget_usd: DailyBudget = None,
    per_request_usd: PerRequest = None,
    explore: Annotated[
        bool | None, typer.Option(help="Whether its requests may explore models.")
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Change a key; running servers notice within a second."""
    options: dict[str, Any] = {
        "name": name,
        "daily_budget_nano": _nano(daily_budget_usd),
        "per_request_nano": _nano(per_request_usd),
        "explores": explore,
    }
    changes = {field: value for field, value in options.items() if value is not None}
    if not changes:
        exit_with_error("Nothing to change; `sophia keys update --help` lists the options.", 2)
    async with open_store(load_command_settings(config, data_dir)) as store:
        await store.update_key(replace(_find_active(await store.keys(), id), **changes))
    typer.echo(f"Key {id} is changed.")


@keys.command("revoke")
@wrap_async_command
async def revoke_api_key(id: Id, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Revoke a key; running servers notice within a second."""
    async with open_store(load_command_settings(config, data_dir)) as store:
        row = _find_active(await store.keys(), id)
        await store.revoke_key(row.id, time.time_ns() // 1_000_000)
    typer.echo(f"Key {id} is revoked.")


def _nano(dollars: float | None) -> int | None:
    return None if dollars is None else nano_from_usd(dollars)


def _format_limit(nano: int | None, default_usd: float | None) -> str:
    """Return a key's own limit, else the configured one."""
    if nano is None:
        return "none" if default_usd is None else format_usd(nano_from_usd(default_usd))
    return format_usd(nano)


def _key_to_json(row: KeyRow, spent_nano: int) -> dict[str, object]:
    daily, each = row.daily_budget_nano, row.per_request_nano
    return {
        "id": row.id,
        "name": row.name,
        "scope": row.scope,
        "spent_today_usd": nano_to_usd(spent_nano),
        "daily_budget_usd": None if daily is None else nano_to_usd(daily),
        "per_request_usd": None if each is None else nano_to_usd(each),
        "explore": bool(row.explores),
        "created_ms": row.created_ms,
        "revoked_ms": row.revoked_ms,
    }


def _find_active(rows: Sequence[KeyRow], id: str) -> KeyRow:
    row = next((row for row in rows if row.id == id and row.revoked_ms is None), None)
    return row or exit_with_error(f"There is no active key {id!r}; see `sophia keys list`.")
