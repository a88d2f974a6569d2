"""What every command writes with: a console that fits the terminal, money, and the way out."""

import os
from collections.abc import Iterable
from typing import NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sophia.core.money import format_usd, nano_from_usd

PIPE_WIDTH = 160
_ROOMY = 110
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def console(*, stderr: bool = False) -> Console:
    """Return a console; lines for a pipe or a file are long enough to hold an id uncut.

    It draws no emoji: a model's name such as `maker/free:free:` is no picture.
    """
    made = Console(stderr=stderr, highlight=False, soft_wrap=False, emoji=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        return Console(stderr=stderr, highlight=False, width=PIPE_WIDTH, emoji=False)
    return made


def is_roomy(paper: Console) -> bool:
    """Say whether there is room for the columns that one can do without."""
    return paper.width >= _ROOMY


def table(*columns: str, right: Iterable[str] = ()) -> Table:
    """Return an empty table; the columns in `right` hold numbers, the first one is wrapped last."""
    made = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    numbers = set(right)
    for place, name in enumerate(columns):
        made.add_column(
            name,
            justify="right" if name in numbers else "left",
            no_wrap=name in numbers or place == 0,
            overflow="fold",
        )
    return made


def money(usd: float) -> str:
    """Return US dollars with three significant digits below a dollar: `$0.000472`, `$3.10`."""
    size = abs(usd)
    text = format_usd(nano_from_usd(f"{float(f'{size:.3g}') if size < 1 else size:.9f}"))
    decimals = len(text.partition(".")[2])
    return "-" * (usd < 0) + text + "0" * (2 - decimals)


def count(number: int) -> str:
    """Return a number of tokens as people say it: `950`, `131k`, `1.05M`."""
    if number < 1000:
        return str(number)
    scaled, unit = (number / 1000, "k") if number < 999_500 else (number / 1e6, "M")
    return f"{scaled:.3g}{unit}"


def printable(text: str) -> str:
    """Return `text` without the characters that could command a terminal."""
    return text.translate(_CONTROLS)


def give_up(message: str, code: int = 1) -> NoReturn:
    """Say what is wrong on stderr and leave with `code`."""
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(code)
