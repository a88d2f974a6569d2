"""Decisions: `POST /v1/route`, `GET /v1/decisions/{id}`, `POST /v1/feedback`."""

from collections.abc import Sequence
from typing import Any

import msgspec

from sophia.core.errors import BadRequest, NotFound
from sophia.core.ids import decode_id, encode_id
from sophia.core.money import nano_to_usd
from sophia.core.rows import AttemptIntent, AttemptOutcome, Feedback, find_served_outcome
from sophia.http.app import App
from sophia.http.v1.bodies import FeedbackBody
from sophia.http.v1.chat import read_request
from sophia.http.v1.decode import decode_body
from sophia.http.v1.explanation import explain_plan
from sophia.http.wire import HttpRequest, ResponseWriter, send_json
from sophia.routing.types import decode_plan
from sophia.serving.decide import decide
from sophia.tenants.keys import Principal

_feedback_decoder = msgspec.json.Decoder(FeedbackBody)


async def explain_route(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
    """Answer `POST /v1/route`: the decision for a chat body, without making the call."""
    request = read_request(app, incoming, "chat/completions")
    scope = app.runtime.ledger.budget_scope(request.principal, app.runtime.limits)
    await app.runtime.ledger.refresh(scope)
    decision = decide(app.runtime, request, scope)
    body: dict[str, Any] = {"object": "sophia.route", "requested_model": request.model}
    body |= explain_plan(decision.plan, app.runtime.knowledge.classifier.classes)
    if decision.warning is not None:
        body["warning"] = decision.warning
    await send_json(reply, body)


async def get_decision(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
    """Answer `GET /v1/decisions/{id}`: the explanation again, with the outcomes and feedback."""
    principal = incoming.require_principal()
    row = await _find_own_decision(app, principal, incoming.path.rpartition("/")[2])
    store, classes = app.runtime.ledger.store, app.runtime.knowledge.classifier.classes
    outcomes, feedback = await store.attempts(row.attempt_id), await store.feedback(row.attempt_id)
    await send_json(reply, render_decision(row, outcomes, feedback, classes))


def render_decision(
    row: AttemptIntent,
    outcomes: Sequence[AttemptOutcome],
    feedback: Sequence[Feedback],
    classes: Sequence[str],
) -> dict[str, object]:
    """Return a logged decision as JSON-able data; `classes` are the names of the tasks."""
    served = find_served_outcome(outcomes)
    return {
        "object": "sophia.decision",
        "id": encode_id("dec", row.attempt_id),
        **explain_plan(decode_plan(row.plan or b""), classes),
        "served_by": served.model if served is not None else None,
        "attempts_made": [_render_attempt(outcome) for outcome in outcomes],
        "feedback": [
            {"score": row.score, "label": row.label, "channel": row.channel, "at_ms": row.at_ms}
            for row in feedback
        ],
    }


async def create_feedback(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
    """Answer `POST /v1/feedback`: store feedback on a decision; repeats change nothing."""
    principal = incoming.require_principal()
    body = decode_body(_feedback_decoder, incoming.body)
    values = (body.score, body.thumbs, body.label, body.preferred_model)
    if all(value is None for value in values):
        raise BadRequest(
            "The feedback is empty; send `score` 0 to 1, `thumbs`, `label` or `preferred_model`."
        )
    decision = await _find_own_decision(app, principal, body.decision_id)
    store = app.runtime.ledger.store
    feedback = _build_feedback(body, decision, int(app.runtime.ledger.clock.wall() * 1000))
    stored = await store.add_feedback(feedback)
    if stored and feedback.score is not None:
        served = find_served_outcome(await store.attempts(decision.attempt_id))
        model = served.model if served is not None else decision.model
        app.record_score(model, feedback.score)
        if app.feedback_recorder is not None:
            await app.feedback_recorder.record(decision, feedback, model)
    receipt = {"object": "sophia.feedback", "decision_id": body.decision_id, "stored": stored}
    await send_json(reply, receipt)


def _build_feedback(body: FeedbackBody, decision: AttemptIntent, now_ms: int) -> Feedback:
    score, channel = body.score, body.channel or "score"
    if score is None and body.thumbs is not None:
        score = 1.0 if body.thumbs == "up" else 0.0
        channel = body.channel or "thumb"
    key = body.idempotency_key or f"{body.decision_id}:{channel}"
    return Feedback(
        idempotency_key=f"{decision.key_id}:{key}",
        decision_id=decision.attempt_id,
        key_id=decision.key_id,
        score=score,
        label=body.label,
        comment_chars=len(body.comment or ""),
        preferred_model=body.preferred_model,
        channel=channel,
        at_ms=now_ms,
    )


async def _find_own_decision(app: App, principal: Principal, id: str) -> AttemptIntent:
    number = decode_id("dec", id)
    row = await app.runtime.ledger.store.decision(number) if number is not None else None
    # Another key's decision does not exist for this one.
    if row is None or row.plan is None or row.key_id != principal.key_id:
        raise NotFound(f"There is no decision {id[:100]!r} of this key.")
    return row


def _render_attempt(outcome: AttemptOutcome) -> dict[str, object]:
    return {
        "model": outcome.model,
        "state": outcome.state,
        "failure": outcome.failure,
        "finish_reason": outcome.finish_reason,
        "provider": outcome.provider,
        "cost_usd": nano_to_usd(outcome.cost_nano),
        "cost_source": outcome.cost_source,
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "first_content_ms": outcome.first_content_ms,
        "total_ms": outcome.total_ms,
    }
