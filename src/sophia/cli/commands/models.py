"""`sophia models`: list, show, refresh, probe, and the health of the models of the catalogue."""

import asyncio
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text
from typer.core import TyperGroup

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import UNBOUNDED, Model
from sophia.catalogue.profiles import CatalogueError
from sophia.catalogue.refresh import (
    LISTING_FILE,
    CatalogueChanges,
    diff_catalogues,
    load_catalogue,
    refresh_catalogue,
    save_listing,
)
from sophia.cli.commands.models_live import probe_new_model, show_health
from sophia.cli.commands.policy import arm_to_json, load_learned_arms, print_arms
from sophia.cli.config_file import load_command_settings
from sophia.cli.options import ConfigFile, DataDir, Json
from sophia.cli.terminal import (
    build_console,
    build_table,
    exit_with_error,
    format_count,
    is_wide_terminal,
    print_json,
    strip_control_characters,
)
from sophia.compose.keys import ensure_data_folder
from sophia.compose.offline import (
    SNAPSHOT_FOLDER,
    build_catalogue,
    build_role_follower,
    merge_own_models,
)
from sophia.compose.upstreams import build_upstream
from sophia.config import ProviderSettings, Settings, UpstreamSettings, find_default_upstream
from sophia.core.errors import ConfigError
from sophia.core.failures import UpstreamFailure
from sophia.core.money import nano_to_usd
from sophia.learning.operations.arms import ArmSummary
from sophia.routing.bandit.arms import strip_call_mode
from sophia.routing.pool import build_pool, is_batch_variant

_DEFAULT_ROWS = 50
_MAX_LISTED_CHANGES = 5


class ModelsGroup(TyperGroup):
    """`sophia models`, which listed the models before it had commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the new spelling when a list is asked for in the old one."""
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            exit_with_error("`sophia models` is gone; the command is now `sophia models list`.", 2)
        return super().parse_args(ctx, args)


models = typer.Typer(cls=ModelsGroup, help="The catalogue: models, prices, roles.")


