"""The decision: from features, hints and models to ordered attempts with reasons and prices."""

from collections.abc import Mapping, Sequence

from msgspec import Struct, structs

from sophia.routing.candidates import Candidates
from sophia.routing.explain.refusals import (
    BELOW_MIN_QUALITY,
    build_below_minimum_error,
    build_exclusion_error,
    build_no_candidate_error,
    format_below_minimum,
)
from sophia.routing.features.extract import build_default_features
from sophia.routing.heuristic import FALLBACK_ROLES, choose_model_role, order_quotes, truncate_chain
from sophia.routing.model_name import LEARNED_POLICY
from sophia.routing.pool import PoolModel
from sophia.routing.quotes import Quote, order_by_tradeoff, resolve_tradeoff
from sophia.routing.rank import rank_quotes
from sophia.routing.request import KeyLimits, RouteRequest
from sophia.routing.rules.model import Rule
from sophia.routing.types import Attempt, Candidate, DecisionTrace, Hints, Plan, Prompt

COMPARABLE_COST = 4
"""Cost of a substitute, in costs of the first model, above which one of lower rank is preferred."""
_NO_HINTS = Hints()


def build_plan(request: RouteRequest) -> Plan:
    """Return the attempts for a request that leaves the choice to Sophia.

    Raises:
        NoCandidate: no model satisfies the constraints; `details` lists the reasons by model. Or
            none is expected to reach the minimum quality, and the hints are strict about it.
        BudgetExceeded: models are able, but the budget does not cover a minimal answer of any.
        ContextLengthExceeded: the request is longer than the context window of every model.
    """
    candidates = Candidates(request)
    selection = _select(candidates)
    if request.hints.strict and request.hints.min_quality is not None:
        selection = _require_min_quality(selection, request.hints.min_quality)
    trace = selection.trace
    if trace is None and request.context is not None:
        trace = request.context.build_trace()
    rated_arms = () if trace is None else trace.rated_arms
    quality = {arm.model: arm.quality for arm in rated_arms}
    cost = {arm.model: round(arm.cost_nano) for arm in rated_arms}
    return Plan(
        attempts=_build_attempts(candidates, selection, cost),
        policy=selection.policy,
        rule=selection.rule,
        reason=selection.reason,
        features=request.features,
        candidates=_build_candidates(candidates, quality, cost),
        excluded=tuple(candidates.excluded.values()),
        propensity=selection.propensity,
        notes=selection.notes,
        trace=trace,
    )


def _build_candidates(
    candidates: Candidates, quality: Mapping[str, float], cost: Mapping[str, int]
) -> tuple[Candidate, ...]:
    return tuple(
        [
            Candidate(
                model=model,
                quality=quality.get(model, quote.quality),
                latency_ms=quote.pool_model.latency_ms,
                expected_nano=cost.get(model, quote.expected_nano),
                worst_nano=quote.held_nano or 0,
            )
            for model, quote in candidates.quotes.items()
        ]
    )


def plan_named(  # noqa: PLR0913 - the facts of a request, each by name
    models: Sequence[PoolModel],
    prompt: Prompt,
    limits: KeyLimits,
    *,
    today: str,
    max_cost_nano: int | None = None,
    model_kind: str = "chat",
) -> Plan:
    """Return the attempts for a request that names `models`: the first, then its substitutes.

    No model is refused on an estimate that may be wrong: the upstream knows its own window best.

    Raises:
        ContextLengthExceeded: the request is longer than the first model's context window.
        IncapableModel: the first model cannot do what the request asks.
        NoCandidate: its price is not known, so no budget can cover it.
        BudgetExceeded: the budget does not cover a minimal answer.
    """
    candidates = Candidates(
        RouteRequest(
            prompt=prompt,
            hints=_NO_HINTS if max_cost_nano is None else Hints(max_cost_nano=max_cost_nano),
            features=build_default_features(prompt),
            limits=limits,
            today=today,
            named=models,
            model_kind=model_kind,
        )
    )
    quotes = list(candidates.quotes.values())[: limits.max_attempts]
    if not quotes:
        first = candidates.excluded[models[0].id]
        raise build_exclusion_error(first, candidates.spend_limit)
    substitute_reason = f"It steps in when {quotes[0].pool_model.id} fails."
    attempts = [
        Attempt(
            model=quote.pool_model.id,
            reason="The request names it." if quote is quotes[0] else substitute_reason,
            expected_nano=quote.expected_nano,
            held_nano=quote.held_nano or 0,
            max_tokens=quote.max_tokens,
        )
        for quote in quotes
    ]
    return Plan(
        attempts=tuple(attempts),
        policy="named",
        rule=None,
        reason="The request names it.",
        features=candidates.request.features,
        excluded=tuple(candidates.excluded.values()),
    )


