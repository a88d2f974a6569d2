"""Parse the body of OpenRouter's `GET /models`, and load the bundled one."""

import datetime
from functools import cache
from importlib import resources
from typing import Annotated

import msgspec
from msgspec import Meta

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import UNBOUNDED, Model
from sophia.catalogue.pricing import ListedPricing, parse_pricing
from sophia.catalogue.profiles import CatalogueError, ModelProfiles, parse_profiles


class _Architecture(msgspec.Struct):
    input_modalities: list[str] | None = None
    output_modalities: list[str] | None = None


class _TopProvider(msgspec.Struct):
    context_length: float | None = None
    max_completion_tokens: float | None = None


class _AliasTarget(msgspec.Struct):
    slug: str | None = None


class _ModelRow(msgspec.Struct, kw_only=True):
    """The fields of a model object that Sophia reads; the listing keeps the whole object."""

    id: Annotated[str, Meta(min_length=1)]
    name: str | None = None
    canonical_slug: str | None = None
    context_length: float | None = None
    architecture: _Architecture | None = None
    pricing: ListedPricing | None = None
    top_provider: _TopProvider | None = None
    supported_parameters: list[str] | None = None
    expiration_date: str | None = None
    alias_target: _AliasTarget | None = None


class _SnapshotInfo(msgspec.Struct, frozen=True):
    date: str = ""
    partial_parameters: frozenset[str] = frozenset()


class _ListingBody(msgspec.Struct):
    data: list[msgspec.Raw]
    snapshot: _SnapshotInfo = _SnapshotInfo()


_LISTING_DECODER = msgspec.json.Decoder(_ListingBody)
_MODEL_DECODER = msgspec.json.Decoder(_ModelRow)


def parse_models(body: bytes) -> tuple[Model, ...]:
    """Return the models of a `GET /models` body in its order, the first of each id.

    A row that cannot be read is left out, so that one odd model does not cost the others.

    Raises CatalogueError when the body is not such a list, or no row of it can be read.
    """
    return _parse_listing(body)[0]


@cache
def load_bundled_catalogue() -> Catalogue:
    """Return the catalogue that is shipped with Sophia, read once per process."""
    models, date = _parse_listing(_read_bundled_file("models.json"))
    return Catalogue(models, load_bundled_profiles(), date, "bundled")


def load_bundled_profiles() -> ModelProfiles:
    """Return the profiles that are shipped with Sophia."""
    return parse_profiles(_read_bundled_file("profiles.yaml"))


def _read_bundled_file(name: str) -> bytes:
    return (resources.files("sophia.catalogue") / "data" / name).read_bytes()


def _parse_listing(body: bytes) -> tuple[tuple[Model, ...], str]:
    """Return the models and the date of a listing."""
    try:
        listing = _LISTING_DECODER.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CatalogueError(f"not a list of models: {error}") from error
    models: dict[str, Model] = {}
    for raw in listing.data:
        model = _parse_model(raw, listing.snapshot.partial_parameters)
        if model is not None:
            models.setdefault(model.id, model)
    if not models:
        raise CatalogueError("no row of the list of models can be read")
    return tuple(models.values()), listing.snapshot.date


def _parse_model(raw: msgspec.Raw, partial: frozenset[str]) -> Model | None:
    try:
        row = _MODEL_DECODER.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if not row.id.isprintable():
        # An id becomes a header of answers; a line break would add another one.
        return None
    top = row.top_provider or _TopProvider()
    shape = row.architecture or _Architecture()
    outbound = frozenset(shape.output_modalities or ["text"])
    length = _positive_int(row.context_length) or _positive_int(top.context_length)
    parameters = () if row.id in partial else row.supported_parameters or ()
    return Model(
        id=row.id,
        name=row.name or row.id,
        context_length=length or UNBOUNDED,
        max_output_tokens=_positive_int(top.max_completion_tokens),
        prices=parse_pricing(row.pricing or ListedPricing()),
        input_modalities=frozenset(shape.input_modalities or ["text"]),
        output_modalities=outbound,
        supported_parameters=frozenset(parameters),
        kind=_model_kind(outbound),
        expires_on=_parse_date(row.expiration_date),
        alias_of=row.alias_target.slug if row.alias_target else None,
        listing_json=bytes(raw),
        canonical_slug=row.canonical_slug,
    )


def _model_kind(outbound: frozenset[str]) -> str:
    """Return `chat` for a model that writes text, `embedding`, or its only kind of output."""
    if "text" in outbound:
        return "chat"
    return "embedding" if "embeddings" in outbound else min(outbound)


def _positive_int(number: float | None) -> int | None:
    """Return a positive whole number; None where the listing has none."""
    return int(number) if number is not None and 1 <= number < UNBOUNDED else None


def _parse_date(text: str | None) -> str | None:
    """Return YYYY-MM-DD of a date or timestamp, None for anything else."""
    try:
        return datetime.date.fromisoformat((text or "")[:10]).isoformat()
    except ValueError:
        return None
