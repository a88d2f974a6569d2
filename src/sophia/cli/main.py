"""`sophia`: serve, ask, explain, look things up."""

from pathlib import Path
from typing import Annotated

import typer

from sophia.cli.options import (
    Against,
    BaseUrl,
    Benchmarks,
    Challenge,
    Challengers,
    Config,
    DataDir,
    Key,
)

app = typer.Typer(
    name="sophia",
    help="A self-hosted model router: one base_url, the right model for each request.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys_app = typer.Typer(help="API keys.", no_args_is_help=True)
models_app = typer.Typer(help="The catalogue: models, prices, roles.", invoke_without_command=True)
app.add_typer(keys_app, name="keys")
app.add_typer(models_app, name="models")

LOCAL = "http://127.0.0.1:8080/v1"


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
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


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Serve the API."""
    from sophia.cli.serve import run

    run(config, {("server", "host"): host, ("server", "port"): port, ("data_dir",): data_dir})


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    daily_budget_usd: Annotated[
        float | None, typer.Option(help="Daily budget; default: the configured one.")
    ] = None,
    per_request_usd: Annotated[
        float | None, typer.Option(help="Most a single request may cost.")
    ] = None,
    explore: Annotated[
        bool, typer.Option(help="Whether its requests may try out models that may be better.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Make an inference key; it is shown once."""
    from sophia.cli.keys import create

    create(name, daily_budget_usd, per_request_usd, explore, json, config, data_dir)


@keys_app.command("list")
def keys_list(data_dir: DataDir = None, config: Config = None) -> None:
    """List the keys, with what each has spent today."""
    from sophia.cli.keys import show

    show(config, data_dir)


@keys_app.command("revoke")
def keys_revoke(
    id: Annotated[str, typer.Argument(help="The key's id, as `sophia keys list` shows it.")],
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Revoke a key; running servers notice within a second."""
    from sophia.cli.keys import revoke

    revoke(id, config, data_dir)


@models_app.callback()
def models(
    context: typer.Context,
    search: Annotated[str | None, typer.Option(help="Part of an id or name.")] = None,
    role: Annotated[str | None, typer.Option(help="Only the model with this role.")] = None,
    max_price: Annotated[
        float | None, typer.Option(help="Most US dollars per million output tokens.")
    ] = None,
    min_context: Annotated[int | None, typer.Option(help="Least context, in tokens.")] = None,
    parameter: Annotated[
        str | None, typer.Option(help="A parameter it must take, such as tools.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show more than the first 50.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """List models with prices, context and role."""
    if context.invoked_subcommand is None:
        from sophia.cli.models import Wanted, show

        wanted = Wanted(search, role, max_price, min_context, parameter, every)
        show(wanted, json, config, data_dir)


@models_app.command("refresh")
def models_refresh(data_dir: DataDir = None, config: Config = None) -> None:
    """Fetch the listing of today and keep it."""
    from sophia.cli.models import refresh

    refresh(config, data_dir)


@app.command()
def usage(
    days: Annotated[int, typer.Option(help="How many days back.", min=1, max=366)] = 14,
    by: Annotated[str, typer.Option(help="model, key or day.")] = "model",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Show what was spent, with its curve."""
    from sophia.cli.usage import show

    show(days, by, json, config, data_dir)


@app.command()
def chat(
    prompt: Annotated[list[str], typer.Argument(help="What to ask.")],
    model: Annotated[str, typer.Option(help="Model to ask for.")] = "sophia/auto",
    base_url: BaseUrl = LOCAL,
    key: Key = None,
    data_dir: DataDir = None,
) -> None:
    """Ask a running Sophia; shows the answer as it comes, then model, cost and reason."""
    from sophia.cli.ask import chat as ask

    ask(" ".join(prompt), model, base_url, key, data_dir)


@app.command()
def route(
    prompt: Annotated[list[str], typer.Argument(help="What would be asked.")],
    model: Annotated[str, typer.Option(help="Model to ask for.")] = "sophia/auto",
    base_url: BaseUrl = LOCAL,
    key: Key = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Explain which model would answer, and why, without asking it."""
    from sophia.cli.ask import route as explain

    explain(" ".join(prompt), model, base_url, key, json, data_dir)


@app.command("eval")
def evaluate(
    table: Annotated[
        list[Path] | None,
        typer.Option(help="A folder with queries.parquet and outcomes.parquet; may be repeated."),
    ] = None,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="Judge by the logged decisions and their feedback.")
    ] = False,
    days: Annotated[float, typer.Option(help="How many days of the ledger.", min=0)] = 30,
    policy: Annotated[
        list[str] | None, typer.Option(help="Only this policy; may be repeated.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for a table's curves as PNG and SVG.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="File for everything as JSON.")] = None,
    seed: Annotated[int, typer.Option(help="Of all that is random.", min=0)] = 0,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Show what routing policies are worth: on outcomes of your own, or on your own traffic."""
    from sophia.cli.evaluate import Wanted, show

    wanted = Wanted(table or (), ledger, days, policy or (), seed, figures, json)
    show(wanted, config, data_dir)


@app.command()
def learn(
    show: Annotated[bool, typer.Option("--list", help="List what was in service when.")] = False,
    arms: Annotated[
        bool, typer.Option("--arms", help="Show what is known of each model, and how surely.")
    ] = False,
    key_id: Annotated[
        str | None, typer.Option("--key-id", help="With --arms: the key whose outcomes count.")
    ] = None,
    rollback: Annotated[
        str | None,
        typer.Option(help="Go back to a snapshot: its id or how it begins, or `previous`."),
    ] = None,
    priors: Benchmarks = None,
    probe: Annotated[
        str | None, typer.Option(help="Ask this model a pack of questions, and believe the result.")
    ] = None,
    against: Against = None,
    limit_usd: Annotated[float, typer.Option(help="Most that a probe may cost.", min=0)] = 1.0,
    channels: Annotated[
        bool, typer.Option("--channels", help="Show what each channel of feedback is worth.")
    ] = False,
    challenge: Challenge = False,
    challengers: Challengers = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Learn anew from all lessons and take the result if it foresees better; go back; or probe."""
    from sophia.cli import learn

    if probe is not None:
        from sophia.cli.probe import Wanted
        from sophia.cli.probe import run as run_probe

        run_probe(Wanted(probe, against or (), limit_usd, json), config, data_dir)
    elif arms:
        from sophia.cli.arms import show as show_arms

        show_arms(key_id, json, config, data_dir)
    elif show:
        learn.show(json, config, data_dir)
    elif rollback is not None:
        learn.back(rollback, config, data_dir)
    elif channels:
        from sophia.cli.channels import show as show_channels

        show_channels(json, config, data_dir)
    elif priors:
        from sophia.cli.priors import take

        take(priors, json, config, data_dir)
    elif challenge or challengers:
        from sophia.cli.challengers import show as show_challengers

        show_challengers(json, config, data_dir, now=challenge)
    else:
        learn.anew(json, config, data_dir)


@app.command()
def replay(
    decision: Annotated[
        str | None, typer.Argument(help="A decision's id; without one, all of the last days.")
    ] = None,
    days: Annotated[float, typer.Option(help="How many days back.", min=0)] = 7,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Tell what these days would have cost and scored by another policy: heuristic, "
            "hierarchical, learned, cheap, balanced, best, model:ID or a snapshot's id; may be "
            "repeated."
        ),
    ] = None,
    dial: Annotated[
        str | None, typer.Option(help="With what money is worth on this dial, 0 to 10.")
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Choosing among these models alone, with commas between.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="File for a picture of it, .png or .svg.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Make learned decisions again with what was known then, and compare them bit by bit.

    With --policy, --dial or --models: tell what another policy would have cost and scored.
    """
    if policy or dial or models or figure:
        from sophia.cli.what_if import Asked, show

        asked = Asked(policy or ["learned"], days, dial, models, figure, json)
        if decision is not None:
            raise typer.BadParameter("a decision's id goes without --policy, --dial and --models")
        show(asked, config, data_dir)
        return
    from sophia.cli.learn import replay

    replay(decision, days, json, config, data_dir)


@app.command()
def doctor(data_dir: DataDir = None, config: Config = None) -> None:
    """Check key, upstream, clock, SQLite, ports and data folder, and say how to mend them."""
    from sophia.cli.doctor import examine

    raise typer.Exit(examine(config, data_dir))


@app.command()
def version() -> None:
    """Print the version."""
    from sophia import __version__

    typer.echo(__version__)


if __name__ == "__main__":
    app()
