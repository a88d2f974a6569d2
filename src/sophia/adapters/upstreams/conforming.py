"""The fast path of whole answers: bytes that are in OpenRouter's shape already stay as they are.

The types below demand every field that some client requires; an answer that lacks one, or has a
field that must be normalised, takes the slow path in `whole.py`.
"""

from typing import Annotated, Literal

from msgspec import UNSET, DecodeError, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder

from sophia.adapters.upstreams.shapes import check_choice_count, count_bytes, parse_cost
from sophia.core.calls import ChunkBatch, Usage

TokenCount = Annotated[int, Meta(ge=0, lt=10**9)]


class _TokenDetails(Struct):
    cached_tokens: TokenCount | None = None
    reasoning_tokens: TokenCount | None = None
    cache_write_tokens: TokenCount | None = None


class _Usage(Struct, kw_only=True):
    prompt_tokens: TokenCount
    completion_tokens: TokenCount
    total_tokens: TokenCount
    cost: float
    is_byok: bool | None = None
    prompt_tokens_details: _TokenDetails | None = None
    completion_tokens_details: _TokenDetails | None = None


class _Message(Struct, kw_only=True):
    role: Literal["assistant"]
    content: str
    reasoning: str | None = None
    tool_calls: UnsetType | None = UNSET
    function_call: UnsetType | None = UNSET
    refusal: UnsetType | None = UNSET
    images: UnsetType | None = UNSET
    audio: UnsetType | None = UNSET
    reasoning_content: UnsetType = UNSET
    reasoning_details: UnsetType = UNSET


class _Choice(Struct, kw_only=True):
    index: int
    message: _Message
    finish_reason: Literal["stop", "length", "content_filter"]
    native_finish_reason: str | None
    logprobs: UnsetType | Raw | None
    error: UnsetType | None = UNSET


class _Answer(Struct, kw_only=True):
    id: str
    created: int
    model: str
    provider: str
    object: Literal["chat.completion"]
    system_fingerprint: str | None
    choices: Annotated[list[_Choice], Meta(min_length=1)]
    usage: _Usage
    error: UnsetType = UNSET


_decode = Decoder(_Answer).decode


def parse_passthrough_answer(body: bytes, requested: int) -> ChunkBatch | None:
    """Return the answer with its bytes unchanged, or None if they cannot stay as they are.

    `requested` is the number of choices. Raises UpstreamFailure for many more.
    """
    if not body.endswith(b"}"):
        return None
    try:
        answer = _decode(body)
        if not body.isascii():
            # The decoder does not look into fields that the types leave out.
            body.decode()
    except (DecodeError, RecursionError, UnicodeDecodeError):
        return None
    check_choice_count(len(answer.choices), requested)
    usage = answer.usage
    cost = parse_cost(usage.cost)
    if cost is None or usage.total_tokens != usage.prompt_tokens + usage.completion_tokens:
        return None
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    reasoning = (completion.reasoning_tokens or 0) if completion is not None else 0
    if usage.is_byok or reasoning > usage.completion_tokens:
        return None
    size = 0
    for choice in answer.choices:
        message = choice.message
        size += count_bytes(message.content) + count_bytes(message.reasoning or "")
    return ChunkBatch(
        chunks=[body],
        has_content=size > 0,
        finish_reason=answer.choices[-1].finish_reason,
        usage=Usage(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=(prompt.cached_tokens or 0) if prompt is not None else 0,
            cache_write_tokens=(prompt.cache_write_tokens or 0) if prompt is not None else 0,
            reasoning_tokens=reasoning,
            cost_nano=cost,
        ),
        model=answer.model,
        provider=answer.provider,
        id=answer.id,
        created=answer.created,
        text_bytes=size,
    )
