"""Settings for a command: read, or the reason why not and exit code 2."""

import os
from collections.abc import Mapping
from pathlib import Path

import typer

from sophia.cli.settings_file import read
from sophia.config import ConfigError, Settings


def load(config: Path | None, overrides: Mapping[tuple[str, ...], object]) -> Settings:
    """Return the settings; prints what is wrong and exits with 2 otherwise."""
    try:
        return read(config, os.environ, overrides)
    except ConfigError as error:
        typer.secho(str(error), fg="red", err=True)
        raise typer.Exit(2) from None


def load_for(config: Path | None, data_dir: str | None) -> Settings:
    """Return the settings of a command that has only a data folder of its own."""
    return load(config, {("data_dir",): data_dir})
