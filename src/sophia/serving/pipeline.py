"""One request, in order, never back: budget, decision, attempts, checks, observation."""

from sophia.serving.attempts.answer import Answer, RequestRecord
from sophia.serving.attempts.continuation import Continuation, can_be_continued
from sophia.serving.attempts.failover import run_attempts
from sophia.serving.cascade.cascade import serve_checked
from sophia.serving.decide import decide
from sophia.serving.request import Request
from sophia.serving.runtime import Runtime


async def serve_request(runtime: Runtime, request: Request) -> Answer:
    """Return an answer that has begun; its cost is reserved, its choice is explained.

    Raises:
        SophiaError: the error for the caller; nothing stays reserved then.
    """
    scope = runtime.ledger.budget_scope(request.principal, runtime.limits)
    await runtime.ledger.refresh(scope)
    decision = decide(runtime, request, scope)
    if runtime.learned_routing is not None:
        runtime.learned_routing.record_decision(request, decision)
    record = RequestRecord(runtime, runtime.knowledge, request, decision)
    checked = runtime.cascade.applies_to(request, decision.plan)
    if checked:
        answer = await serve_checked(runtime, record, scope)
    else:
        answer = await run_attempts(record, scope, decision.plan.attempts)
        on_cut = request.hints.on_cut or runtime.limits.on_cut
        if on_cut == "continue" and can_be_continued(request):
            answer.continuation = Continuation(record, scope)
    if runtime.observe is not None:
        answer.observer = runtime.observe(request, decision, scope, checked)
    return answer
