"""The shape of whole answers and chunks that every client accepts."""

from typing import Any

REASONS = {"stop", "length", "tool_calls", "content_filter", "error"}
REASONING = {
    "reasoning.text",
    "reasoning.summary",
    "reasoning.encrypted",
    "reasoning.server_tool_call",
}


def check_head(body: dict[str, Any], kind: str) -> None:
    """Fields that stand at the top of whole answers and chunks alike."""
    assert isinstance(body["id"], str)
    assert body["object"] == kind
    assert type(body["created"]) is int
    assert isinstance(body["model"], str) and body["model"]
    assert isinstance(body["provider"], str)


def check_whole(body: dict[str, Any], *, chat: bool = True) -> None:
    """A whole answer."""
    check_head(body, "chat.completion" if chat else "text_completion")
    assert body["system_fingerprint"] is None or isinstance(body["system_fingerprint"], str)
    assert isinstance(body["choices"], list)
    for position, choice in enumerate(body["choices"]):
        assert choice["index"] == position
        assert choice["finish_reason"] in REASONS
        assert "native_finish_reason" in choice and "logprobs" in choice
        if chat:
            assert choice["message"]["role"] == "assistant"
            assert "content" in choice["message"]
            _check_details(choice["message"])
        else:
            assert isinstance(choice["text"], str)
    check_usage(body["usage"])


def check_usage(usage: dict[str, Any]) -> None:
    """Token counts add up, and the cost is there."""
    counts = usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]
    assert all(type(count) is int and count >= 0 for count in counts)
    assert counts[0] + counts[1] == counts[2]
    assert isinstance(usage["cost"], int | float) and usage["cost"] >= 0


def check_chunk(chunk: dict[str, Any], *, chat: bool = True) -> None:
    """Any chunk of a stream."""
    check_head(chunk, "chat.completion.chunk" if chat else "text_completion")
    assert chunk.get("system_fingerprint", "") is not None
    for choice in chunk["choices"]:
        assert type(choice["index"]) is int
        assert choice["finish_reason"] is None or choice["finish_reason"] in REASONS
        if not chat:
            assert isinstance(choice["text"], str)
            continue
        assert isinstance(choice["delta"], dict)
        _check_details(choice["delta"])
        for call in choice["delta"].get("tool_calls") or ():
            assert type(call["index"]) is int


def check_stream(chunks: list[dict[str, Any]], *, chat: bool = True, usage: bool = True) -> None:
    """All chunks of a stream that ended well."""
    for chunk in chunks:
        check_chunk(chunk, chat=chat)
        assert "error" not in chunk
    for name in ("id", "model", "created", "provider"):
        assert len({chunk[name] for chunk in chunks}) == 1, name
    roles: set[int] = set()
    for chunk in chunks:
        for choice in chunk["choices"]:
            if chat and choice["index"] not in roles:
                assert choice["delta"]["role"] == "assistant"
                roles.add(choice["index"])
    ends = [c["index"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert ends and len(ends) == len(set(ends))
    if usage:
        assert all(not choice["finish_reason"] for choice in chunks[-1]["choices"])
        check_usage(chunks[-1]["usage"])
        assert all("usage" not in chunk for chunk in chunks[:-1])


def _check_details(message: dict[str, Any]) -> None:
    for detail in message.get("reasoning_details") or ():
        assert detail["type"] in REASONING


MODEL_FIELDS = {
    "id",
    "canonical_slug",
    "name",
    "created",
    "pricing",
    "context_length",
    "architecture",
    "top_provider",
    "per_request_limits",
    "supported_parameters",
    "default_parameters",
    "supported_voices",
    "links",
}
"""Fields of a model in OpenRouter's listing."""