class _Selection(Struct, kw_only=True):
    """Quotes in the order to try them, and the reason for the first; `fixed` of them stay first."""

    quotes: list[Quote]
    reason: str
    policy: str
    fixed: int = 1
    rule: str | None = None
    last_resort: Quote | None = None
    notes: tuple[str, ...] = ()
    propensity: float = 1.0
    trace: DecisionTrace | None = None


def _select(candidates: Candidates) -> _Selection:
    request = candidates.request
    selection = _select_pinned(candidates)
    if selection is None and request.rule is not None:
        selection = _select_by_rule(candidates, request.rule)
    policy = request.hints.policy or LEARNED_POLICY
    if selection is None and policy == LEARNED_POLICY:
        selection, policy = _select_by_learned_policy(candidates), "heuristic"
    return selection or _select_by_policy(candidates, policy)


def _select_pinned(candidates: Candidates) -> _Selection | None:
    """Return the model that called the tools, while it is able: it knows why it called them."""
    context = candidates.request.context
    hints, prompt = candidates.request.hints, candidates.request.prompt
    if context is None or context.current_model is None or not prompt.after_tool_result:
        return None
    if hints.rule or hints.policy or hints.min_quality is not None:
        return None
    pinned = candidates.quote_by_name(context.current_model)
    if pinned is None or not pinned.covers_expected:
        return None
    ranked = [quote for quote in candidates.rank_by_quality() if quote.covers_expected]
    return _Selection(
        quotes=[pinned, *(quote for quote in ranked if quote is not pinned)],
        reason="The model that called the tools continues with their results.",
        policy="pinned",
        last_resort=_find_last_resort(candidates),
    )


def _select_by_rule(candidates: Candidates, rule: Rule) -> _Selection | None:
    """Return the selection of `rule`, or None when no model that it names is able."""
    named = {
        quote.pool_model.id: quote
        for name in rule.preferred_models
        if (quote := candidates.quote_by_name(name)) is not None
    }
    fallback = candidates.quote_by_name(rule.fallback) if rule.fallback else None
    affordable = [quote for quote in named.values() if quote.covers_expected]
    hints = candidates.request.hints
    ordered, why = order_by_tradeoff(affordable, resolve_tradeoff(hints), hints.min_quality)
    ordered = _with_min_quality(ordered, hints)
    reason = f"Rule {rule.name} asks for it" + (f"; of its models it is {why}." if why else ".")
    if not ordered:
        if fallback is None or (hints.strict and hints.min_quality is not None):
            return None
        ordered = [fallback]
        reason = (
            f"Rule {rule.name}: no preferred model is able and affordable, so its fallback answers."
        )
    return _Selection(
        quotes=ordered,
        reason=reason,
        policy="rule",
        fixed=len(ordered),
        rule=rule.name,
        last_resort=fallback,
    )


def _select_by_learned_policy(candidates: Candidates) -> _Selection | None:
    """Return the selection of the learned policy, or None when it may not decide or declines."""
    request = candidates.request
    if request.learned_policy is None or request.context is None:
        return None
    affordable = [quote for quote in candidates.quotes.values() if quote.covers_expected]
    ranking = rank_quotes(request.learned_policy, request.context, affordable, request.hints)
    if ranking is None:
        return None
    return _Selection(
        quotes=ranking.quotes,
        reason=ranking.reason,
        policy=request.learned_policy.name,
        last_resort=_find_last_resort(candidates),
        notes=ranking.notes,
        propensity=ranking.propensity,
        trace=ranking.trace,
    )


def _select_by_policy(candidates: Candidates, policy: str) -> _Selection:
    """Return the selection of the heuristic, reordered by the caller's trade-off."""
    hints = candidates.request.hints
    role, reason = choose_model_role(candidates.request.features)
    tradeoff = resolve_tradeoff(hints) if policy == "heuristic" else policy
    last = _find_last_resort(candidates)
    affordable = order_quotes(role, candidates.find_quote_by_role, candidates.rank_by_quality())
    ordered, why = order_by_tradeoff(affordable, tradeoff, hints.min_quality)
    ordered = _with_min_quality(ordered, hints)
    if not ordered and affordable and hints.min_quality is not None:
        return _select_closest(affordable, hints.min_quality, policy)
    if not ordered:
        return _select_fallback(candidates, policy, last)
    if why:
        reason = f"It is {why}."
    elif ordered[0] is not candidates.find_quote_by_role(role):
        reason = f"{reason} That one is not able or too expensive, so the next in line answers."
    # The table's own substitutes stay; a trade-off has its own order.
    fixed = 1 if why else 1 + len(FALLBACK_ROLES.get(role, ()))
    return _Selection(quotes=ordered, reason=reason, policy=policy, fixed=fixed, last_resort=last)


