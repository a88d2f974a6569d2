"""`python -m lab.priors FILE...`: refit the priors of new models to newer benchmark files."""

import json as jsonlib
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from lab.evaluation.tables import InvalidTable
from lab.priors.refresh import refresh
from sophia.cli.config_file import load_command_settings
from sophia.cli.options import ConfigFile, DataDir
from sophia.cli.terminal import (
    build_console,
    build_table,
    exit_with_error,
    strip_control_characters,
)
from sophia.compose.keys import ensure_data_folder
from sophia.compose.offline import build_catalogue
from sophia.learning.priors.book import SavedPriors


def main(
    files: Annotated[
        list[Path], typer.Argument(help="Benchmark exports (JSON or CSV) and folders of outcomes.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Refit the priors of new models to these files and write them into the data folder."""
    settings = load_command_settings(config, data_dir)
    try:
        with build_console(stderr=True).status("Fitting …"):
            now_ms = int(time.time() * 1000)
            folder = ensure_data_folder(settings)
            saved = refresh(folder, files, build_catalogue(settings), now_ms)
    except InvalidTable as error:
        exit_with_error(f"{strip_control_characters(str(error))}\nNothing was changed.")
    if json:
        result = {"made_ms": saved.created_ms, "seal": saved.sha256, "sources": saved.sources}
        typer.echo(jsonlib.dumps(msgspec.to_builtins(result), indent=2))
    else:
        _print_priors(saved, folder)


def _print_priors(saved: SavedPriors, folder: Path) -> None:
    out = build_table("file", "of", "models", "tasks", numeric=("models",))
    for one in saved.sources:
        tasks = ", ".join(one.tasks[:6]) + (" …" if len(one.tasks) > 6 else "")
        out.add_row(
            Text(strip_control_characters(one.file)),
            one.as_of,
            str(one.arms),
            Text(strip_control_characters(tasks)),
        )
    output = build_console()
    output.print(out)
    for credit in dict.fromkeys(one.credit for one in saved.sources if one.credit):
        output.print(Text(strip_control_characters(credit), style="dim"))
    measured = sum(one.basis == "measured" for one in saved.priors.arms.values())
    output.print(
        f"Priors of {len(saved.priors.arms)} models, {measured} of them measured; "
        f"{saved.sha256[:16]}; in {folder}. "
        "A running server uses them for models that it adds from now on; what it learned stays."
    )


if __name__ == "__main__":
    typer.run(main)
