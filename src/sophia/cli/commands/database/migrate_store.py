"""`sophia migrate-store`: copy the store from one database to another."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from sophia.cli.terminal import build_console, build_table, exit_with_error
from sophia.compose.offline import StoreAddress, copy_store
from sophia.config import LEDGER_FILE
from sophia.core.errors import ConfigError, Unavailable

_PLACE = "a data folder, or postgresql://…"


def migrate_store(
    source: Annotated[str, typer.Option("--from", help=f"Store to copy: {_PLACE}")],
    target: Annotated[str, typer.Option("--to", help=f"Empty store: {_PLACE}")],
) -> None:
    """Copy ledger, keys, feedback and lessons to an empty store, all or nothing.

    Stop every Sophia that uses either store first. Secrets, snapshots and journals stay in the data
    folder.
    """
    counts: dict[str, tuple[int, int]] = {}
    bar = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*bar, console=build_console(stderr=True), transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def report(table: str, total: int, copied: int) -> None:
            if table not in tasks:
                tasks[table] = progress.add_task(table, total=total)
            progress.update(tasks[table], completed=copied)
            counts[table] = total, copied

        try:
            copy_store(_find_address(source), _find_address(target), report)
        except (Unavailable, OSError) as error:
            exit_with_error(f"Nothing was copied: {error}")
    heads = ("source", "target")
    rows = [(name, f"{all:,}", f"{copied:,}") for name, (all, copied) in counts.items()]
    build_console().print(build_table("table", *heads, numeric=heads, rows=rows))


def _find_address(place: str) -> StoreAddress:
    """Return the address of a folder or a URL. Raises ConfigError."""
    if "://" not in place:
        return StoreAddress(Path(place) / LEDGER_FILE)
    if not place.startswith(("postgresql://", "postgres://")):
        raise ConfigError("a store is a data folder or postgresql://USER:PASSWORD@HOST/DATABASE")
    return StoreAddress(Path(), place)
