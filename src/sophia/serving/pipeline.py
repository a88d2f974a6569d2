"""One request, in order, never back: admit, decide, walk, settle."""

from sophia.routing.request import Limits as RouteLimits
from sophia.serving.answer import Answer, Record
from sophia.serving.cascade import checked
from sophia.serving.decide import Decision, decide
from sophia.serving.desk import Desk
from sophia.serving.request import Request
from sophia.serving.tab import Payer
from sophia.serving.walk import walk
from sophia.tenants.budget import Account
from sophia.tenants.keys import Principal


async def serve(desk: Desk, request: Request) -> Answer:
    """Return an answer that has begun; its money is held, its choice is explained.

    Raises:
        SophiaError: what the caller is told instead; nothing stays held then.
    """
    payer = admit(desk, request)
    decision = choose(desk, request, payer)
    if desk.insight is not None and decision.seen is not None:
        desk.insight.note(request, decision.plan, decision.seen)
    looked_at = desk.checking.wanted(request, decision.plan)
    if looked_at:
        answer = await checked(desk, request, decision, payer)
    else:
        answer = await walk(desk, Record(desk, request, decision), payer)
    if desk.listen is not None:
        answer.ear = desk.listen(request, decision, payer, looked_at)
    return answer


def admit(desk: Desk, request: Request) -> Payer:
    """Return whose budget pays for the request."""
    own = request.principal.per_request_nano
    each = desk.limits.per_request_nano if own is None else own
    return desk.books.payer(request.principal.key_id, limit_of(desk, request.principal), each)


def limit_of(desk: Desk, principal: Principal) -> int | None:
    """Return a key's daily budget in nano-dollars, the configured default included."""
    own = principal.daily_budget_nano
    return desk.limits.daily_budget_nano if own is None else own


def choose(desk: Desk, request: Request, payer: Payer) -> Decision:
    """Return how to serve the request within what its key may spend. Raises SophiaError."""
    spent, held = desk.books.coordinator.standing(payer.key_id, payer.window)
    limits = RouteLimits(
        payer.per_request,
        Account(spent, held).left(payer.limit),
        desk.limits.max_attempts,
        desk.limits.price_headroom,
    )
    return decide(request, desk.knowledge, limits, payer.window, desk.insight)
