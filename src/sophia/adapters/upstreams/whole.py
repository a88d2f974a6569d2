"""Whole answers from an upstream, normalised to OpenRouter's shape."""

from typing import Any

from sophia.adapters.upstreams import shapes
from sophia.adapters.upstreams.conforming import parse_passthrough_answer
from sophia.adapters.upstreams.errors import find_error, parse_failure
from sophia.adapters.upstreams.finish_reasons import normalize_finish_reason, raise_choice_error
from sophia.adapters.upstreams.json_text import (
    MAX_PARTS,
    check_parts,
    decode_object,
    encode_repaired,
)
from sophia.adapters.upstreams.tool_calls import repair_tool_calls
from sophia.core.calls import ChunkBatch, UpstreamCall
from sophia.core.failures import FailureKind, UpstreamFailure


def parse_whole_answer(body: bytes, call: UpstreamCall, provider: str, now: int) -> ChunkBatch:
    """Return the answer in `body` as a single chunk; `now` is in Unix seconds.

    Raises UpstreamFailure: the body is an error, is not JSON, or has nothing of an answer in it.
    """
    # Vectors and log probabilities are many parts by nature.
    if len(body) > MAX_PARTS and call.endpoint != "embeddings" and "logprobs" not in call.fields:
        check_parts(body)
    if (
        call.endpoint == "chat/completions"
        and (batch := parse_passthrough_answer(body, call.choices)) is not None
    ):
        return batch
    answer = decode_object(body)
    try:
        if (error := find_error(answer)) is not None:
            raise parse_failure(error, FailureKind.IN_BAND)
        if call.endpoint == "embeddings":
            return _read_embeddings(answer, call, provider)
        return _read_choices(answer, call, provider, now)
    except UpstreamFailure as failure:
        failure.received = shapes.measure_failed(answer)
        raise


def _read_choices(
    answer: dict[str, Any], call: UpstreamCall, provider: str, now: int
) -> ChunkBatch:
    is_chat = call.endpoint == "chat/completions"
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        raise UpstreamFailure(FailureKind.MALFORMED, "the answer has no choices")
    shapes.check_choice_count(len(choices), call.choices)
    has_content, size = False, 0
    for position, choice in enumerate(choices):
        if not isinstance(choice, dict):
            raise UpstreamFailure(FailureKind.MALFORMED, "a choice of the answer is no object")
        carries, length = _normalise_choice(choice, position, call, is_chat=is_chat)
        has_content, size = has_content or carries, size + length
    if type(answer.get("id")) is not str:
        answer["id"] = call.request_id
    created = shapes.parse_created(answer.get("created"))
    answer["created"] = now if created is None else created
    _fill_names(answer, "chat.completion" if is_chat else "text_completion", call, provider)
    answer.setdefault("system_fingerprint", None)
    usage = shapes.parse_usage(answer.get("usage"))
    if usage is None:
        answer.pop("usage", None)
    return ChunkBatch(
        chunks=[encode_repaired(answer)],
        has_content=has_content,
        finish_reason=choices[-1]["finish_reason"],
        usage=usage,
        model=answer["model"],
        provider=answer["provider"],
        id=answer["id"],
        created=answer["created"],
        text_bytes=size,
    )


def _normalise_choice(
    choice: dict[str, Any], position: int, call: UpstreamCall, *, is_chat: bool
) -> tuple[bool, int]:
    """Normalise a choice in place; return whether it has content, and its bytes of text."""
    if type(choice.get("index")) is not int:
        choice["index"] = position
    # A whole answer cannot be cut without a failure, so a missing reason means a plain stop.
    reason = normalize_finish_reason(choice) or "stop"
    raise_choice_error(choice)
    if is_chat:
        message = choice.get("message")
        if not isinstance(message, dict):
            raise UpstreamFailure(FailureKind.MALFORMED, "a choice has no message")
        if type(message.get("role")) is not str:
            message["role"] = "assistant"
        message.setdefault("content", None)
        shapes.repair_message(message)
        if message.get("tool_calls"):
            repair_tool_calls(message, call.request_id)
            reason = "tool_calls" if reason == "stop" else reason
        has_content, length = shapes.measure_content(message)
    else:
        value = choice.get("text")
        text = choice["text"] = value if isinstance(value, str) else ""
        has_content, length = bool(text), shapes.count_bytes(text)
    choice["finish_reason"] = reason
    choice.setdefault("logprobs", None)
    choice.setdefault("native_finish_reason", choice["finish_reason"])
    return has_content, length


def _fill_names(answer: dict[str, Any], kind: str, call: UpstreamCall, provider: str) -> None:
    answer["object"] = kind
    for name, default in (("model", call.model), ("provider", provider)):
        if type(answer.get(name)) is not str:
            answer[name] = default


def _read_embeddings(answer: dict[str, Any], call: UpstreamCall, provider: str) -> ChunkBatch:
    data = answer.get("data")
    if not isinstance(data, list):
        raise UpstreamFailure(FailureKind.MALFORMED, "the answer has no data")
    count = len([one for one in data if isinstance(one, dict) and one.get("embedding")])
    if count < call.choices:
        raise UpstreamFailure(
            FailureKind.MALFORMED, f"the answer has {count} vectors and not {call.choices}"
        )
    _fill_names(answer, "list", call, provider)
    reported = answer.get("usage")
    if isinstance(reported, dict):
        reported.setdefault("completion_tokens", 0)
    usage = shapes.parse_usage(reported)
    if usage is not None and not (usage.prompt_tokens or usage.cost_nano):
        # It counts nothing, as no call does.
        usage = None
    return ChunkBatch(
        chunks=[encode_repaired(answer)],
        has_content=True,
        finish_reason="stop",
        usage=usage,
        model=answer["model"],
        provider=answer["provider"],
        id=answer.get("id") if isinstance(answer.get("id"), str) else None,
    )


def to_stream_chunk(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a whole answer as the only chunk of a stream, for a server that does not stream."""
    for choice in answer["choices"]:
        if (message := choice.pop("message", None)) is not None:
            choice["delta"] = message
    if answer["object"] == "chat.completion":
        answer["object"] = "chat.completion.chunk"
        for choice in answer["choices"]:
            for number, call in enumerate(choice["delta"].get("tool_calls") or ()):
                call["index"] = number
    answer.pop("usage", None)
    return answer
