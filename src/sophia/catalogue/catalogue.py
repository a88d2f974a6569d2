"""The catalogue: every model that can be requested, by every name it is known under."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sophia.catalogue.model import UNBOUNDED, Model
from sophia.catalogue.prices import Prices
from sophia.catalogue.profiles import ModelProfiles

# Suffixes that any model takes; `:free` and `:batch` exist only where they are listed.
_VARIANT_SUFFIXES = frozenset({"nitro", "floor", "exacto", "extended", "thinking", "online"})
_MAX_SUCCESSOR_HOPS = 8
_MAX_NAME_CHARS = 200
_MAX_SUGGESTIONS = 3


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """The model behind a name, and the id that is sent upstream for it."""

    model: Model
    upstream_id: str
    warning: str | None = None


class Catalogue:
    """The models of one listing. Immutable: a refresh makes a new catalogue.

    `date` is the day of the listing (YYYY-MM-DD), `source` its origin. `profiled_models` are in
    the order of the profiles; `warnings` name the profiles that went to a successor or were
    dropped; `doubtful_prices` the models whose prices look wrong.
    """

    def __init__(
        self, models: Iterable[Model], profiles: ModelProfiles, date: str, source: str
    ) -> None:
        self.date = date
        self.source = source
        self._profiles = profiles
        by_id = {model.id: replace(model, profile=None) for model in models}
        self.profiled_models, self.warnings = _assign_profiles(by_id, profiles)
        by_id |= {model.id: model for model in self.profiled_models}
        self.doubtful_prices = tuple(
            model.id for model in by_id.values() if not model.prices.plausible
        )
        self.models: tuple[Model, ...] = tuple(by_id.values())
        self._by_name = _index_names(self.models)

    def get(self, id: str) -> Model | None:
        """Return the model with exactly this id."""
        model = self._by_name.get(id)
        return model if model is not None and model.id == id else None

    def resolve(self, name: str) -> ResolvedModel | None:
        """Return the model behind `name`, or None.

        A name is an id, an alias (`~author/family-latest`), a canonical slug, a retired id, an id
        with a variant (`:nitro`) or preset (`@preset/x`), or an id without its author if only one
        model has it. Case does not matter.
        """
        if not name or len(name) > _MAX_NAME_CHARS:
            return None
        return (
            self._resolve_listed(name)
            or self._resolve_preset(name)
            or self._resolve_successor(name)
            or self._resolve_variant(name)
        )

    def similar_ids(self, name: str) -> list[str]:
        """Return a few ids that look like `name`, the most similar first, for error messages."""
        lowered = name[:_MAX_NAME_CHARS].lower()
        near = difflib.get_close_matches(lowered, self._by_name, n=3 * _MAX_SUGGESTIONS, cutoff=0.5)
        return list(dict.fromkeys(self._by_name[key].id for key in near))[:_MAX_SUGGESTIONS]

    def with_models(self, models: Iterable[Model], date: str, source: str) -> "Catalogue":
        """Return a catalogue of other models with the same profiles."""
        return Catalogue(models, self._profiles, date, source)

    def with_profiles(self, profiles: ModelProfiles) -> "Catalogue":
        """Return a catalogue of the same models with other profiles."""
        return Catalogue(self.models, profiles, self.date, self.source)

    def _resolve_listed(self, name: str) -> ResolvedModel | None:
        model = self._by_name.get(name) or self._by_name.get(name.lower())
        if model is None:
            return None
        if model.alias_of is not None:
            model = self.get(model.alias_of) or model
        return ResolvedModel(model, model.id)

    def _resolve_preset(self, name: str) -> ResolvedModel | None:
        """Resolve a preset, which may change anything at OpenRouter: its price is unknown."""
        base, at, slug = name.partition("@preset/")
        if not at or not slug:
            return None
        if not base:
            unpriced = Prices.unknown()
            model = Model(id=name, name=name, context_length=UNBOUNDED, prices=unpriced)
            return ResolvedModel(model, name)
        resolved = self.resolve(base)
        if resolved is None:
            return None
        model = replace(resolved.model, prices=Prices.unknown())
        return replace(resolved, model=model, upstream_id=f"{resolved.upstream_id}@preset/{slug}")

    def _resolve_successor(self, name: str) -> ResolvedModel | None:
        """Follow the successors of a retired name until one is listed."""
        current = name.lower()
        for _ in range(_MAX_SUCCESSOR_HOPS):
            replacements = list(self._profiles.replacements(current))
            for replacement in replacements:
                resolved = self._resolve_listed(replacement.successor)
                if resolved is not None:
                    warning = f"{name} is served by {resolved.upstream_id}: {replacement.reason}"
                    return replace(resolved, warning=warning)
            if not replacements:
                break
            current = replacements[0].successor
        return None

    def _resolve_variant(self, name: str) -> ResolvedModel | None:
        base, _, suffix = name.rpartition(":")
        variant = suffix.lower()
        if not base or variant not in _VARIANT_SUFFIXES:
            return None
        resolved = self._resolve_listed(base) or self._resolve_successor(base)
        if resolved is None:
            return None
        model = resolved.model
        if variant == "online":
            # A web search is billed on top of the tokens: their prices are no upper bound.
            model = replace(model, prices=Prices.unknown())
        return ResolvedModel(model, f"{resolved.upstream_id}:{variant}", resolved.warning)


def _assign_profiles(
    by_id: dict[str, Model], profiles: ModelProfiles
) -> tuple[tuple[Model, ...], tuple[str, ...]]:
    """Give each profile to its model, or to the first listed successor without one.

    Returns the models with their profiles, and the warnings.
    """
    assigned: dict[str, Model] = {}
    warnings = []
    for profile in profiles.profiles:
        ids = [profile.id, *(entry.successor for entry in profiles.replacements(profile.id))]
        id = next((id for id in ids if id in by_id and id not in assigned), None)
        if id is None:
            warnings.append(f"{profile.id} ({profile.role}) is not listed and has no successor")
            continue
        if id != profile.id:
            warnings.append(f"{profile.id} ({profile.role}) is not listed: {id} replaces it")
        assigned[id] = replace(by_id[id], profile=profile)
    return tuple(assigned.values()), tuple(warnings)


def _index_names(models: tuple[Model, ...]) -> dict[str, Model]:
    """Return every name of every model; an id wins over a slug, a slug over an authorless name."""
    names = {model.id: model for model in models}
    for model in models:
        names.setdefault(model.id.lower(), model)
    plain = [model for model in models if ":" not in model.id and not model.id.startswith("~")]
    for model in plain:
        if model.canonical_slug:
            names.setdefault(model.canonical_slug.lower(), model)
    authorless: dict[str, list[Model]] = {}
    for model in plain:
        authorless.setdefault(model.id.lower().partition("/")[2], []).append(model)
    for name, owners in authorless.items():
        if name and len(owners) == 1:
            names.setdefault(name, owners[0])
    return names
