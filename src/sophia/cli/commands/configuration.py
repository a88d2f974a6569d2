"""`sophia config`: check the settings, and show the effective ones."""

import os
from typing import Any

import msgspec
import typer
import yaml

from sophia.cli.config_file import find_settings_file, list_setting_variables, load_command_settings
from sophia.cli.options import ConfigFile, DataDir, Json
from sophia.cli.terminal import exit_with_error, print_json
from sophia.compose.offline import load_knowledge
from sophia.config import describe_store_url
from sophia.core.errors import ConfigError
from sophia.serving.judging.judge import build_judge_config

config = typer.Typer(help="The settings.", no_args_is_help=True)


@config.command("check")
def check_config(json: Json = False, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Check file, environment, routing rules and names of models; exits with 2 on an error."""
    error = None
    try:
        settings = load_command_settings(config, data_dir)
        build_judge_config(settings.learning.judge, load_knowledge(settings).find)
    except ConfigError as problem:
        error = str(problem)
    if json:
        print_json({"valid": error is None, "errors": [] if error is None else [error]})
        raise typer.Exit(0 if error is None else 2)
    if error is not None:
        exit_with_error(error, 2)
    typer.echo("The settings are valid.")


@config.command("show")
def show_config(json: Json = False, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Show the effective settings as YAML, and the file and variables that set them.

    Secrets are masked.
    """
    tree = _mask_secrets(msgspec.to_builtins(load_command_settings(config, data_dir)))
    file = find_settings_file(config)
    used = sorted(name for name in list_setting_variables() if os.environ.get(name))
    if json:
        print_json({"settings": tree, "file": file and str(file), "variables": used})
        return
    typer.echo(f"# file: {file or 'none'}; variables: {', '.join(used) or 'none'}")
    typer.echo(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), nl=False)


def _mask_secrets(value: Any) -> Any:
    """Return plain data without keys and passwords."""
    if isinstance(value, dict):
        return {name: _mask_value(name, inner) for name, inner in value.items()}
    return [_mask_secrets(inner) for inner in value] if isinstance(value, list | tuple) else value


def _mask_value(name: str, value: Any) -> Any:
    if name == "api_key" and value:
        return "***"
    if name == "url" and value:
        return describe_store_url(value)
    return _mask_secrets(value)
