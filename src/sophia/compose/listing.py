"""What is known at start: the catalogue, kept or bundled, and the rules in force."""

import logging
import time
from importlib.resources import files
from pathlib import Path

import msgspec

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import Model
from sophia.catalogue.prices import Prices, Tier
from sophia.catalogue.profiles import CatalogueError
from sophia.catalogue.refresh import refreshed
from sophia.catalogue.snapshot import bundled
from sophia.config import ConfigError, LocalModel, Settings
from sophia.core.money import nano_from_usd
from sophia.jobs.reload import pool_of, read_rules
from sophia.routing.rulebook import RuleBookError
from sophia.serving.knowledge import Knowledge

log = logging.getLogger("sophia")

LISTING = "models.json"


def catalogue_of(settings: Settings) -> Catalogue:
    """Return every model that can be asked for: those of the listing, and one's own."""
    catalogue = listed(Path(settings.data_dir))
    own = [_local(model) for place in settings.upstreams for model in place.models]
    if own:
        models = {model.id: model for model in (*catalogue.models, *own)}
        catalogue = catalogue.with_models(models.values(), catalogue.date, catalogue.source)
    for warning in catalogue.warnings:
        log.warning("catalogue: %s", warning)
    return catalogue


def listed(data: Path) -> Catalogue:
    """Return the models of the listing that is kept in `data`, else of the bundled one."""
    catalogue = bundled()
    kept = data / LISTING
    if kept.exists():
        try:
            day = time.strftime("%Y-%m-%d", time.gmtime(kept.stat().st_mtime))
            catalogue = refreshed(catalogue, kept.read_bytes(), day)
        except (CatalogueError, OSError) as error:
            log.warning("the kept catalogue is not used: %s", error)
    return catalogue


def listing_age(data: Path, now: float) -> float:
    """Return how many seconds old the kept listing is; there may be none, which is very old."""
    try:
        return now - (data / LISTING).stat().st_mtime
    except OSError:
        return float("inf")


def keep_listing(data: Path, body: bytes) -> None:
    """Keep the body of a `GET /models` in `data`, all of it or nothing."""
    fresh = data / f"{LISTING}.new"
    fresh.write_bytes(body)
    fresh.replace(data / LISTING)


def _local(model: LocalModel) -> Model:
    per_token = [model.prompt_usd_per_mtok / 1e6, model.completion_usd_per_mtok / 1e6]
    outbound = "text" if model.kind == "chat" else "embeddings"
    listing = {
        "id": model.id,
        "canonical_slug": model.id,
        "name": model.id,
        "created": 0,
        "pricing": {"prompt": f"{per_token[0]:.12f}", "completion": f"{per_token[1]:.12f}"},
        "context_length": model.context_length,
        "architecture": {
            "modality": f"text->{outbound}",
            "input_modalities": ["text"],
            "output_modalities": [outbound],
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "top_provider": {
            "is_moderated": False,
            "context_length": model.context_length,
            "max_completion_tokens": model.max_output_tokens,
        },
        "per_request_limits": None,
        "supported_parameters": [],
        "default_parameters": None,
        "supported_voices": None,
        "links": {"details": f"/v1/models/{model.id}"},
    }
    tier = Tier(
        0, nano_from_usd(model.prompt_usd_per_mtok), nano_from_usd(model.completion_usd_per_mtok)
    )
    return Model(
        model.id,
        model.id,
        model.context_length,
        model.max_output_tokens,
        Prices((tier,)),
        frozenset({"text"}),
        frozenset({outbound}),
        frozenset(),
        model.kind,
        listing=msgspec.json.encode(listing),
    )


def knowledge_from(settings: Settings, catalogue: Catalogue) -> Knowledge:
    """Return what deciding knows when it begins. Raises ConfigError."""
    path = settings.routing.rules
    try:
        text = Path(path).read_text() if path else default_rules()
        rulebook = read_rules(text, catalogue)
    except (RuleBookError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path or 'the bundled rules'}: {error}") from None
    fallbacks = _ids(catalogue, "FALLBACK_MODELS", settings.routing.fallback_models)
    also = _ids(catalogue, "routing.models", settings.routing.models)
    return Knowledge(
        catalogue,
        pool_of(catalogue, also),
        rulebook,
        fallbacks,
        also,
        settings.routing.model_cache_size,
    )


def _ids(catalogue: Catalogue, setting: str, names: tuple[str, ...]) -> tuple[str, ...]:
    ids = []
    for name in names:
        found = catalogue.resolve(name)
        if found is None:
            near = ", ".join(catalogue.nearest(name)) or "`sophia models` lists them"
            raise ConfigError(f"{setting}: there is no model {name!r}; near it: {near}")
        ids.append(found.model.id)
    return tuple(ids)


def default_rules() -> str:
    """Return the text of the rules that ship with Sophia."""
    return files("sophia.routing").joinpath("data/routing-rules.yaml").read_text()
