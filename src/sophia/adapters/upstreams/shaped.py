"""Recognise a whole answer that is in OpenRouter's shape already, so that its bytes can pass.

The types below demand every field that some client cannot do without; an answer that lacks one,
or has a field that must be tidied, is not recognised and takes the long way (see `whole.py`).
"""

from typing import Annotated, Literal

from msgspec import UNSET, DecodeError, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder

from sophia.adapters.upstreams.shapes import nano
from sophia.core.calls import Piece, Usage

_MOST_TOKENS = 10**9
Count = Annotated[int, Meta(ge=0, lt=_MOST_TOKENS)]


class _PromptDetails(Struct):
    cached_tokens: Count | None = None


class _CompletionDetails(Struct):
    reasoning_tokens: Count | None = None


class _Usage(Struct):
    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    cost: float
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Message(Struct):
    role: Literal["assistant"]
    content: str
    reasoning: str | None = None
    tool_calls: UnsetType | None = UNSET
    reasoning_content: UnsetType = UNSET
    reasoning_details: UnsetType = UNSET


class _Choice(Struct):
    index: int
    message: _Message
    finish_reason: Literal["stop", "length", "content_filter"]
    native_finish_reason: str | None
    logprobs: UnsetType | Raw | None
    error: UnsetType | None = UNSET


class _Answer(Struct):
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


def recognise(body: bytes) -> Piece | None:
    """Return the answer as it came, or None when it needs tidying or is none."""
    if not body.endswith(b"}"):
        return None
    try:
        answer = _decode(body)
    except (DecodeError, RecursionError, UnicodeDecodeError):
        return None
    used = answer.usage
    cost = nano(used.cost)
    if cost is None or used.total_tokens != used.prompt_tokens + used.completion_tokens:
        return None
    chars = 0
    for choice in answer.choices:
        message = choice.message
        chars += len(message.content) + len(message.reasoning or "")
    cached, thought = used.prompt_tokens_details, used.completion_tokens_details
    usage = Usage(
        used.prompt_tokens,
        used.completion_tokens,
        (cached.cached_tokens or 0) if cached is not None else 0,
        (thought.reasoning_tokens or 0) if thought is not None else 0,
        cost,
    )
    return Piece(
        [body],
        chars > 0,
        answer.choices[-1].finish_reason,
        usage,
        answer.model,
        answer.provider,
        answer.id,
        answer.created,
        chars,
    )
