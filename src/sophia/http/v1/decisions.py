"""Explaining and judging: `POST /v1/route`, `GET /v1/decisions/{id}`, `POST /v1/feedback`."""

from collections.abc import Sequence
from typing import Any

import msgspec

from sophia.core.errors import BadRequest, NotFound
from sophia.core.ids import decode as decode_id
from sophia.core.ids import encode as encode_id
from sophia.core.money import usd
from sophia.core.rows import Feedback, Intent, Outcome, served
from sophia.http.front import Front
from sophia.http.v1 import decode
from sophia.http.v1.bodies import FeedbackBody
from sophia.http.v1.chat import as_request
from sophia.http.wire import JSON, Incoming, Reply
from sophia.routing.explain import explain
from sophia.routing.nouns import Plan
from sophia.serving.pipeline import admit, choose

encode = msgspec.json.Encoder().encode
_feedback = msgspec.json.Decoder(FeedbackBody)
_plan = msgspec.json.Decoder(Plan)


async def route(front: Front, incoming: Incoming, reply: Reply) -> None:
    """Answer `POST /v1/route`: the decision for a chat body, without making the call."""
    arrived = front.desk.books.clock.monotonic()
    principal = await front.principal(incoming)
    understood = decode.chat(incoming.body, incoming.headers)
    request = as_request(front, understood, "chat/completions", principal, arrived)
    decision = choose(front.desk, request, admit(front.desk, request))
    told: dict[str, Any] = {"object": "sophia.route", "requested_model": request.model}
    told |= explain(decision.plan, _classes(front))
    if decision.warning is not None:
        told["warning"] = decision.warning
    await reply.whole(200, JSON, encode(told))


async def decision(front: Front, incoming: Incoming, reply: Reply) -> None:
    """Answer `GET /v1/decisions/{id}`: the explanation again, with what became of it."""
    row = await _own_decision(front, incoming, incoming.path.rpartition("/")[2])
    store, number = front.desk.books.store, row.attempt_id
    made = await store.attempts(number)
    told: dict[str, Any] = {"object": "sophia.decision", "id": encode_id("dec", number)}
    told |= explain(_plan.decode(row.plan or b""), _classes(front))
    answered = served(made)
    told["served_by"] = answered.model if answered is not None else None
    told["attempts_made"] = [_attempt(one) for one in made]
    told["feedback"] = [
        {"score": one.score, "label": one.label, "channel": one.channel, "at_ms": one.at_ms}
        for one in await store.feedback(number)
    ]
    await reply.whole(200, JSON, encode(told))


async def feedback(front: Front, incoming: Incoming, reply: Reply) -> None:
    """Answer `POST /v1/feedback`: keep a verdict on a decision; repeats change nothing."""
    await front.principal(incoming)
    body = decode.decoded(_feedback, incoming.body)
    judged = (body.score, body.thumbs, body.label)
    if all(one is None for one in judged) and not body.preferred_model:
        raise BadRequest("Say something: `score` 0 to 1, `thumbs`, `label` or `preferred_model`.")
    row = await _own_decision(front, incoming, body.decision_id)
    now = int(front.desk.books.clock.wall() * 1000)
    score = body.score
    if score is None and body.thumbs is not None:
        score = 1.0 if body.thumbs == "up" else 0.0
    channel = body.channel or ("thumb" if body.score is None and body.thumbs else "score")
    given = body.idempotency_key or f"{body.decision_id}:{channel}"
    verdict = Feedback(
        f"{row.key_id}:{given}",
        row.attempt_id,
        row.key_id,
        score,
        body.label,
        len(body.comment or ""),
        body.preferred_model,
        channel,
        now,
    )
    fresh = await front.desk.books.store.add_feedback(verdict)
    if fresh and score is not None:
        made = await front.desk.books.store.attempts(row.attempt_id)
        answered = served(made)
        answered_by = answered.model if answered is not None else row.model
        front.scored(answered_by, score)
        if front.desk.insight is not None:
            front.desk.insight.heard = True
        if front.teacher is not None:
            await front.teacher.hear(row, verdict, answered_by)
    told = {"object": "sophia.feedback", "decision_id": body.decision_id, "stored": fresh}
    await reply.whole(200, JSON, encode(told))


def _classes(front: Front) -> Sequence[str]:
    insight = front.desk.insight
    return () if insight is None else insight.classes


async def _own_decision(front: Front, incoming: Incoming, id: str) -> Intent:
    principal = await front.principal(incoming)
    number = decode_id("dec", id)
    row = await front.desk.books.store.decision(number) if number is not None else None
    # Another key's decision does not exist for this one.
    if row is None or row.plan is None or row.key_id != principal.key_id:
        raise NotFound(f"There is no decision {id[:100]!r} of this key.")
    return row


def _attempt(outcome: Outcome) -> dict[str, object]:
    return {
        "model": outcome.model,
        "state": outcome.state,
        "failure": outcome.failure,
        "finish_reason": outcome.finish_reason,
        "provider": outcome.provider,
        "cost_usd": usd(outcome.cost_nano),
        "cost_source": outcome.cost_source,
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "first_content_ms": outcome.first_content_ms,
        "total_ms": outcome.total_ms,
    }
