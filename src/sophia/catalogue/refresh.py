"""The listing kept in the data folder, and its replacement by a newer one."""

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import Model
from sophia.catalogue.profiles import CatalogueError
from sophia.catalogue.snapshot import load_bundled_catalogue, parse_models

log = logging.getLogger("sophia")

LISTING_FILE = "models.json"


class CatalogueChanges(NamedTuple):
    """Ids of the models that differ between two catalogues, in the order of their listings."""

    added: Sequence[str]
    removed: Sequence[str]
    repriced: Sequence[str]


def load_catalogue(data: Path, local_models: Sequence[Model] = ()) -> Catalogue:
    """Return the models of the listing kept in `data`, else of the bundled one, and local ones."""
    catalogue = load_bundled_catalogue()
    path = data / LISTING_FILE
    if path.exists():
        try:
            day = time.strftime("%Y-%m-%d", time.gmtime(path.stat().st_mtime))
            catalogue = refresh_catalogue(catalogue, path.read_bytes(), day)
        except (CatalogueError, OSError) as error:
            log.warning("%s is not used: %s", path, error)
    if not local_models:
        return catalogue
    models = {model.id: model for model in (*catalogue.models, *local_models)}
    return catalogue.with_models(models.values(), catalogue.date, catalogue.source)


def listing_age(data: Path, now: float) -> float:
    """Return the age of the kept listing in seconds; infinite without one."""
    try:
        return now - (data / LISTING_FILE).stat().st_mtime
    except OSError:
        return float("inf")


def save_listing(data: Path, body: bytes) -> None:
    """Write the body of a `GET /models` into `data`, atomically."""
    fresh = data / f"{LISTING_FILE}.new"
    fresh.write_bytes(body)
    fresh.replace(data / LISTING_FILE)


def refresh_catalogue(
    current: Catalogue, body: bytes, date: str, upstream_models: Iterable[Model] = ()
) -> Catalogue:
    """Return a catalogue of the models in `body`, listed on `date`, with the profiles of `current`.

    `upstream_models`, served by other upstreams, are added. Models of a kind that is missing from
    the new list are kept, since OpenRouter lists embedding models apart.

    Raises CatalogueError when the body cannot be read, is far smaller than the list that it would
    replace, or lists none of the models that Sophia chooses among.
    """
    models = parse_models(body)
    if 2 * len(models) < len(current.models):
        raise CatalogueError(
            f"the new list has {len(models)} models, the current one {len(current.models)}: "
            "refused as incomplete"
        )
    kinds = {model.kind for model in models}
    kept = [model for model in current.models if model.kind not in kinds]
    by_id = {model.id: model for model in (*models, *kept, *upstream_models)}
    after = current.with_models(by_id.values(), date, "refreshed")
    if current.profiled_models and not after.profiled_models:
        raise CatalogueError("the new list has none of the models that Sophia chooses among")
    return after


def diff_catalogues(before: Catalogue, after: Catalogue) -> CatalogueChanges:
    """Return the differences between two catalogues."""
    old = {model.id: model.prices for model in before.models}
    new = {model.id: model.prices for model in after.models}
    return CatalogueChanges(
        added=[id for id in new if id not in old],
        removed=[id for id in old if id not in new],
        repriced=[id for id in new if id in old and old[id] != new[id]],
    )