@models.command("list")
def list_models(
    search: Annotated[str | None, typer.Option(help="Part of an id or name.")] = None,
    role: Annotated[str | None, typer.Option(help="Only the model with this role.")] = None,
    max_price: Annotated[
        float | None, typer.Option(help="Most US dollars per million output tokens.")
    ] = None,
    min_context: Annotated[int | None, typer.Option(help="Least context, in tokens.")] = None,
    parameter: Annotated[
        str | None, typer.Option(help="A parameter it must take, such as tools.")
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show more than the first 50.")] = False,
    json: Json = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """List models with prices, context and role, those that Sophia chooses among first."""
    settings = load_command_settings(config, data_dir)
    follower = build_role_follower(settings)
    catalogue = follower.follow(build_catalogue(settings))
    if role is not None:
        role = role.strip().lower()
        roles = [_role(model) for model in catalogue.profiled_models]
        if role not in map(str.lower, roles):
            exit_with_error(
                f"No model has the role {role!r}; the roles are: {', '.join(roles)}.", 2
            )

    def matches(model: Model) -> bool:
        return (
            (search is None or search.lower() in f"{model.id} {model.name}".lower())
            and (role is None or _role(model).lower() == role)
            and (max_price is None or _completion_usd(model) <= max_price)
            and (min_context is None or model.context_length >= min_context)
            and (parameter is None or parameter in model.supported_parameters)
        )

    pool = build_pool(catalogue, merge_own_models(settings), lambda _: {}).by_id
    found = sorted(
        filter(matches, catalogue.models),
        key=lambda model: (model.id not in pool, is_batch_variant(model.id), model.id),
    )
    if json:
        arms: dict[str, list[dict[str, object]]] = {}
        for arm in _read_arms(settings):
            arms.setdefault(strip_call_mode(arm.arm), []).append(arm_to_json(arm))
        print_json([_model_to_json(model) | {"arms": arms.get(model.id, [])} for model in found])
        return
    shown = found if show_all else found[:_DEFAULT_ROWS]
    out = build_console()
    _print_models(out, "Sophia chooses among", [m for m in shown if m.id in pool], with_role=True)
    for heading, in_batches in (("asked for by name", False), ("by name, in batches", True)):
        named = [m for m in shown if m.id not in pool and is_batch_variant(m.id) == in_batches]
        _print_models(out, heading, named)
    if catalogue.doubtful_prices:
        text = f"Prices that look wrong: {', '.join(catalogue.doubtful_prices)}"
        out.print(Text(strip_control_characters(text), style="yellow"))
    for change in follower.changes:
        text = f"{change.role}: {change.before} → {change.after}: {change.reason}"
        out.print(Text(strip_control_characters(text), style="dim"))
    out.print(_footer(catalogue, len(shown), len(found), is_wide_terminal(out)), style="dim")


@models.command("show")
def show_model(
    id: Annotated[str, typer.Argument(help="The model's id, or an alias.")],
    json: Json = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Show one model: prices, limits, parameters, and what was learned of it."""
    settings = load_command_settings(config, data_dir)
    catalogue = build_role_follower(settings).follow(build_catalogue(settings))
    resolved = catalogue.resolve(id)
    if resolved is None:
        near = ", ".join(catalogue.similar_ids(id))
        hint = f" Did you mean {near}?" if near else " `sophia models list` shows the models."
        exit_with_error(f"There is no model {strip_control_characters(id)!r}.{hint}")
    model = resolved.model
    arms = [arm for arm in _read_arms(settings) if strip_call_mode(arm.arm) == model.id]
    body = _model_to_json(model)
    if json:
        print_json(body | {"arms": [arm_to_json(arm) for arm in arms]})
        return
    rows = []
    for field, value in list(body.items())[1:]:
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        rows.append((field.replace("_", " "), str("-" if text is None else text)))
    build_console().print(build_table("model", strip_control_characters(model.id), rows=rows))
    if arms:
        typer.echo()
        print_arms(arms)


def _read_arms(settings: Settings) -> list[ArmSummary]:
    """Return what was learned of the models; nothing, and no new folder, before the first start."""
    if not (Path(settings.data_dir) / SNAPSHOT_FOLDER).exists():
        return []
    return load_learned_arms(settings).arms


@models.command("refresh")
def refresh_model_list(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Fetch the upstream's list of models and keep it; shows what changed."""
    settings = load_command_settings(config, data_dir)
    before = load_catalogue(Path(settings.data_dir))
    upstream = find_default_upstream(settings, os.environ)
    try:
        data = ensure_data_folder(settings)
        with build_console(stderr=True).status(
            escape(f"Fetching the models of {upstream.base_url} …")
        ):
            body = asyncio.run(_fetch_listing(upstream))
            after = refresh_catalogue(before, body, datetime.now(UTC).date().isoformat())
        save_listing(data, body)
    except (UpstreamFailure, CatalogueError, ConfigError, OSError) as error:
        reason = error.message if isinstance(error, UpstreamFailure) else str(error)
        exit_with_error(
            f"The list of models was not refreshed: {strip_control_characters(reason)}\n"
            f"The last good one stays: {before.source}, of {before.date}."
        )
    typer.echo(f"{len(after.models)} models, kept in {data / LISTING_FILE}.")
    _print_changes(diff_catalogues(before, after), before.date)
    for warning in after.warnings:
        typer.secho(warning, fg="yellow", err=True)


models.command("probe")(probe_new_model)
models.command("health")(show_health)


async def _fetch_listing(settings: UpstreamSettings) -> bytes:
    upstream = build_upstream(settings, os.environ, ProviderSettings())
    try:
        return await upstream.get("/models")
    finally:
        await upstream.close()


def _print_changes(changes: CatalogueChanges, since: str) -> None:
    if not any(changes):
        typer.echo(f"Nothing changed since {since}.")
        return
    for verb, ids in changes._asdict().items():
        first = ", ".join(ids[:_MAX_LISTED_CHANGES])
        more = (
            f" and {len(ids) - _MAX_LISTED_CHANGES} more" if len(ids) > _MAX_LISTED_CHANGES else ""
        )
        typer.echo(
            strip_control_characters(f"{len(ids):>5} {verb}" + (f": {first}{more}" if ids else ""))
        )


def _print_models(
    console: Console, heading: str, models: Sequence[Model], *, with_role: bool = False
) -> None:
    if not models:
        return
    wide = is_wide_terminal(console)
    numbers = ("in $", "out $", "context", "max out")
    head = (heading, "role") if with_role else (heading,)
    rows = []
    for model in models:
        tier = model.prices.tiers[0]
        known = model.prices.known
        capabilities = _list_capabilities(model)
        row = (
            model.id,
            *([_role(model)] if with_role else []),
            _price(tier.prompt) if known else "?",
            _price(tier.completion) if known else "?",
            "-" if model.context_length == UNBOUNDED else format_count(model.context_length),
            "-" if model.max_output_tokens is None else format_count(model.max_output_tokens),
            " ".join(capabilities) if wide else "".join(name[0] for name in capabilities),
        )
        rows.append(row)
    console.print(build_table(*head, *numbers, "can", numeric=numbers, rows=rows), "")


def _footer(catalogue: Catalogue, shown: int, matched: int, wide: bool) -> Text:
    text = f"{shown} of {matched} that fit" if matched < len(catalogue.models) else f"{shown}"
    text += f" of {len(catalogue.models)} models, {catalogue.source}, listed on {catalogue.date}."
    if matched == 0:
        text = f"No model fits, of {text.partition(' that fit of ')[2]}"
    if shown < matched:
        text += " --all shows the rest."
    if matched:
        text += "\nPrices are US dollars per million tokens."
    if matched and not wide:
        text += " Can: t tools, i images, r reasoning, j json, ? not listed."
    return Text(text)


def _list_capabilities(model: Model) -> list[str]:
    if model.kind != "chat":
        return [model.kind]
    offered = {
        "tools": "tools" in model.supported_parameters,
        "images": "image" in model.input_modalities,
        "reasoning": "reasoning" in model.supported_parameters,
        "json": bool(model.supported_parameters & {"response_format", "structured_outputs"}),
    }
    unlisted = [] if model.supported_parameters else ["?"]
    return [*(name for name, has in offered.items() if has), *unlisted]


def _model_to_json(model: Model) -> dict[str, object]:
    tier = model.prices.tiers[0]
    known = model.prices.known
    return {
        "id": model.id,
        "name": model.name,
        "role": _role(model) or None,
        "kind": model.kind,
        "prompt_usd_per_mtok": nano_to_usd(tier.prompt) if known else None,
        "completion_usd_per_mtok": nano_to_usd(tier.completion) if known else None,
        "context_length": None if model.context_length == UNBOUNDED else model.context_length,
        "max_output_tokens": model.max_output_tokens,
        "input_modalities": sorted(model.input_modalities),
        "output_modalities": sorted(model.output_modalities),
        "parameters": sorted(model.supported_parameters),
        "expires": model.expires_on,
    }


def _role(model: Model) -> str:
    return model.profile.role if model.profile is not None else ""


def _completion_usd(model: Model) -> float:
    return nano_to_usd(model.prices.tiers[0].completion) if model.prices.known else UNBOUNDED


def _price(nano: int) -> str:
    """Return a price per million tokens with two decimals, or more where it is below a cent."""
    dollars = nano_to_usd(nano)
    return f"{dollars:.2f}" if dollars >= 0.1 or nano == 0 else f"{dollars:.3g}"
