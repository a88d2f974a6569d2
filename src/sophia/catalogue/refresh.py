"""Take over a newer listing, or refuse it: the caller keeps the last good catalogue."""

from collections.abc import Sequence
from dataclasses import dataclass

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import Model
from sophia.catalogue.profiles import CatalogueError
from sophia.catalogue.snapshot import parse_models

_SMALLEST_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Changes:
    """Ids by what happened to them between two catalogues, each in the order of its listing."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    repriced: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.repriced)


def refreshed(
    current: Catalogue, body: bytes, date: str, own: Sequence[Model] = ()
) -> Catalogue:
    """Return a catalogue of the models in `body`, listed on `date`, with the profiles of `current`.

    Kept beside them: `own` models, which other upstreams serve, and models of a kind that the new
    list does not speak of at all, since OpenRouter lists embeddings apart.

    Raises:
        CatalogueError: the body cannot be read, is far smaller than what it would replace, or
            lists none of the models that Sophia chooses among.
    """
    models = parse_models(body)
    if len(models) < _SMALLEST_SHARE * len(current.models):
        told = f"the new list holds {len(models)} models, the current one {len(current.models)}"
        raise CatalogueError(f"{told}: refused as incomplete")
    kinds = {model.kind for model in models}
    kept = [model for model in current.models if model.kind not in kinds]
    together = {model.id: model for model in (*models, *kept, *own)}
    after = current.with_models(together.values(), date, "refreshed")
    if current.profiles and not after.profiles:
        raise CatalogueError("the new list holds none of the models that Sophia chooses among")
    return after


def changes(before: Catalogue, after: Catalogue) -> Changes:
    """Return what differs between two catalogues."""
    old = {model.id: model.prices for model in before.models}
    new = {model.id: model.prices for model in after.models}
    return Changes(
        added=tuple(id for id in new if id not in old),
        removed=tuple(id for id in old if id not in new),
        repriced=tuple(id for id, prices in new.items() if id in old and old[id] != prices),
    )
