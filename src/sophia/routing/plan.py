"""The decision: from a request's counts and hints to ordered attempts with reasons and prices."""

from collections.abc import Mapping
from dataclasses import dataclass

from sophia.core.errors import BadRequest
from sophia.routing.chains import cut
from sophia.routing.features import extract
from sophia.routing.field import Field
from sophia.routing.heuristic import choose_role, distinct, lineup
from sophia.routing.learned import rank
from sophia.routing.named import plan_named
from sophia.routing.nouns import Attempt, Candidate, Evidence, Features, Hints, Plan
from sophia.routing.optimizer import (
    DEFAULT_MIN_QUALITY,
    Offer,
    prefer,
    wishes,
)
from sophia.routing.refusals import nobody
from sophia.routing.request import LEARNED, POLICIES, Limits, RouteRequest
from sophia.routing.rules import Rule, match

__all__ = ["POLICIES", "Limits", "RouteRequest", "plan", "plan_named"]


def plan(request: RouteRequest) -> Plan:
    """Return the attempts for a request that leaves the choice of the model to Sophia.

    Raises:
        BadRequest: the request forces a rule or policy that does not exist.
        NoCandidate: no model satisfies the constraints; `details` lists why not, by model.
        BudgetExceeded: models are able, but the budget does not pay a minimal answer of any.
    """
    features = request.features or extract(request.prompt, request.hints)
    field = Field(request, features)
    rule = _rule_of(request, features)
    policy = _policy_of(request.hints)
    choice = _pinned(field)
    if choice is None and rule is not None:
        choice = _by_rule(field, rule)
    if choice is None and policy == LEARNED:
        choice = _by_learned(field)
    if choice is None:
        choice = _by_policy(field, "heuristic" if policy == LEARNED else policy)
    evidence = choice.evidence
    if evidence is None and request.seen is not None:
        evidence = request.seen.evidence()
    rated = () if evidence is None else evidence.rated
    quality = {one.arm: one.quality for one in rated}
    cost = {one.arm: round(one.cost_nano) for one in rated}
    attempts = _attempts(field, choice, cost)
    return Plan(
        attempts,
        choice.policy,
        choice.rule,
        choice.reason,
        features,
        tuple(
            [
                Candidate(
                    offer.seat.id,
                    quality.get(offer.seat.id, offer.quality),
                    offer.seat.latency_ms,
                    cost.get(offer.seat.id, offer.expected),
                    offer.held or 0,
                )
                for offer in field.offers.values()
            ]
        ),
        tuple(field.excluded.values()),
        choice.propensity,
        choice.notes,
        evidence,
    )


@dataclass(slots=True)
class _Choice:
    """Offers in the order to try them, and the reason for the first."""

    offers: list[Offer]
    reason: str
    policy: str
    rule: str | None = None
    last: str | None = None
    notes: tuple[str, ...] = ()
    propensity: float = 1.0
    evidence: Evidence | None = None


def _pinned(field: Field) -> _Choice | None:
    """Return the model that called the tools, while it is able: another would not know why."""
    seen = field.request.seen
    hints, prompt = field.request.hints, field.request.prompt
    if seen is None or seen.current is None or not prompt.tool_turn:
        return None
    if hints.rule or hints.policy or hints.min_quality is not None:
        return None
    offer = field.offer(seen.current)
    if offer is None or not offer.pays:
        return None
    last = _last_resort(field)
    others = [other for other in field.ranked() if other.pays and other is not offer]
    reason = "The model that called the tools goes on with what they gave back."
    return _Choice([offer, *others], reason, "pinned", None, last.seat.id if last else None)


def _rule_of(request: RouteRequest, features: Features) -> Rule | None:
    name = request.hints.rule
    if name is None:
        return None if request.hints.policy else match(features, request.rulebook)
    rule = request.rulebook.named(name)
    if rule is None:
        known = ", ".join(rule.name for rule in request.rulebook.rules) or "none"
        raise BadRequest(f"There is no rule named {name!r}; the rules are: {known}.", param="model")
    return rule


def _policy_of(hints: Hints) -> str:
    policy = hints.policy or LEARNED
    if policy not in POLICIES:
        raise BadRequest(
            f"There is no policy named {policy!r}; take one of {', '.join(POLICIES)}.",
            param="model",
        )
    return policy


