"""Output of commands: console, tables, amounts, JSON and errors."""

import json
import os
from collections.abc import Iterable
from typing import NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from sophia.core.money import format_usd, nano_from_usd

_PIPE_WIDTH = 160
_WIDE_COLUMNS = 110
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def build_console(*, stderr: bool = False) -> Console:
    """Return a console; lines for a pipe or a file are wide enough for an uncut id.

    Emoji codes are off: a model's id may contain `:free:`.
    """
    terminal = Console(stderr=stderr, highlight=False, soft_wrap=False, emoji=False)
    if not terminal.is_terminal and "COLUMNS" not in os.environ:
        terminal.width = _PIPE_WIDTH
    return terminal


def is_wide_terminal(console: Console) -> bool:
    """Return whether there is room for optional columns."""
    return console.width >= _WIDE_COLUMNS


def build_table(
    *columns: str, numeric: Iterable[str] = (), rows: Iterable[Iterable[RenderableType]] = ()
) -> Table:
    """Return a table; numeric columns are aligned right, the first one is wrapped last.

    Strings in `rows` are printed without markup and control characters.
    """
    out = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    numbers = set(numeric)
    for place, name in enumerate(columns):
        out.add_column(
            name,
            justify="right" if name in numbers else "left",
            no_wrap=name in numbers or place == 0,
            overflow="fold",
        )
    for row in rows:
        out.add_row(
            *(
                Text(strip_control_characters(cell)) if isinstance(cell, str) else cell
                for cell in row
            )
        )
    return out


def format_money(usd: float) -> str:
    """Return US dollars with three significant digits below a dollar: `$0.000472`, `$3.10`."""
    size = abs(usd)
    text = format_usd(nano_from_usd(f"{float(f'{size:.3g}') if size < 1 else size:.9f}"))
    decimals = len(text.partition(".")[2])
    return "-" * (usd < 0) + text + "0" * (2 - decimals)


def format_count(number: int) -> str:
    """Return a number of tokens in short form: `950`, `131k`, `1.05M`."""
    if number < 1000:
        return str(number)
    scaled, unit = (number / 1000, "k") if number < 999_500 else (number / 1e6, "M")
    return f"{scaled:.3g}{unit}"


def strip_control_characters(text: str) -> str:
    """Return `text` without control characters, which could command a terminal."""
    return text.translate(_CONTROLS)


def print_json(value: object) -> None:
    """Print a value of dicts, lists and scalars as indented JSON."""
    typer.echo(json.dumps(value, indent=2))


def exit_with_error(message: str, code: int = 1) -> NoReturn:
    """Print a message on stderr and exit with `code`."""
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(code)
