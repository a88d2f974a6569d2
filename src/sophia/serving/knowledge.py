"""Knowledge of a decision: replaced whole when something is refreshed, never edited."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path

from sophia.catalogue.catalogue import Catalogue, ResolvedModel
from sophia.catalogue.model import Model
from sophia.config import PoolSettings, RoutingSettings
from sophia.core.calls import PriceCeiling
from sophia.core.errors import ConfigError, UnknownModel
from sophia.learning.online.packaged import load_classifier
from sophia.routing.features.classify import TaskClassifier
from sophia.routing.model_name import apply_model_name, is_route_name
from sophia.routing.pool import ModelPool, PoolModel, QualityPrior, build_pool, is_pattern
from sophia.routing.rules.model import RuleBook, find_rule
from sophia.routing.rules.parse import RuleBookError, read_rules
from sophia.routing.types import Features, Hints


def _keep_roles(catalogue: Catalogue) -> Catalogue:
    return catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """Catalogue, pool of models, rules and classifier.

    `follow_roles` returns a catalogue with each role at its present model; `aliases` are the names
    and patterns that callers may use for another name; `chains` are the models to try after another
    one or a role.
    """

    catalogue: Catalogue
    pool: ModelPool
    rulebook: RuleBook
    classifier: TaskClassifier
    quality_prior: QualityPrior
    fallbacks: tuple[str, ...] = ()
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pool_settings: PoolSettings = field(default_factory=PoolSettings)
    follow_roles: Callable[[Catalogue], Catalogue] = _keep_roles
    aliases: Mapping[str, str] = field(default_factory=dict)
    cache_size: int = 1000
    resolved: dict[str, ResolvedModel | None] = field(default_factory=dict)
    pool_models: dict[str, PoolModel] = field(default_factory=dict)

    def resolve(self, name: str) -> ResolvedModel | None:
        """Return the model that a caller's name stands for; recent names are remembered."""
        try:
            return self.resolved[name]
        except KeyError:
            resolved = self.catalogue.resolve(name)
        if self.cache_size:
            if len(self.resolved) >= self.cache_size:
                self.resolved.clear()
            self.resolved[name] = resolved
        return resolved

    def resolve_alias(self, name: str) -> str:
        """Return the name that an alias stands for; any other name stands for itself."""
        if not self.aliases:
            return name
        exact = self.aliases.get(name)
        if exact is not None:
            return exact
        return next(
            (target for alias, target in self.aliases.items() if fnmatchcase(name, alias)), name
        )

    def with_catalogue(self, catalogue: Catalogue) -> "Knowledge":
        """Return the same knowledge with another listing of models."""
        catalogue = self.follow_roles(catalogue)
        pool = build_pool(catalogue, self.pool_settings, self.quality_prior)
        return replace(self, catalogue=catalogue, pool=pool, resolved={}, pool_models={})

    def find(self, name: str) -> Model | None:
        """Return the model of that name."""
        resolved = self.resolve(name)
        return resolved.model if resolved is not None else None

    def find_pool_model(self, name: str) -> PoolModel | None:
        """Return the pool entry of the model of that name, whether it is in the pool or not."""
        model = self.find(name)
        return None if model is None else self.pool_model(model)

    def pool_model(self, model: Model) -> PoolModel:
        """Return the pool entry of a model, remembered for listed models."""
        entry = self.pool_models.get(model.id)
        if entry is None or entry.model is not model:
            entry = PoolModel.from_model(model, self.quality_prior(model.id))
            if len(self.pool_models) < len(self.catalogue.models):
                self.pool_models[model.id] = entry
        return entry

    def price_ceiling(self, model: Model, prompt_tokens: int, margin: int) -> PriceCeiling | None:
        """Return the highest price that a provider may charge, so that reservations are bounds."""
        if not model.prices.known:
            return None
        entry = self.pool_model(model)
        tier = entry.max_prices
        if prompt_tokens >= entry.next_tier_tokens:
            tier = model.prices.ceiling(prompt_tokens)
        scale = 100 + margin
        return PriceCeiling(tier.prompt * scale // 100, tier.completion * scale // 100)


def build_knowledge(
    catalogue: Catalogue,
    settings: RoutingSettings,
    quality_prior: QualityPrior,
    follow_roles: Callable[[Catalogue], Catalogue] = _keep_roles,
) -> Knowledge:
    """Return the knowledge at start.

    Raises:
        ConfigError: rules are unusable, a model is unknown, or the pool is empty.
    """
    catalogue = follow_roles(catalogue)
    path = settings.rules
    try:
        bundled = files("sophia.routing").joinpath("data/routing-rules.yaml")
        rulebook = RuleBook()
        # The bundled rules name models of the bundled list.
        if path or catalogue.profiled_models:
            rulebook = read_rules((Path(path) if path else bundled).read_text(), catalogue)
            rulebook = replace(rulebook, bundled=not path)
    except (RuleBookError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path or 'the bundled rules'}: {error}") from None
    fallbacks = _resolve_ids(catalogue, "FALLBACK_MODELS", settings.fallback_models)
    named = tuple(name for name in settings.pool.models if not is_pattern(name))
    _resolve_ids(catalogue, "routing.pool.models", named)
    for alias, target in settings.aliases.items():
        _check_alias(alias, target, catalogue, rulebook)
    pool = build_pool(catalogue, settings.pool, quality_prior)
    if not pool.models:
        raise ConfigError("`routing.pool` leaves no model to choose from; allow more")
    return Knowledge(
        catalogue=catalogue,
        pool=pool,
        quality_prior=quality_prior,
        rulebook=rulebook,
        classifier=load_classifier(),
        fallbacks=fallbacks,
        chains=_resolve_chains(catalogue, settings.chains),
        pool_settings=settings.pool,
        follow_roles=follow_roles,
        aliases=settings.aliases,
        cache_size=settings.model_cache_size,
    )


def _resolve_chains(
    catalogue: Catalogue, chains: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Return the chains by id or role, of ids. Raises ConfigError for unknown names."""
    roles = {model.profile.role for model in catalogue.profiled_models if model.profile}
    found = {}
    for name, models in chains.items():
        key = name if name in roles else _resolve_ids(catalogue, "routing.chains", (name,))[0]
        found[key] = _resolve_ids(catalogue, f"routing.chains: {name}", models)
    return found


def _check_alias(alias: str, target: str, catalogue: Catalogue, rulebook: RuleBook) -> None:
    """Raise ConfigError when an alias stands for a name that means nothing."""
    setting = f"routing.aliases: {alias}"
    if not is_route_name(target):
        _resolve_ids(catalogue, setting, (target,))
        return
    try:
        find_rule(rulebook, apply_model_name(target, Hints()), Features())
    except UnknownModel as error:
        raise ConfigError(f"{setting}: {error.message}") from None


def _resolve_ids(catalogue: Catalogue, setting: str, names: tuple[str, ...]) -> tuple[str, ...]:
    ids = []
    for name in names:
        found = catalogue.resolve(name)
        if found is None:
            near = ", ".join(catalogue.similar_ids(name)) or "`sophia models list` shows them"
            raise ConfigError(f"{setting}: there is no model {name!r}; similar: {near}")
        ids.append(found.model.id)
    return tuple(ids)
