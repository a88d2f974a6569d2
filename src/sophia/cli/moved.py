"""Old spellings of commands, and the new ones."""

from typing import Any

import typer

from sophia.cli.terminal import exit_with_error

# By command, its options in order of precedence; "" stands for the command without any of them.
MOVED_COMMANDS: dict[str, dict[str, str]] = {
    "learn": {
        "--probe": "sophia models probe",
        "--arms": "sophia policy show",
        "--list": "sophia policy history",
        "--rollback": "sophia policy rollback",
        "--channels": "sophia feedback sources",
        "": "sophia policy retrain",
    },
    "replay": {
        "--policy": "sophia policy compare",
        "--dial": "sophia policy compare --quality-bias",
        "--models": "sophia policy compare --models",
        "--figure": "sophia policy compare --figure",
        "": "sophia decisions verify",
    },
    "eval": {"--ledger": "sophia policy compare", "": "python -m lab.evaluate"},
    "version": {"": "sophia --version"},
}


def build_moved_command(name: str) -> Any:
    """Return an old command that fails with the new spelling for its options."""

    def moved(context: typer.Context) -> None:
        used = {"", *(argument.partition("=")[0] for argument in context.args)}
        new = next(new for option, new in MOVED_COMMANDS[name].items() if option in used)
        exit_with_error(f"`sophia {name}` is gone; the command is now `{new}`.", 2)

    settings = {"allow_extra_args": True, "ignore_unknown_options": True}
    old = typer.Typer(add_completion=False)
    old.command(name, hidden=True, add_help_option=False, context_settings=settings)(moved)
    return typer.main.get_command(old)