def _select_closest(quotes: Sequence[Quote], min_quality: float, policy: str) -> _Selection:
    """Return the models by expected quality, when none is expected to reach the minimum."""
    ordered = sorted(quotes, key=lambda quote: (-quote.quality, quote.expected_nano))
    reason = format_below_minimum(min_quality, ordered[0].quality)
    return _Selection(quotes=ordered, reason=reason, policy=policy, notes=(BELOW_MIN_QUALITY,))


def _require_min_quality(selection: _Selection, min_quality: float) -> _Selection:
    """Return `selection` without a last resort, which may be of any quality.

    Raises NoCandidate when no model of it is expected to reach `min_quality`.
    """
    if selection.notes:
        raise build_below_minimum_error(min_quality, selection.reason)
    return structs.replace(selection, last_resort=None)


def _select_fallback(candidates: Candidates, policy: str, last: Quote | None) -> _Selection:
    """Return the named fallback, else the cheapest model, when no model meets the wishes."""
    if last is None:
        if not candidates.quotes:
            raise build_no_candidate_error(candidates.spend_limit, candidates.excluded.values())
        last = min(
            candidates.quotes.values(),
            key=lambda quote: (not quote.covers_expected, quote.expected_nano, quote.pool_model.id),
        )
    return _Selection(
        quotes=[last],
        reason="No candidate meets the requested quality and cost, so the fallback answers.",
        policy=policy,
        last_resort=last,
        notes=("fallback",),
    )


def _find_last_resort(candidates: Candidates) -> Quote | None:
    for name in candidates.request.fallback_models:
        quote = candidates.quote_by_name(name)
        if quote is not None:
            return quote
    return candidates.find_quote_by_role("fallback")


def _with_min_quality(quotes: list[Quote], hints: Hints) -> list[Quote]:
    if hints.min_quality is None:
        return quotes
    return [quote for quote in quotes if quote.quality >= hints.min_quality]


def _order_substitutes(
    candidates: Candidates, selection: _Selection, cost: Mapping[str, int]
) -> list[str]:
    """Return the models to try: the first, its configured chain, the fixed ones, then the others.

    Among those others models that cost about as much as the first come before more expensive
    ones, so that the outage of a small model does not become an expensive answer.
    """
    chosen = [quote.pool_model for quote in selection.quotes]
    request, first = candidates.request, chosen[0]
    names = request.chains.get(first.id) or request.chains.get(first.role, ())
    chain = [quote for name in names if (quote := candidates.quote_by_name(name)) is not None]
    chain = _with_min_quality([quote for quote in chain if quote.covers_expected], request.hints)
    before = [first.id, *(quote.pool_model.id for quote in chain)]
    before += [model.id for model in chosen[1 : selection.fixed]]
    others = [model.id for model in chosen[selection.fixed :]]
    if selection.rule is not None:
        ranked = _with_min_quality(candidates.rank_by_quality(), request.hints)
        others = [quote.pool_model.id for quote in ranked if quote.covers_expected]
    if resolve_tradeoff(request.hints) == "best" or not others:
        return before + others

    def expected_cost(model: str) -> int:
        return cost.get(model, candidates.quotes[model].expected_nano)

    most = COMPARABLE_COST * expected_cost(first.id)
    return before + sorted(others, key=lambda model: expected_cost(model) > most)


def _build_attempts(
    candidates: Candidates, selection: _Selection, cost: Mapping[str, int]
) -> tuple[Attempt, ...]:
    """Return the attempts in order; `cost` holds learned costs of answers, by model."""
    order = _order_substitutes(candidates, selection, cost)
    last = None if selection.last_resort is None else selection.last_resort.pool_model.id
    chain = truncate_chain(order, last, candidates.request.limits.max_attempts)
    attempts = []
    for number, model in enumerate(chain):
        quote = candidates.quotes[model]
        if number == 0:
            reason = selection.reason
        elif model == last:
            reason = "It is the last fallback."
        else:
            reason = f"It steps in when {chain[0]} fails."
        attempts.append(
            Attempt(
                model=model,
                reason=reason,
                expected_nano=cost.get(model, quote.expected_nano),
                held_nano=quote.held_nano or 0,
                max_tokens=quote.max_tokens,
            )
        )
    return tuple(attempts)
