"""The catalogue: every model that can be asked for, by every name it may be asked by."""

import datetime
import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sophia.catalogue.model import UNBOUNDED, Model
from sophia.catalogue.prices import Prices
from sophia.catalogue.profiles import Profiles

# Suffixes that any model takes; `:free` and `:batch` exist only where they are listed.
_INHERITED = frozenset({"nitro", "floor", "exacto", "extended", "thinking", "online"})
# A web search is paid on top of the tokens, so that their prices are no ceiling.
_UNPRICED = frozenset({"online"})
_MOST_HEIRS = 8
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name stands for: the model's facts, and the id that goes upstream."""

    model: Model
    served_id: str
    variant: str | None = None
    warning: str | None = None


class Catalogue:
    """The models of one day; nothing in it changes, a refresh makes another one.

    `date` is the day of the listing (YYYY-MM-DD), `source` says where it came from. `warnings`
    tells which profiles had to be given to a successor, or dropped.
    """

    __slots__ = ("_names", "_roster", "date", "models", "profiles", "source", "warnings")

    def __init__(
        self, models: Iterable[Model], profiles: Profiles, date: str, source: str = "bundled"
    ) -> None:
        self.date = date
        self.source = source
        self._roster = profiles
        by_id = {model.id: replace(model, profile=None) for model in models}
        played, self.warnings = _cast(by_id, profiles)
        by_id |= {model.id: model for model in played}
        self.profiles: tuple[Model, ...] = played
        self.models: tuple[Model, ...] = tuple(by_id.values())
        self._names = _names(self.models)

    def get(self, id: str) -> Model | None:
        """Return the model with exactly this id."""
        found = self._names.get(id)
        return found if found is not None and found.id == id else None

    def by_role(self, role: str) -> Model | None:
        """Return the model that plays `role`."""
        for model in self.profiles:
            if model.profile is not None and model.profile.role == role:
                return model
        return None

    def routable(self) -> tuple[Model, ...]:
        """Return the models that Sophia may choose by itself: priced, and writing text only.

        Left out are aliases, routers and batch ids. Expiry is the caller's to check: `expired`.
        """
        return tuple(model for model in self.models if _is_routable(model))

    def resolve(self, name: str) -> Resolved | None:
        """Return what `name` stands for, or None.

        A name is an id, an alias (`~author/family-latest`), a canonical slug, a retired id, an id
        with a variant (`:nitro`) or preset (`@preset/x`), or an id without its author if only one
        model has it. Capitals do not matter.
        """
        if not name or len(name) > _LONGEST_NAME:
            return None
        return self._listed(name) or self._preset(name) or self._heir(name) or self._variant(name)

    def nearest(self, name: str, n: int = 3) -> list[str]:
        """Return up to `n` ids that look like `name`, the most alike first. For error messages."""
        wanted = name[:_LONGEST_NAME].lower()
        near = difflib.get_close_matches(wanted, self._names, n=3 * n, cutoff=0.5)
        return list(dict.fromkeys(self._names[key].id for key in near))[:n]

    def with_models(self, models: Iterable[Model], date: str, source: str) -> "Catalogue":
        """Return a catalogue of other models with the same profiles."""
        return Catalogue(models, self._roster, date, source)

    def _listed(self, name: str) -> Resolved | None:
        model = self._names.get(name) or self._names.get(name.lower())
        if model is None:
            return None
        if model.alias_of is not None:
            model = self.get(model.alias_of) or model
        return Resolved(model, model.id, model.id.partition(":")[2] or None)

    def _preset(self, name: str) -> Resolved | None:
        """A preset may change anything at OpenRouter: it passes, and its price is unknown."""
        base, at, slug = name.partition("@preset/")
        if not at or not slug:
            return None
        if not base:
            return Resolved(_unpriced(name), name)
        found = self.resolve(base)
        if found is None:
            return None
        model = replace(found.model, prices=Prices.unknown())
        return replace(found, model=model, served_id=f"{found.served_id}@preset/{slug}")

    def _heir(self, name: str) -> Resolved | None:
        """Follow the successors of a name that is gone until one is listed."""
        wanted = name.lower()
        for _ in range(_MOST_HEIRS):
            heirs = list(self._roster.heirs(wanted))
            for heir in heirs:
                found = self._listed(heir.successor)
                if found is not None:
                    told = f"{name} is served by {found.served_id}: {heir.reason}"
                    return replace(found, warning=told)
            if not heirs:
                break
            wanted = heirs[0].successor
        return None

    def _variant(self, name: str) -> Resolved | None:
        base, _, suffix = name.rpartition(":")
        variant = suffix.lower()
        if not base or variant not in _INHERITED:
            return None
        found = self._listed(base) or self._heir(base)
        if found is None:
            return None
        model = found.model
        if variant in _UNPRICED:
            model = replace(model, prices=Prices.unknown())
        served = f"{found.served_id}:{variant}"
        return Resolved(model, served, variant, found.warning)


def expired(model: Model, today: datetime.date) -> bool:
    """Say whether the day is past on which `model` was to be withdrawn."""
    return model.expires is not None and model.expires < today.isoformat()


def _is_routable(model: Model) -> bool:
    return (
        model.output_modalities == {"text"}
        and model.prices.known
        and not model.id.startswith(("~", "openrouter/"))
        and not model.id.endswith(":batch")
        and model.alias_of is None
    )


def _unpriced(id: str) -> Model:
    text = frozenset({"text"})
    return Model(id, id, UNBOUNDED, None, Prices.unknown(), text, text, frozenset())


def _cast(by_id: dict[str, Model], profiles: Profiles) -> tuple[tuple[Model, ...], tuple[str, ...]]:
    """Give each profile to its model, or to the first successor that is listed and still free."""
    played: dict[str, Model] = {}
    warnings = []
    for entry in profiles.entries:
        offered = [entry.id, *(heir.successor for heir in profiles.heirs(entry.id))]
        taken = next((id for id in offered if id in by_id and id not in played), None)
        if taken is None:
            warnings.append(f"{entry.id} ({entry.profile.role}) is not listed and has no successor")
            continue
        if taken != entry.id:
            warnings.append(f"{entry.id} ({entry.profile.role}) is not listed: {taken} replaces it")
        played[taken] = replace(by_id[taken], profile=entry.profile)
    return tuple(played.values()), tuple(warnings)


def _names(models: tuple[Model, ...]) -> dict[str, Model]:
    """Return every name of every model; an id wins over a slug, a slug over an authorless name."""
    names = {model.id: model for model in models}
    for model in models:
        names.setdefault(model.id.lower(), model)
    plain = [model for model in models if ":" not in model.id and not model.id.startswith("~")]
    for model in plain:
        if model.canonical_slug:
            names.setdefault(model.canonical_slug.lower(), model)
    bare: dict[str, list[Model]] = {}
    for model in plain:
        bare.setdefault(model.id.lower().partition("/")[2], []).append(model)
    for name, owners in bare.items():
        if name and len(owners) == 1:
            names.setdefault(name, owners[0])
    return names
