"""A whole answer from an upstream, brought into shape as one piece."""

from typing import Any

from sophia.adapters.upstreams import shapes
from sophia.adapters.upstreams.shaped import recognise
from sophia.core.calls import Call, Piece
from sophia.core.failures import FailureKind, UpstreamFailure


def read_answer(body: bytes, call: Call, provider: str, now: int) -> Piece:
    """Return the answer in `body` as a single-chunk piece; `now` is in Unix seconds.

    Raises:
        UpstreamFailure: the body is an error, no JSON, or has nothing of an answer in it.
    """
    if call.endpoint == "chat/completions" and (piece := recognise(body)) is not None:
        return piece
    answer = shapes.read(body.lstrip())
    data = answer.get("data")
    choices = answer.get("choices")
    if answer.get("error") is not None:
        raise shapes.failure(answer["error"], FailureKind.IN_BAND)
    if not isinstance(data if call.endpoint == "embeddings" else choices, list):
        raise UpstreamFailure(FailureKind.MALFORMED, "the answer has no choices")
    if call.endpoint == "embeddings":
        return _embeddings(answer, call, provider)
    if not choices:
        raise UpstreamFailure(FailureKind.MALFORMED, "the answer has no choices")
    return _choices(answer, call, provider, now)


def _message(message: Any) -> dict[str, Any]:
    """Return a message with all it must have. Raises UpstreamFailure when it is none."""
    if not isinstance(message, dict):
        raise UpstreamFailure(FailureKind.MALFORMED, "a choice has no message")
    if type(message.get("role")) is not str:
        message["role"] = "assistant"
    message.setdefault("content", None)
    shapes.tidy_message(message)
    return message


def _choices(answer: dict[str, Any], call: Call, provider: str, now: int) -> Piece:
    content = False
    finished: str | None = None
    chars = 0
    key = "message" if call.endpoint == "chat/completions" else "text"
    for position, choice in enumerate(answer["choices"]):
        if not isinstance(choice, dict):
            raise UpstreamFailure(FailureKind.MALFORMED, "a choice of the answer is no object")
        if type(choice.get("index")) is not int:
            choice["index"] = position
        if choice.get("finish_reason") == "error" or choice.get("error") is not None:
            error = choice.get("error") or "the provider stopped with an error"
            raise shapes.failure(error, FailureKind.IN_BAND)
        value = choice.get(key)
        if key == "message":
            message = _message(value)
            content = shapes.has_content(message) or content
            chars += shapes.text_length(message)
        else:
            text = choice["text"] = value if isinstance(value, str) else ""
            content = bool(text) or content
            chars += len(text)
        # A whole answer cannot be cut without us noticing, so a missing reason means a plain stop.
        finished = shapes.finish(choice) or "stop"
        choice["finish_reason"] = finished
        choice.setdefault("logprobs", None)
        choice.setdefault("native_finish_reason", finished)
    _head(answer, call, provider, now)
    usage = shapes.usage(answer.get("usage"))
    if usage is None:
        answer.pop("usage", None)
    return Piece(
        chunks=[shapes.encode(answer)],
        content=content,
        finish_reason=finished,
        usage=usage,
        model=answer["model"],
        provider=answer["provider"],
        id=answer["id"],
        created=answer["created"],
        text_chars=chars,
    )


def _head(answer: dict[str, Any], call: Call, provider: str, now: int) -> None:
    if type(answer.get("id")) is not str:
        answer["id"] = call.request_id
    created = answer.get("created")
    if type(created) is not int:
        answer["created"] = int(created) if isinstance(created, float) else now
    chat = call.endpoint == "chat/completions"
    answer["object"] = "chat.completion" if chat else "text_completion"
    if type(answer.get("model")) is not str:
        answer["model"] = call.model
    if type(answer.get("provider")) is not str:
        answer["provider"] = provider
    answer.setdefault("system_fingerprint", None)


def _embeddings(answer: dict[str, Any], call: Call, provider: str) -> Piece:
    answer["object"] = "list"
    if type(answer.get("model")) is not str:
        answer["model"] = call.model
    if type(answer.get("provider")) is not str:
        answer["provider"] = provider
    reported = answer.get("usage")
    if isinstance(reported, dict):
        reported.setdefault("completion_tokens", 0)
    usage = shapes.usage(reported)
    return Piece(
        chunks=[shapes.encode(answer)],
        content=bool(answer["data"]),
        finish_reason="stop",
        usage=usage,
        model=answer["model"],
        provider=answer["provider"],
        id=answer.get("id") if isinstance(answer.get("id"), str) else None,
    )
