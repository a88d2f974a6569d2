"""`sophia db`: create or upgrade the tables of the store, and check them."""

import typer

from sophia.cli.config_file import load_command_settings
from sophia.cli.options import ConfigFile, DataDir
from sophia.cli.terminal import exit_with_error
from sophia.compose.keys import ensure_data_folder
from sophia.compose.offline import find_store, inspect, report
from sophia.core.errors import ConfigError

db = typer.Typer(help="The database of the store.", no_args_is_help=True)


@db.command("upgrade")
def upgrade_database(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Create the tables of this release, or upgrade older ones; `serve` does so too."""
    settings = load_command_settings(config, data_dir)
    ensure_data_folder(settings)
    address = find_store(settings)
    address.migrate()
    typer.echo(f"{address} has schema {address.revision()}.")


@db.command("check")
def check_database(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Check that the database answers and has the tables of this release; exits with 1 if not."""
    address = find_store(load_command_settings(config, data_dir))
    if address.is_missing():
        exit_with_error(f"There is no database at {address}: `sophia db upgrade` creates one.")
    try:
        check = inspect.inspect_ledger(address)
    except (ConfigError, report.LedgerUnreadable) as error:
        exit_with_error(str(error))
    if check.quick_check != "ok":
        exit_with_error(f"{address} is damaged: {check.quick_check}")
    if check.revision != check.latest_revision:
        exit_with_error(
            f"{address} has schema {check.revision or 'none'}, and this release "
            f"{check.latest_revision}: `sophia db upgrade` brings an older one up to date."
        )
    typer.echo(f"{address} is intact and has schema {check.revision}.")
