"""Render answers: headers, whole bodies, the end of a stream and in-band errors."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from sophia.core.calls import ChunkBatch, Endpoint
from sophia.core.errors import AllAttemptsFailed, SophiaError, Unavailable
from sophia.core.failures import UpstreamFailure
from sophia.core.ids import encode_id
from sophia.core.money import nano_to_usd
from sophia.core.rows import CHECK_FAILED_PREFIX, AttemptOutcome
from sophia.http.errors import build_error_object
from sophia.http.wire import encode, render_header
from sophia.serving.attempts.answer import Answer

_DONE_EVENT = b"data: [DONE]\n\n"
_render_known = lru_cache(1024)(render_header)


def render_headers(answer: Answer, outcome: AttemptOutcome | None) -> bytes:
    """Return the `x-sophia-*` header lines; the cost only with an `outcome`."""
    record, id = answer.record, answer.record.request.id
    plan = record.decision.plan
    lines = b"x-request-id: req-%016x\r\nx-sophia-decision-id: dec-%016x\r\n" % (id, id)
    attempt = answer.attempt
    lines += _render_known(b"x-sophia-model", attempt.model)
    lines += _render_known(b"x-sophia-policy", plan.rule or plan.policy)
    lines += b"x-sophia-attempts: %d\r\n" % (len(record.outcomes) + (outcome is None))
    if outcome is not None:
        lines += b"x-sophia-cost-usd: %.9f\r\n" % nano_to_usd(record.cost_nano)
    if attempt.max_tokens is not None:
        lines += b"x-sophia-max-tokens: %d\r\n" % attempt.max_tokens
    if record.decision.warning is not None:
        lines += render_header(b"x-sophia-warning", record.decision.warning)
    return lines


def render_answer(answer: Answer, body: bytes, outcome: AttemptOutcome) -> bytes:
    """Return a whole answer with its cost and, unless opted out, the `sophia` object."""
    if outcome.cost_source != "upstream" and b'"usage"' in body:
        decoded: dict[str, Any] = msgspec.json.decode(body)
        decoded["usage"] = {**(decoded.get("usage") or {}), **_build_usage(outcome)}
        body = encode(decoded)
    elif b'"usage"' not in body:
        body = body[:-1] + b',"usage":' + encode(_build_usage(outcome)) + b"}"
    if not answer.record.request.annotate:
        return body
    return body[:-1] + b',"sophia":' + encode(_build_annotation(answer, outcome)) + b"}"


def render_stream_end(answer: Answer, last: ChunkBatch, outcome: AttemptOutcome) -> bytes:
    """Return the last events of a complete stream: usage with its cost, and `[DONE]`.

    `last` is the last batch that names its id and model, here and below.
    """
    request = answer.record.request
    if request.include_usage is False and not answer.left_out_events:
        return _DONE_EVENT
    usage: object = _build_usage(outcome)
    reported = answer.usage
    if answer.record.continued:
        usage = _sum_usage(answer.record.outcomes)
    elif reported is not None and reported.raw != b"{}":
        usage = msgspec.Raw(reported.raw)
        if outcome.cost_source != "upstream":
            usage = {**msgspec.json.decode(reported.raw), **_build_usage(outcome)}
    # OpenAI sends a chunk without choices only to who asked for the usage; the loops of all others
    # read the first choice of every chunk.
    choices = [] if request.include_usage else [_build_choice(request.endpoint, None)]
    chunk = {**_build_envelope(answer, last), "choices": choices, "usage": usage}
    if request.annotate:
        chunk["sophia"] = _build_annotation(answer, outcome)
    elif answer.left_out_events:
        chunk["sophia"] = _describe_gap(answer)
    return b"data: %b\n\n" % encode(chunk) + _DONE_EVENT


def render_stream_error(answer: Answer, last: ChunkBatch, failure: UpstreamFailure) -> bytes:
    """Return the event that ends an interrupted stream; no `[DONE]` follows it."""
    error = AllAttemptsFailed(
        f"{answer.model} broke off during the answer: {failure.message.rstrip('.')}. "
        "The text received so far is incomplete.",
        details=_describe_break(answer, str(failure.kind)),
    )
    error.error_type = failure.error_type or "provider_unavailable"
    return _render_error_chunk(answer, last, error)


def render_stream_interruption(answer: Answer, last: ChunkBatch) -> bytes:
    """Return the event that ends a stream because Sophia stops; no `[DONE]` follows it."""
    error = Unavailable(
        "Sophia is shutting down. The text received so far is incomplete.",
        details=_describe_break(answer, "shutdown"),
    )
    return _render_error_chunk(answer, last, error)


def _describe_break(answer: Answer, cause: str) -> dict[str, object]:
    decision = encode_id("dec", answer.record.request.id)
    return {"cause": cause, "model": answer.model, "decision_id": decision}


def _render_error_chunk(answer: Answer, last: ChunkBatch, error: SophiaError) -> bytes:
    request = answer.record.request
    chunk = {
        **_build_envelope(answer, last),
        "choices": [_build_choice(request.endpoint, "error")],
        "error": build_error_object(error, encode_id("req", request.id)),
    }
    return b"data: %b\n\n" % encode(chunk)


def _build_choice(endpoint: Endpoint, finish_reason: str | None) -> dict[str, object]:
    """Return a choice of a chunk that adds no text."""
    chat = endpoint == "chat/completions"
    content = {"delta": {"content": ""}} if chat else {"text": ""}
    return {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}


def _build_envelope(answer: Answer, last: ChunkBatch) -> dict[str, object]:
    """Return the fields that every chunk of a stream repeats."""
    request = answer.record.request
    chat = request.endpoint == "chat/completions"
    return {
        "id": last.id or encode_id("req", request.id),
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": last.created or int(answer.record.dependencies.ledger.clock.wall()),
        "model": last.model or answer.model,
        "provider": last.provider or "Sophia",
    }


def _build_annotation(answer: Answer, outcome: AttemptOutcome) -> dict[str, object]:
    """Return the `sophia` object: the model, the reason, and the cost of all attempts."""
    record = answer.record
    plan = record.decision.plan
    annotation: dict[str, object] = {
        "decision_id": encode_id("dec", record.request.id),
        "model": outcome.model,
        "policy": plan.rule or plan.policy,
        "reason": _explain_failover(answer),
        "cost_usd": nano_to_usd(record.cost_nano),
        "attempts": len(record.outcomes),
    }
    if record.continued:
        annotation["continued"] = [
            {"model": model, "after_characters": count} for model, count in record.continued
        ]
    if record.adapted:
        annotation["adapted"] = record.adapted
    if record.request.stream and answer.left_out_events:
        annotation |= _describe_gap(answer)
    if answer.attempt.max_tokens is not None:
        annotation["max_tokens"] = answer.attempt.max_tokens
    if plan.candidates:
        # Compared with the candidate of the highest expected quality at the same tokens.
        best = max(plan.candidates, key=lambda each: (each.quality, -each.expected_nano))
        model = record.knowledge.find(best.model)
        if model is not None:
            best_cost = model.prices.cost(outcome.prompt_tokens, outcome.completion_tokens)
            annotation["saved_usd"] = nano_to_usd(max(best_cost - record.cost_nano, 0))
    if record.decision.warning is not None:
        warnings = record.decision.warning, annotation.get("warning")
        annotation["warning"] = " ".join(str(each) for each in warnings if each)
    return annotation


def _describe_gap(answer: Answer) -> dict[str, object]:
    """Return the note on malformed events, which no setting of the caller leaves out."""
    warning = "A malformed part of the stream was left out: text may be missing."
    return {"left_out_events": answer.left_out_events, "warning": warning}


def _explain_failover(answer: Answer) -> str:
    """Return why this attempt was made, and the models that failed or were ejected before it."""
    record, plan = answer.record, answer.record.decision.plan
    is_planned = not record.ejected or answer.model == plan.attempts[0].model
    if len(record.outcomes) <= 1 and is_planned:
        return plan.reason
    failed = [
        f"{outcome.model} ({outcome.failure})"
        for outcome in record.outcomes
        # A failed check of a cascade is in the attempt's own reason.
        if outcome.failure and not outcome.failure.startswith(CHECK_FAILED_PREFIX)
    ]
    reasons = [answer.attempt.reason, *record.ejected]
    if failed:
        reasons.append(f"Failed before: {', '.join(failed)}.")
    return " ".join(reasons)


def _sum_usage(outcomes: Sequence[AttemptOutcome]) -> dict[str, object]:
    """Return the usage of an answer that several calls gave."""
    prompt = sum(outcome.prompt_tokens for outcome in outcomes)
    completion = sum(outcome.completion_tokens for outcome in outcomes)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "cost": nano_to_usd(sum(outcome.cost_nano for outcome in outcomes)),
    }


def _build_usage(outcome: AttemptOutcome) -> dict[str, object]:
    return {
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "total_tokens": outcome.prompt_tokens + outcome.completion_tokens,
        "cost": nano_to_usd(outcome.cost_nano),
    }
