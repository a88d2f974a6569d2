"""`sophia`: the command line's entry point; each command's module is imported when it runs."""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sophia.cli.moved import MOVED_COMMANDS, build_moved_command
from sophia.cli.terminal import exit_with_error
from sophia.core.errors import ConfigError, Unavailable
from sophia.learning.snapshots import BrokenSnapshot

# In the order of the help; the module of a command is of the same name, with these exceptions.
_COMMANDS = (
    *("serve", "chat", "route", "keys", "models", "usage", "decisions", "policy", "feedback"),
    *("config", "doctor", "db", "migrate-store"),
)
_OTHER_MODULES = {
    "route": "chat",
    "config": "configuration",
    "db": "database.db",
    "migrate-store": "database.migrate_store",
}


class LazyGroup(TyperGroup):
    """The commands of `sophia`, imported when they are needed: most do without numpy and SQLite.

    `Any` stands for Typer's own copy of click, which is private.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands, in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; for an old spelling one that names the new."""
        if cmd_name in MOVED_COMMANDS:
            return build_moved_command(cmd_name)
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"sophia.cli.commands.{_OTHER_MODULES.get(cmd_name, cmd_name)}")
        target = getattr(module, cmd_name.replace("-", "_"))
        if isinstance(target, typer.Typer):
            group = typer.main.get_group(target)
            group.name = cmd_name
            return group
        single = typer.Typer(add_completion=False)
        single.command(cmd_name)(target)
        return typer.main.get_command(single)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; unusable settings and snapshots end every one alike."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            exit_with_error(str(error), 2)
        except Unavailable as error:
            exit_with_error(str(error))
        except BrokenSnapshot as error:
            exit_with_error(f"{error}. `sophia policy history` lists the snapshots.")


app = typer.Typer(
    name="sophia",
    cls=LazyGroup,
    help="A self-hosted model router: one base_url, the right model for each request.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(value: bool) -> None:
    if value:
        from sophia import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def sophia(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """A self-hosted model router: one base_url, the right model for each request."""
