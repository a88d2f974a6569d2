"""Write answers: whole bodies, stream chunks, the closing usage chunk and in-band errors."""

from typing import Any

import msgspec

from sophia.core.errors import AllAttemptsFailed
from sophia.core.failures import UpstreamFailure
from sophia.core.ids import encode as encode_id
from sophia.core.money import usd
from sophia.core.rows import Outcome
from sophia.http.errors import error_object
from sophia.http.wire import line
from sophia.routing.nouns import Candidate
from sophia.serving.answer import Answer

encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"


def headers(answer: Answer, outcome: Outcome | None) -> bytes:
    """Return the `x-sophia-*` header lines; the cost stands there once it is known."""
    record = answer.record
    plan = record.decision.plan
    lines = b"x-request-id: req-%016x\r\nx-sophia-decision-id: dec-%016x\r\n" % (
        record.request.id,
        record.request.id,
    )
    lines += b"x-sophia-model: %b\r\nx-sophia-policy: %b\r\nx-sophia-attempts: %d\r\n" % (
        answer.model.encode("ascii", "replace"),
        (plan.rule or plan.policy).encode("ascii", "replace"),
        len(record.outcomes) + (outcome is None),
    )
    if outcome is not None:
        lines += b"x-sophia-cost-usd: %.9f\r\n" % usd(record.cost_nano)
    if record.decision.warning is not None:
        lines += line(b"x-sophia-warning", record.decision.warning)
    return lines


def whole(answer: Answer, body: bytes, outcome: Outcome) -> bytes:
    """Return a whole answer with its cost and, unless opted out, Sophia's account of it."""
    if outcome.cost_source != "upstream" and b'"usage"' in body:
        read: dict[str, Any] = msgspec.json.decode(body)
        read["usage"] = {**(read.get("usage") or {}), **_usage(outcome)}
        body = encode(read)
    elif b'"usage"' not in body:
        body = body[:-1] + b',"usage":' + encode(_usage(outcome)) + b"}"
    if not answer.record.request.annotate:
        return body
    return body[:-1] + b',"sophia":' + encode(account(answer, outcome)) + b"}"


class Account(msgspec.Struct, omit_defaults=True):
    """The `sophia` object of an answer: which model, why, and for how much, all attempts together.

    `saved_usd` compares with the best candidate by expected quality at the same tokens.
    """

    decision_id: str
    model: str
    policy: str
    reason: str
    cost_usd: float
    attempts: int
    saved_usd: float | None = None
    warning: str | None = None


def account(answer: Answer, outcome: Outcome) -> Account:
    """Return Sophia's account of an answer."""
    record = answer.record
    plan = record.decision.plan
    saved = None
    if plan.candidates:
        best = max(plan.candidates, key=_standing)
        model = record.knowledge.find(best.model)
        if model is not None:
            there = model.prices.cost(outcome.prompt_tokens, outcome.completion_tokens)
            saved = usd(max(there - record.cost_nano, 0))
    return Account(
        encode_id("dec", record.request.id),
        outcome.model,
        plan.rule or plan.policy,
        _reason(answer),
        usd(record.cost_nano),
        len(record.outcomes),
        saved,
        record.decision.warning,
    )


def _standing(candidate: Candidate) -> tuple[float, int]:
    return candidate.quality, -candidate.expected_nano


def _reason(answer: Answer) -> str:
    record = answer.record
    return record.decision.plan.reason if len(record.outcomes) <= 1 else answer.attempt.reason


def _usage(outcome: Outcome) -> dict[str, object]:
    return {
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "total_tokens": outcome.prompt_tokens + outcome.completion_tokens,
        "cost": usd(outcome.cost_nano),
    }


class ChunkHead:
    """What every chunk of a stream repeats; taken from the chunks that pass."""

    __slots__ = ("created", "id", "model", "object", "provider")

    def __init__(self, answer: Answer) -> None:
        request = answer.record.request
        chat = request.endpoint == "chat/completions"
        self.id = encode_id("req", request.id)
        self.object = "chat.completion.chunk" if chat else "text_completion"
        self.created = int(answer.record.desk.books.clock.wall())
        self.model = answer.model
        self.provider: str | None = None

    def fields(self) -> dict[str, object]:
        """Return the repeated fields."""
        return {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "provider": self.provider or "Sophia",
        }


def closing(answer: Answer, head: ChunkHead, outcome: Outcome) -> bytes:
    """Return the last events of a complete stream: usage with its cost, and `[DONE]`."""
    usage: object = _usage(outcome)
    reported = answer.usage
    if reported is not None and reported.raw != b"{}":
        usage = msgspec.Raw(reported.raw)
        if reported.cost_nano is None:
            usage = {**msgspec.json.decode(reported.raw), **_usage(outcome)}
    chunk = {**head.fields(), "choices": [], "usage": usage}
    if answer.record.request.annotate:
        chunk["sophia"] = account(answer, outcome)
    if not answer.record.request.include_usage:
        return DONE
    return b"data: %b\n\n" % encode(chunk) + DONE


def broken(answer: Answer, head: ChunkHead, failure: UpstreamFailure) -> bytes:
    """Return the event that ends a stream which broke off; no `[DONE]` follows it."""
    request_id = encode_id("req", answer.record.request.id)
    error = AllAttemptsFailed(
        f"{answer.model} broke off in mid-answer: {failure.message} "
        "What came until then is incomplete.",
        details={
            "cause": str(failure.kind),
            "model": answer.model,
            "decision_id": encode_id("dec", answer.record.request.id),
        },
    )
    error.error_type = failure.error_type or "provider_unavailable"
    chat = head.object == "chat.completion.chunk"
    carried = {"delta": {"content": ""}} if chat else {"text": "", "logprobs": None}
    choice = {"index": 0, **carried, "finish_reason": "error"}
    chunk = {**head.fields(), "choices": [choice], "error": error_object(error, request_id)}
    return b"data: %b\n\n" % encode(chunk)
