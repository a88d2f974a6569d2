"""The decision about a request: what its model name asks for, and a plan from routing."""

from collections.abc import Mapping

from sophia.catalogue.catalogue import ResolvedModel
from sophia.core.errors import BudgetExceeded, UnknownModel
from sophia.routing.explain.refusals import BELOW_MIN_QUALITY
from sophia.routing.model_name import is_route_name
from sophia.routing.plan import build_plan, plan_named
from sophia.routing.request import KeyLimits, RouteRequest
from sophia.routing.rules.model import find_rule
from sophia.serving.attempts.reservation import BudgetScope
from sophia.serving.knowledge import Knowledge
from sophia.serving.request import Decision, Request
from sophia.serving.runtime import Runtime

_NO_ALIASES: Mapping[str, str] = {}
_NONE_UNHEALTHY: Mapping[str, str] = {}


def decide(runtime: Runtime, request: Request, scope: BudgetScope) -> Decision:
    """Return how to serve `request` within its budget; changes no state.

    Raises:
        SophiaError: the name is unknown, or no model is able, allowed and affordable.
    """
    each, left = scope.per_request_limit, runtime.ledger.remaining(scope)
    limits = KeyLimits(
        per_request_nano=each,
        budget_left_nano=left,
        max_attempts=runtime.limits.max_attempts,
        price_margin=runtime.limits.price_margin,
    )
    try:
        return _decide(runtime, request, limits, scope.window)
    except BudgetExceeded as error:
        # Waiting helps only where the day's budget is the tighter limit.
        if left is not None and (each is None or left < each):
            runtime.ledger.explain_refusal(error, scope)
        raise


def _decide(runtime: Runtime, request: Request, limits: KeyLimits, today: str) -> Decision:
    if not is_route_name(request.model):
        return _decide_named(request, runtime.knowledge, limits, today)
    if request.endpoint == "embeddings":
        raise UnknownModel(
            "Sophia does not choose embedding models, because their vectors do not mix: name one.",
            param="model",
        )
    knowledge, hints = runtime.knowledge, request.hints
    encoded = knowledge.classifier.encode(request.prompt, hints)
    rule = find_rule(knowledge.rulebook, hints, encoded.features)
    policy, context = None, None
    if runtime.learned_routing is not None:
        policy, context = runtime.learned_routing.prepare(request, encoded, limits.budget_left_nano)
    plan = build_plan(
        RouteRequest(
            prompt=request.prompt,
            hints=hints,
            features=encoded.features,
            pool=knowledge.pool,
            find_model=knowledge.find_pool_model,
            limits=limits,
            today=today,
            rule=rule,
            fallback_models=knowledge.fallbacks,
            learned_policy=policy,
            context=context,
            unhealthy=_list_unhealthy(runtime),
            chains=knowledge.chains,
        )
    )
    warning = plan.reason if BELOW_MIN_QUALITY in plan.notes else request.warning
    return Decision(plan, _NO_ALIASES, warning, context)


def _list_unhealthy(runtime: Runtime) -> Mapping[str, str]:
    """Return the models of the pool of which no deployment is available, with the reason."""
    book = runtime.health
    if book.all_healthy:
        return _NONE_UNHEALTHY
    now, found = runtime.ledger.clock.monotonic(), {}
    for model in runtime.knowledge.pool.models:
        targets = runtime.upstreams.targets(model.id)
        if not any(book.is_available(target, now) for target in targets):
            found[model.id] = book.describe(targets[0], now)
    return found


def _decide_named(
    request: Request, knowledge: Knowledge, limits: KeyLimits, today: str
) -> Decision:
    names = (request.model, *request.fallback_models)
    models = [_resolve(knowledge, name) for name in names]
    plan = plan_named(
        [knowledge.pool_model(resolved.model) for resolved in models],
        request.prompt,
        limits,
        today=today,
        max_cost_nano=request.hints.max_cost_nano,
        model_kind="embedding" if request.endpoint == "embeddings" else "chat",
    )
    upstream_ids = {
        resolved.model.id: resolved.upstream_id
        for resolved in models
        if resolved.upstream_id != resolved.model.id
    }
    return Decision(plan, upstream_ids, request.warning or models[0].warning)


def _resolve(knowledge: Knowledge, name: str) -> ResolvedModel:
    resolved = knowledge.resolve(name)
    if resolved is None:
        near = knowledge.catalogue.similar_ids(name)
        hint = f" Did you mean {', '.join(near)}?" if near else " `GET /v1/models` lists them all."
        raise UnknownModel(
            f"There is no model {name[:200]!r}.{hint}", param="model", details={"nearest": near}
        )
    return resolved
