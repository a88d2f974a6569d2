"""Pool: the models that a request may be routed to, with their precomputed facts."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from msgspec import Struct

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import Model
from sophia.catalogue.prices import PriceTier
from sophia.config import PoolSettings
from sophia.core.money import MAX_NANO, nano_from_usd
from sophia.routing.bandit.performance.latency import DEFAULT_SPEED, SpeedPrior
from sophia.routing.types import TASK_TYPES, TaskType

UNKNOWN_QUALITY = 0.5
UNKNOWN_LATENCY_MS = 2000

# This model bills a picture at up to 48,169 tokens, eight times the allowance that covers the rest.
_COSTLY_IMAGES_PREFIX, _EXTRA_IMAGE_TOKENS = "openai/gpt-4o-mini", 50_000

QualityByTask = Mapping[TaskType, float]
QualityPrior = Callable[[str], QualityByTask]
"""Returns the expected quality of a model, 0 to 1, by task type."""


class PoolModel(Struct, frozen=True, kw_only=True):
    """One model of a pool; the prices hold for prompts below `next_tier_tokens` tokens."""

    model: Model
    id: str
    role: str
    quality: QualityByTask
    latency_ms: int
    base_prices: PriceTier
    max_prices: PriceTier
    next_tier_tokens: int
    request_price: int
    max_output_tokens: int
    extra_image_tokens: int

    @classmethod
    def from_model(cls, model: Model, quality: QualityByTask) -> "PoolModel":
        """Return the pool entry of `model`; its latency is a guess without a profile."""
        profile, prices, base = model.profile, model.prices, model.prices.tiers[0]
        costly_images = model.id.startswith(_COSTLY_IMAGES_PREFIX)
        return cls(
            model=model,
            id=model.id,
            role=profile.role if profile else "",
            quality=quality,
            latency_ms=profile.latency_ms if profile else UNKNOWN_LATENCY_MS,
            base_prices=base,
            max_prices=prices.ceiling(base.min_prompt_tokens) if base.cache_write else base,
            next_tier_tokens=prices.tiers[1].min_prompt_tokens
            if len(prices.tiers) > 1
            else MAX_NANO,
            request_price=prices.per_request,
            max_output_tokens=model.max_output_tokens or model.context_length,
            extra_image_tokens=_EXTRA_IMAGE_TOKENS if costly_images else 0,
        )


@dataclass(frozen=True, slots=True)
class ModelPool:
    """Routable models, built once per catalogue.

    Attributes:
        by_role: the first model of each role.
        by_quality: models from the best expected quality down, cheaper first at a tie.
    """

    models: tuple[PoolModel, ...]
    by_id: Mapping[str, PoolModel]
    by_role: Mapping[str, PoolModel]
    by_quality: Mapping[TaskType, tuple[PoolModel, ...]]

    @classmethod
    def from_models(cls, models: Iterable[Model], quality_prior: QualityPrior) -> "ModelPool":
        """Return the pool of `models`, in their order; a repeated id counts once."""
        by_id: dict[str, PoolModel] = {}
        by_role: dict[str, PoolModel] = {}
        for model in models:
            if model.id not in by_id:
                entry = PoolModel.from_model(model, quality_prior(model.id))
                by_id[model.id] = entry
                by_role.setdefault(entry.role, entry)
        by_role.pop("", None)
        entries = tuple(by_id.values())
        by_quality = {
            task: tuple(sorted(entries, key=lambda entry: _quality_sort_key(entry, task)))
            for task in TASK_TYPES
        }
        return cls(entries, by_id, by_role, by_quality)

    def speed_prior(self, id: str) -> SpeedPrior:
        """Return a model's expected speed by its profile; the default without one."""
        entry = self.by_id.get(id)
        profile = None if entry is None else entry.model.profile
        if profile is None:
            return DEFAULT_SPEED
        return SpeedPrior(float(profile.latency_ms), 1000.0 / profile.tokens_per_second)


NO_MODELS = ModelPool((), {}, {}, dict.fromkeys(TASK_TYPES, ()))


def build_pool(
    catalogue: Catalogue, settings: PoolSettings, quality_prior: QualityPrior
) -> ModelPool:
    """Return the models to choose from, as the settings describe them.

    Variants with limits of their own, such as `:free`, are in it only where they are named, and
    models without a plausible price never by a pattern.
    """
    roles = [
        model
        for model in catalogue.profiled_models
        if model.profile is not None
        and _matches(model.profile.role, settings.roles)
        and not is_limited_variant(model.id)
    ]
    kept = [
        model
        for model in (*roles, *_list_extra_models(catalogue, settings.models))
        if not _matches(model.id, settings.deny) and _is_affordable(model, settings)
    ]
    return ModelPool.from_models(kept, quality_prior)


def is_pattern(name: str) -> bool:
    """Return whether a name in the settings stands for all ids that match it."""
    return "*" in name or "?" in name


def is_limited_variant(id: str) -> bool:
    """Return whether an id is of a variant with limits of its own: free, or in batches."""
    return id.endswith(":free") or is_batch_variant(id)


def is_batch_variant(id: str) -> bool:
    """Return whether an id is of a model that answers within a day."""
    return id.endswith(":batch")


def _list_extra_models(catalogue: Catalogue, names: Iterable[str]) -> Iterator[Model]:
    for name in names:
        if is_pattern(name):
            for model in catalogue.models:
                priced = model.prices.known and model.prices.plausible
                plain = model.kind == "chat" and priced and model.alias_of is None
                if plain and fnmatchcase(model.id, name) and not is_limited_variant(model.id):
                    yield model
        elif (found := catalogue.resolve(name)) is not None:
            yield found.model


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_affordable(model: Model, settings: PoolSettings) -> bool:
    prices = model.prices.tiers[0]
    pairs = (
        (settings.max_prompt_usd_per_mtok, prices.prompt),
        (settings.max_completion_usd_per_mtok, prices.completion),
    )
    return all(most is None or price <= nano_from_usd(most) for most, price in pairs)


def _quality_sort_key(entry: PoolModel, task: TaskType) -> tuple[float, int, str]:
    quality = entry.quality.get(task, UNKNOWN_QUALITY)
    return -quality, entry.base_prices.prompt + entry.base_prices.completion, entry.id