def _by_rule(field: Field, rule: Rule) -> _Choice | None:
    """Return what `rule` says, or None when it names nobody that is able."""
    named = [offer for name in rule.preferred_models if (offer := field.offer(name)) is not None]
    last = field.offer(rule.fallback) if rule.fallback else None
    paying = [offer for offer in distinct(named) if offer.pays]
    hints = field.request.hints
    ordered, why = prefer(paying, wishes(hints), _floor(hints))
    if hints.min_quality is not None:
        ordered = [offer for offer in ordered if offer.quality >= hints.min_quality]
    if ordered:
        reason = f"Rule {rule.name} asks for it" + (f"; of its models it is {why}." if why else ".")
        return _Choice(ordered, reason, "rule", rule.name, last.seat.id if last else None)
    if last is None:
        return None
    reason = (
        f"Rule {rule.name}: no preferred model is able and affordable, so its fallback answers."
    )
    return _Choice([last], reason, "rule", rule.name, last.seat.id)


def _by_learned(field: Field) -> _Choice | None:
    """Return what the learned policy says, or None: it knows too little yet, or declines."""
    request = field.request
    if request.learned is None or request.seen is None:
        return None
    offers = [offer for offer in field.offers.values() if offer.pays]
    ranking = rank(request.learned, request.seen, offers, request.hints)
    if ranking is None:
        return None
    last = _last_resort(field)
    return _Choice(
        ranking.offers,
        ranking.reason,
        request.learned.policy.name,
        None,
        last.seat.id if last else None,
        (),
        ranking.propensity,
        ranking.evidence,
    )


def _by_policy(field: Field, policy: str) -> _Choice:
    """Return the order of `policy`, after the money and the caller's wishes have had their say."""
    hints = field.request.hints
    role, reason = choose_role(field.features)
    wish = wishes(hints) if policy == "heuristic" else policy
    last = _last_resort(field)
    first = field.offer_of_role(role)
    paying = lineup(role, field.offer_of_role, field.ranked())
    ordered, why = prefer(paying, wish, _floor(hints))
    if hints.min_quality is not None:
        ordered = [offer for offer in ordered if offer.quality >= hints.min_quality]
    if not ordered:
        return _fall_back(field, policy, last)
    if why:
        reason = f"It is {why}."
    elif ordered[0] is not first:
        reason = f"{reason} That one is not able or too dear, so the next in line answers."
    return _Choice(ordered, reason, policy, None, last.seat.id if last else None)


def _fall_back(field: Field, policy: str, last: Offer | None) -> _Choice:
    """Return the named fallback, else the cheapest there is, when nothing meets the wishes."""
    reason = (
        "No candidate meets the quality and the cost that were asked for, so the fallback answers."
    )
    if last is None:
        if not field.offers:
            raise nobody(field.purse, field.excluded.values())
        last = min(
            field.offers.values(), key=lambda offer: (not offer.pays, offer.expected, offer.seat.id)
        )
    return _Choice([last], reason, policy, None, last.seat.id, ("fallback",))


def _last_resort(field: Field) -> Offer | None:
    for name in field.request.fallbacks:
        offer = field.offer(name)
        if offer is not None:
            return offer
    return field.offer_of_role("fallback")


def _floor(hints: Hints) -> float:
    return DEFAULT_MIN_QUALITY if hints.min_quality is None else hints.min_quality


def _attempts(field: Field, choice: _Choice, cost: Mapping[str, int]) -> tuple[Attempt, ...]:
    """Return whom to ask in turn; `cost` holds what was learned of answers' costs, by model."""
    first = choice.offers[0]
    order = [offer.seat.id for offer in choice.offers]
    if choice.rule is not None:
        wanted = field.request.hints.min_quality or 0.0
        order.extend(
            offer.seat.id for offer in field.ranked() if offer.pays and offer.quality >= wanted
        )
    chain = cut(order, choice.last, field.request.limits.max_attempts)
    attempts = []
    for number, name in enumerate(chain):
        offer = field.offers[name]
        if number == 0:
            reason = choice.reason
        elif name == choice.last:
            reason = "It is the last fallback."
        else:
            reason = f"It steps in when {first.seat.id} fails."
        expected = cost.get(name, offer.expected)
        attempts.append(Attempt(name, reason, expected, offer.held or 0, offer.max_tokens))
    return tuple(attempts)
