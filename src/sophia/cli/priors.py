"""`sophia learn --priors`: believe newer benchmark files of models that nothing was learned of."""

import json as jsonlib
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import typer
from rich.text import Text

from sophia.cli.screen import console, give_up, printable, table
from sophia.cli.settings import load_for
from sophia.compose import catalogue_of, data_folder
from sophia.compose.priors import Refreshed, forget, refresh
from sophia.learning.schema import NotInstalled, require_learn
from sophia.learning.tables import Unreadable

SHIPPED = "shipped"


def take(paths: Sequence[str], json: bool, config: Path | None, data_dir: str | None) -> None:
    """Make priors of these files and keep them, or go back to the shipped ones.

    Exits with 1 when a file cannot be used, and then changes nothing.
    """
    settings = load_for(config, data_dir)
    data = data_folder(settings)
    if SHIPPED in paths:
        if len(paths) > 1:
            give_up(f"`--priors {SHIPPED}` goes alone: it goes back to what Sophia comes with.", 2)
        were = forget(data)
        typer.echo("The shipped priors are in use" + (" again." if were else ", as they were."))
        return
    files = [Path(path) for path in paths]
    if any(path.is_dir() for path in files):
        _require_learn()
    try:
        with console(stderr=True).status("Fitting abilities and tasks …"):
            made = refresh(data, files, catalogue_of(settings), int(time.time() * 1000))
    except Unreadable as error:
        give_up(f"{printable(str(error))}\nNothing was changed.")
    if json:
        told = {name: getattr(made, name) for name in ("made_ms", "seal", "sources")}
        typer.echo(jsonlib.dumps(msgspec.to_builtins(told), indent=2))
    else:
        _show(made)


def _show(made: Refreshed) -> None:
    out = table("file", "of", "models", "tasks", right=("models",))
    for one in made.sources:
        tasks = ", ".join(one.tasks[:6]) + (" …" if len(one.tasks) > 6 else "")
        out.add_row(Text(printable(one.file)), one.as_of, str(one.arms), Text(printable(tasks)))
    paper = console()
    paper.print(out)
    for credit in dict.fromkeys(one.credit for one in made.sources if one.credit):
        paper.print(Text(printable(credit), style="dim"))
    measured = sum(one.basis == "measured" for one in made.book.arms.values())
    paper.print(
        f"Priors of {len(made.book.arms)} models, {measured} of them measured, {made.seal[:16]}. "
        "A running server uses them for models that it meets from now on; what was learned stays."
    )


def _require_learn() -> None:
    try:
        require_learn()
    except NotInstalled as error:
        give_up(
            f"Tables of outcomes need {error.name}, which is not installed. "
            "Install the extra: pip install 'sophia-router[learn]'"
        )
