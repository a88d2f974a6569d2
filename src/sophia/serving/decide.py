"""Ask routing for a plan: the one place where a request meets the catalogue and the rules."""

from collections.abc import Mapping

from msgspec import Struct

from sophia.catalogue.catalogue import Resolved
from sophia.core.errors import UnknownModel
from sophia.routing import target
from sophia.routing.features import extract
from sophia.routing.learned import Seen
from sophia.routing.nouns import Plan
from sophia.routing.plan import POLICIES, RouteRequest, plan, plan_named
from sophia.routing.request import Limits
from sophia.serving.insight import Insight
from sophia.serving.knowledge import Knowledge
from sophia.serving.request import Request


class Decision(Struct, frozen=True):
    """A plan, the upstream ids of models that were asked for by another name, and a warning.

    `seen` is what learned policies saw of the request, if one looked.
    """

    plan: Plan
    served_ids: Mapping[str, str]
    warning: str | None = None
    seen: Seen | None = None


_AS_NAMED: Mapping[str, str] = {}


def decide(
    request: Request,
    knowledge: Knowledge,
    limits: Limits,
    today: str,
    insight: Insight | None = None,
) -> Decision:
    """Return how to serve `request`; with `insight` what was learned has a say.

    Raises:
        SophiaError: the name is unknown, or no model is able, allowed and affordable.
    """
    wanted = target.parse(request.model)
    if wanted is None:
        return _named(request, knowledge, limits, today)
    if request.endpoint == "embeddings":
        raise UnknownModel(
            "Sophia does not choose embedding models, since their vectors do not mix: name one.",
            param="model",
        )
    hints = wanted.apply(request.hints, POLICIES)
    _check_rule(hints.rule, request.model, knowledge)
    learned, seen, features = None, None, extract(request.prompt, hints)
    if insight is not None:
        learned, seen = insight.of(request, features, hints, limits.budget_left_nano)
    chosen = plan(
        RouteRequest(
            request.prompt,
            hints,
            knowledge.pool,
            knowledge.find,
            limits,
            today,
            knowledge.rulebook,
            knowledge.fallbacks,
            learned=learned,
            seen=seen,
            features=features,
        )
    )
    return Decision(chosen, _AS_NAMED, None, seen)


def _check_rule(rule: str | None, model: str, knowledge: Knowledge) -> None:
    if rule is None or knowledge.rulebook.named(rule) is not None:
        return
    names = [*(f"sophia/auto:{name}" for name in target.TRADEOFFS), target.AUTO]
    names += [f"{target.PREFIX}{name}" for name in POLICIES]
    names += [f"{target.PREFIX}{rule.name}" for rule in knowledge.rulebook.rules]
    raise UnknownModel(
        f"There is no {model!r}. Sophia's own names are: {', '.join(sorted(names))}.", param="model"
    )


def _named(request: Request, knowledge: Knowledge, limits: Limits, today: str) -> Decision:
    first = _resolve(knowledge, request.model)
    others = [_resolve(knowledge, name) for name in request.others] if request.others else []
    chosen = plan_named(
        first.model,
        request.prompt,
        limits,
        today=today,
        max_cost_nano=request.hints.max_cost_nano,
        others=[other.model for other in others] if others else (),
        kind="embedding" if request.endpoint == "embeddings" else "chat",
        seat_of=knowledge.seat,
    )
    served = {}
    for one in (first, *others):
        if one.served_id != one.model.id:
            served[one.model.id] = one.served_id
    return Decision(chosen, served, first.warning)


def _resolve(knowledge: Knowledge, name: str) -> Resolved:
    found = knowledge.resolve(name)
    if found is None:
        near = knowledge.catalogue.nearest(name)
        hint = f" Did you mean {', '.join(near)}?" if near else " `GET /v1/models` lists them all."
        raise UnknownModel(
            f"There is no model {name[:200]!r}.{hint}", param="model", details={"nearest": near}
        )
    return found
