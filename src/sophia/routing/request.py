"""Input of a decision: features and hints, models, and the key's limits."""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from sophia.routing.pool import NO_MODELS, ModelPool, PoolModel
from sophia.routing.rank import LearnedPolicy, RoutingContext
from sophia.routing.rules.model import Rule
from sophia.routing.types import Features, Hints, Prompt


class KeyLimits(Struct, frozen=True, kw_only=True):
    """Limits of the key behind a request.

    Attributes:
        per_request_nano: nano-dollars for one request; None for no limit.
        budget_left_nano: nano-dollars left in the budget; None for no limit.
        price_margin: percentage added to list prices for reservations.
    """

    per_request_nano: int | None = None
    budget_left_nano: int | None = None
    max_attempts: int = 3
    price_margin: int = 0


class RouteRequest(Struct, frozen=True, kw_only=True):
    """Everything that a decision depends on.

    Attributes:
        find_model: resolves a model outside the pool, named by a rule, a hint or a fallback.
        named: the models that the caller named, to be tried in that order.
        model_kind: "chat" or "embedding".
        rule: the operator's rule that decides.
        today: ISO date.
        learned_policy: the learned policy, when it may decide.
        context: the request as the learned policy sees it.
        unhealthy: models that are ejected for now, each with the reason as a sentence.
        chains: models to try after another one or a role, in order, before all others.
    """

    prompt: Prompt
    hints: Hints
    features: Features
    limits: KeyLimits
    today: str
    pool: ModelPool = NO_MODELS
    find_model: Callable[[str], PoolModel | None] = NO_MODELS.by_id.get
    named: Sequence[PoolModel] = ()
    model_kind: str = "chat"
    rule: Rule | None = None
    fallback_models: tuple[str, ...] = ()
    learned_policy: LearnedPolicy | None = None
    context: RoutingContext | None = None
    unhealthy: Mapping[str, str] = {}
    chains: Mapping[str, tuple[str, ...]] = {}
