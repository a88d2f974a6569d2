"""Read a body of OpenRouter's `GET /models`, and the one that is bundled."""

import datetime
from functools import cache
from importlib import resources

import msgspec

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import UNBOUNDED, Model
from sophia.catalogue.pricing import Pricing, prices_of
from sophia.catalogue.profiles import CatalogueError, Profiles, parse_profiles

_TEXT = ["text"]


class _Architecture(msgspec.Struct):
    input_modalities: list[str] | None = None
    output_modalities: list[str] | None = None


class _TopProvider(msgspec.Struct):
    context_length: float | None = None
    max_completion_tokens: float | None = None


class _AliasTarget(msgspec.Struct):
    slug: str | None = None


class _Row(msgspec.Struct):
    """What Sophia reads of a model object; the rest stays in the listing as it came."""

    id: str
    name: str | None = None
    canonical_slug: str | None = None
    created: float | None = None
    context_length: float | None = None
    architecture: _Architecture | None = None
    pricing: Pricing | None = None
    top_provider: _TopProvider | None = None
    supported_parameters: list[str] | None = None
    expiration_date: str | None = None
    alias_target: _AliasTarget | None = None


class _About(msgspec.Struct):
    date: str = ""
    partial_parameters: frozenset[str] = frozenset()


class _Body(msgspec.Struct):
    data: list[msgspec.Raw]
    snapshot: _About | None = None


_BODY = msgspec.json.Decoder(_Body)
_ROW = msgspec.json.Decoder(_Row)


def parse_models(body: bytes) -> tuple[Model, ...]:
    """Return the models of a `GET /models` body in its order, the first of each id.

    A row that cannot be read is left out, so that one odd model does not cost the others.

    Raises:
        CatalogueError: the body is not such a list, or no row of it can be read.
    """
    return _models(_decode(body))


def bundled(profiles: Profiles | None = None) -> Catalogue:
    """Return the catalogue that is shipped with Sophia; `profiles` replace the shipped ones.

    Raises:
        CatalogueError: the installation is damaged.
    """
    return _bundled() if profiles is None else _with(profiles)


@cache
def _bundled() -> Catalogue:
    # Nothing in a catalogue changes, so one reading serves every Sophia of a process.
    return _with(bundled_profiles())


def _with(profiles: Profiles) -> Catalogue:
    content = _decode(_shipped("models.json"))
    date = content.snapshot.date if content.snapshot else ""
    return Catalogue(_models(content), profiles, date)


def bundled_profiles() -> Profiles:
    """Return the profiles that are shipped with Sophia."""
    return parse_profiles(_shipped("profiles.yaml"))


def _shipped(name: str) -> bytes:
    return (resources.files("sophia.catalogue") / "data" / name).read_bytes()


def _decode(body: bytes) -> _Body:
    try:
        return _BODY.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CatalogueError(f"not a list of models: {error}") from error


def _models(body: _Body) -> tuple[Model, ...]:
    partial = body.snapshot.partial_parameters if body.snapshot else frozenset()
    found: dict[str, Model] = {}
    for raw in body.data:
        model = _model(raw, partial)
        if model is not None:
            found.setdefault(model.id, model)
    if not found:
        raise CatalogueError("the list of models holds no model that can be read")
    return tuple(found.values())


def _model(raw: msgspec.Raw, partial: frozenset[str]) -> Model | None:
    try:
        row = _ROW.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if not row.id:
        return None
    top = row.top_provider or _TopProvider()
    shape = row.architecture or _Architecture()
    outbound = frozenset(shape.output_modalities or _TEXT)
    parameters = () if row.id in partial else row.supported_parameters or ()
    return Model(
        id=row.id,
        name=row.name or row.id,
        context_length=_count(row.context_length) or _count(top.context_length) or UNBOUNDED,
        max_output_tokens=_count(top.max_completion_tokens),
        prices=prices_of(row.pricing or Pricing()),
        input_modalities=frozenset(shape.input_modalities or _TEXT),
        output_modalities=outbound,
        parameters=frozenset(parameters),
        kind=_kind(outbound),
        created=_count(row.created) or 0,
        expires=_date(row.expiration_date),
        alias_of=row.alias_target.slug if row.alias_target else None,
        listing=bytes(raw),
        canonical_slug=row.canonical_slug,
    )


def _kind(outbound: frozenset[str]) -> str:
    """Return `chat` for what writes text, `embedding`, or the one thing that the model makes."""
    if "text" in outbound:
        return "chat"
    return "embedding" if "embeddings" in outbound else min(outbound)


def _count(number: float | None) -> int | None:
    """Return a positive whole number; None for a listing that does not say."""
    return int(number) if number is not None and 1 <= number < UNBOUNDED else None


def _date(text: str | None) -> str | None:
    """Return YYYY-MM-DD, also of a timestamp; None for what is no date."""
    try:
        return datetime.date.fromisoformat((text or "")[:10]).isoformat()
    except ValueError:
        return None
