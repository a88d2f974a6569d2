"""The decision when the request names its model: no ranking, only what is able and affordable."""

from collections.abc import Callable, Sequence

from sophia.catalogue.model import Model
from sophia.routing.constraints import able, needs_of
from sophia.routing.features import unread
from sophia.routing.nouns import Attempt, Excluded, Hints, Plan, Prompt
from sophia.routing.optimizer import bounds_of, purse_of, quote, too_dear
from sophia.routing.pool import Seat
from sophia.routing.refusals import refusal
from sophia.routing.request import Limits

_NO_HINTS = Hints()
_FIRST = "The request names it."
_SUBSTITUTE = "The request names it as a substitute."


def plan_named(  # noqa: PLR0913 - the facts of a request, each by name
    model: Model,
    prompt: Prompt,
    limits: Limits,
    *,
    today: str,
    max_cost_nano: int | None = None,
    others: Sequence[Model] = (),
    kind: str = "chat",
    seat_of: Callable[[Model], Seat] = Seat.of,
) -> Plan:
    """Return the attempts for a request that names its model.

    `others` step in, in their order, when it fails or cannot take the request. Nothing is refused
    on an estimate that may be wrong: the upstream knows its own window best. `seat_of` may remember
    seats between requests.

    Raises:
        ContextLengthExceeded: the request is longer than the model's context window.
        IncapableModel: the model cannot do what the request asks.
        NoCandidate: this key may not use the model, or its price is not known.
        BudgetExceeded: the purse does not pay a minimal answer.
    """
    features = unread(prompt)
    purse = purse_of(limits.per_request_nano, limits.budget_left_nano, max_cost_nano)
    needs = needs_of(
        prompt,
        _NO_HINTS,
        today,
        priced=purse.nano is not None,
        allowed=limits.allowed,
        kind=kind,
        named=True,
    )
    bounds = bounds_of(prompt, features, limits.price_headroom)
    attempts: dict[str, Attempt] = {}
    excluded: dict[str, Excluded] = {}
    for one in (model, *others) if others else (model,):
        if one.id in attempts or len(attempts) >= limits.max_attempts:
            continue
        cause = able(one, features, needs)
        if cause is None:
            offer = quote(seat_of(one), features.task_type, bounds, purse)
            held = offer.held
            if held is not None:
                reason = _FIRST if one is model else _SUBSTITUTE
                attempts[one.id] = Attempt(one.id, reason, offer.expected, held, offer.max_tokens)
                continue
            cause = Excluded(one.id, too_dear(offer, purse), "too_dear")
        excluded[one.id] = cause
    if not attempts:
        raise refusal(excluded[model.id], purse)
    tried, left_out = tuple(attempts.values()), tuple(excluded.values())
    return Plan(tried, "named", None, tried[0].reason, features, (), left_out)
