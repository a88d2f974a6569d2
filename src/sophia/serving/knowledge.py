"""What deciding knows at this moment: replaced whole when something is refreshed, never edited."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sophia.catalogue.catalogue import Catalogue, Resolved
from sophia.catalogue.model import Model
from sophia.core.calls import Deadlines, PriceCeiling
from sophia.core.ports import Upstream
from sophia.routing.pool import Pool, Seat
from sophia.routing.rules import RuleBook


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The catalogue of today, the models Sophia chooses from, and the rules in force.

    The pool holds the models with a profile, and those that are chosen from `also`.
    """

    catalogue: Catalogue
    pool: Pool
    rulebook: RuleBook
    fallbacks: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    cache_size: int = 1000
    resolved: dict[str, Resolved | None] = field(default_factory=dict)
    seats: dict[str, Seat] = field(default_factory=dict)

    def resolve(self, name: str) -> Resolved | None:
        """Return what `name` stands for; names that were asked for lately are remembered."""
        try:
            return self.resolved[name]
        except KeyError:
            found = self.catalogue.resolve(name)
        if self.cache_size:
            if len(self.resolved) >= self.cache_size:
                self.resolved.clear()
            self.resolved[name] = found
        return found

    def seat(self, model: Model) -> Seat:
        """Return the seat of a model, remembered for listed models."""
        seat = self.seats.get(model.id)
        if seat is None or seat.model is not model:
            seat = Seat.of(model)
            if len(self.seats) < len(self.catalogue.models):
                self.seats[model.id] = seat
        return seat

    def price_ceiling(self, model: Model, prompt_tokens: int, headroom: int) -> PriceCeiling | None:
        """Return what a provider may charge at the most, so that the hold is a true bound."""
        if not model.prices.known:
            return None
        seat = self.seat(model)
        tier = seat.ceiling
        if prompt_tokens >= seat.dearer_from:
            tier = model.prices.ceiling(prompt_tokens)
        scale = 100 + headroom
        return PriceCeiling(tier.prompt * scale // 100, tier.completion * scale // 100)

    def find(self, name: str) -> Model | None:
        """Return the model that `name` stands for."""
        found = self.resolve(name)
        return found.model if found is not None else None


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for every key that says nothing else. Money in nano-dollars, times in seconds."""

    daily_budget_nano: int | None = 100_000_000_000
    per_request_nano: int | None = 100_000_000
    max_attempts: int = 3
    price_headroom: int = 25
    deadlines: Deadlines = field(default_factory=Deadlines)
    whole_deadlines: Deadlines = field(default_factory=lambda: Deadlines(content=300.0))
    request_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Where each model is served: `default`, unless `by_model` names another place."""

    default: Upstream
    by_model: Mapping[str, tuple[Upstream, str]] = field(default_factory=dict)

    def serving(self, model: str) -> tuple[Upstream, str]:
        """Return the upstream of a model and the id it has there."""
        return self.by_model.get(model) or (self.default, model)
