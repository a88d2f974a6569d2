"""`sophia models`: what can be asked for, what it costs and can; and fetching today's listing."""

import asyncio
import json as jsonlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import UNBOUNDED, Model
from sophia.catalogue.profiles import CatalogueError
from sophia.catalogue.refresh import Changes, changes, refreshed
from sophia.cli.screen import console, count, give_up, is_roomy, printable, table
from sophia.cli.settings import load_for
from sophia.compose import (
    catalogue_of,
    data_folder,
    default_place,
    keep_listing,
    listed,
    upstream_of,
)
from sophia.config import ConfigError, Settings, UpstreamSettings
from sophia.core.failures import UpstreamFailure
from sophia.core.money import usd
from sophia.learning.snapshots import BrokenSnapshot

_FIRST = 50
_NAMED_CHANGES = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which models to show; prices in US dollars per million output tokens, context in tokens."""

    search: str | None = None
    role: str | None = None
    max_price: float | None = None
    min_context: int | None = None
    parameter: str | None = None
    every: bool = False

    def fits(self, model: Model) -> bool:
        """Say whether `model` is one of them."""
        return (
            (self.search is None or self.search.lower() in f"{model.id} {model.name}".lower())
            and (self.role is None or _role(model).lower() == self.role.strip().lower())
            and (self.max_price is None or _completion(model, UNBOUNDED) <= self.max_price)
            and (self.min_context is None or model.context_length >= self.min_context)
            and (self.parameter is None or self.parameter in model.parameters)
        )


def show(wanted: Wanted, json: bool, config: Path | None, data_dir: str | None) -> None:
    """Print the models that are wanted, those that Sophia chooses among first."""
    settings = load_for(config, data_dir)
    catalogue = catalogue_of(settings)
    if wanted.role is not None and not any(
        _role(model).lower() == wanted.role.strip().lower() for model in catalogue.profiles
    ):
        roles = ", ".join(_role(model) for model in catalogue.profiles)
        give_up(f"No model has the role {wanted.role!r}; the roles are: {roles}.", 2)
    found = sorted(
        (model for model in catalogue.models if wanted.fits(model)),
        key=lambda model: (model.profile is None, model.id),
    )
    if json:
        arms = _arms(settings)
        told = [_facts(model) | {"arms": arms.get(model.id, [])} for model in found]
        typer.echo(jsonlib.dumps(told, indent=2))
        return
    shown = found if wanted.every else found[:_FIRST]
    paper = console()
    _print(paper, [model for model in shown if model.profile is not None], with_role=True)
    _print(paper, [model for model in shown if model.profile is None], with_role=False)
    paper.print(_footer(catalogue, len(shown), len(found), is_roomy(paper)), style="dim")


def _arms(settings: Settings) -> dict[str, list[dict[str, object]]]:
    """Return what was learned of the ways of calling each model."""
    from sophia.cli.arms import by_model

    try:
        return by_model(settings)
    except BrokenSnapshot as error:
        give_up(str(error))


def refresh(config: Path | None, data_dir: str | None) -> None:
    """Fetch the listing, keep it and print what changed. Exits with 1 when it cannot be had."""
    settings = load_for(config, data_dir)
    try:
        data = data_folder(settings)
        before = listed(data)
        place = default_place(settings, os.environ)
        with console(stderr=True).status(escape(f"Fetching the models of {place.base_url} …")):
            body = asyncio.run(_fetch(place))
            after = refreshed(before, body, datetime.now(UTC).date().isoformat())
        keep_listing(data, body)
    except (UpstreamFailure, CatalogueError, ConfigError, OSError) as error:
        why = error.message if isinstance(error, UpstreamFailure) else str(error)
        give_up(f"The listing was not fetched: {printable(why)}\n{_stays(settings)}")
    typer.echo(f"{len(after.models)} models, kept in {data / 'models.json'}.")
    _print_changes(changes(before, after), before.date)
    for warning in after.warnings:
        typer.secho(warning, fg="yellow", err=True)


async def _fetch(place: UpstreamSettings) -> bytes:
    upstream = upstream_of(place, os.environ)
    try:
        return await upstream.get("/models")
    finally:
        await upstream.close()


def _stays(settings: Settings) -> str:
    current = listed(Path(settings.data_dir))
    return f"The last good one stays: {current.source}, of {current.date}."


def _print_changes(what: Changes, since: str) -> None:
    if not what:
        typer.echo(f"Nothing changed since {since}.")
        return
    groups = (("added", what.added), ("removed", what.removed), ("repriced", what.repriced))
    for verb, ids in groups:
        first = ", ".join(ids[:_NAMED_CHANGES])
        more = f" and {len(ids) - _NAMED_CHANGES} more" if len(ids) > _NAMED_CHANGES else ""
        typer.echo(printable(f"{len(ids):>5} {verb}" + (f": {first}{more}" if ids else "")))


def _print(paper: Console, models: Sequence[Model], *, with_role: bool) -> None:
    if not models:
        return
    roomy = is_roomy(paper)
    numbers = ("in $", "out $", "context", "max out")
    head = ("Sophia chooses among", "role") if with_role else ("asked for by name",)
    out = table(*head, *numbers, "can", right=numbers)
    for model in models:
        tier = model.prices.tiers[0]
        known = model.prices.known
        out.add_row(
            Text(printable(model.id)),
            *([Text(printable(_role(model)))] if with_role else []),
            _price(tier.prompt) if known else "?",
            _price(tier.completion) if known else "?",
            "-" if model.context_length == UNBOUNDED else count(model.context_length),
            "-" if model.max_output_tokens is None else count(model.max_output_tokens),
            " ".join(_abilities(model)) if roomy else "".join(a[0] for a in _abilities(model)),
        )
    paper.print(out)
    paper.print()


def _footer(catalogue: Catalogue, shown: int, found: int, roomy: bool) -> Text:
    text = f"{shown} of {found} that fit" if found < len(catalogue.models) else f"{shown}"
    text += f" of {len(catalogue.models)} models, {catalogue.source}, listed on {catalogue.date}."
    if found == 0:
        text = f"No model fits, of {text.partition(' that fit of ')[2]}"
    if shown < found:
        text += " --all shows the rest."
    if found:
        text += "\nPrices are US dollars per million tokens."
    if found and not roomy:
        text += " Can: t tools, i images, r reasoning, j json, ? not listed."
    return Text(text)


def _abilities(model: Model) -> Iterable[str]:
    if model.kind != "chat":
        return [model.kind]
    offered = {
        "tools": "tools" in model.parameters,
        "images": "image" in model.input_modalities,
        "reasoning": "reasoning" in model.parameters,
        "json": bool(model.parameters & {"response_format", "structured_outputs"}),
    }
    unsaid = [] if model.parameters else ["?"]
    return [*(name for name, has in offered.items() if has), *unsaid]


def _facts(model: Model) -> dict[str, object]:
    tier = model.prices.tiers[0]
    known = model.prices.known
    return {
        "id": model.id,
        "name": model.name,
        "role": _role(model) or None,
        "kind": model.kind,
        "prompt_usd_per_mtok": usd(tier.prompt) if known else None,
        "completion_usd_per_mtok": usd(tier.completion) if known else None,
        "context_length": None if model.context_length == UNBOUNDED else model.context_length,
        "max_output_tokens": model.max_output_tokens,
        "input_modalities": sorted(model.input_modalities),
        "output_modalities": sorted(model.output_modalities),
        "parameters": sorted(model.parameters),
        "expires": model.expires,
    }


def _role(model: Model) -> str:
    return model.profile.role if model.profile is not None else ""


def _completion(model: Model, unknown: float) -> float:
    return usd(model.prices.tiers[0].completion) if model.prices.known else unknown


def _price(nano: int) -> str:
    """Return a price per million tokens with two decimals, or more where it is below a cent."""
    dollars = usd(nano)
    return f"{dollars:.2f}" if dollars >= 0.1 or nano == 0 else f"{dollars:.3g}"
