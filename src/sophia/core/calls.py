"""Calls to an upstream and their answers: the types between serving and the adapters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

Endpoint = Literal["chat/completions", "completions", "embeddings"]
Fields = Mapping[str, object]
"""Top-level JSON fields by name; a value is raw JSON from the client's body, or a plain value."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Time limits of one attempt, in seconds.

    `content` runs from dispatch to the first content-bearing delta and ignores comments; `stall`
    runs between content-bearing deltas; `total` spans the attempt.
    """

    connect: float = 2.0
    content: float = 60.0
    stall: float = 30.0
    total: float = 600.0


class PriceCeiling(Struct, frozen=True, gc=False):
    """Highest price that a provider may charge, in nano-dollars per million tokens."""

    prompt: int
    completion: int


class UpstreamCall(Struct, frozen=True, kw_only=True):
    """A call to an upstream: the client's own fields plus the few that Sophia decides.

    `fields` holds the client's top-level JSON fields untouched, without `model`, `stream` and
    Sophia's own hints. `max_tokens` is set when a budget or the model's own limit bounds the
    answer; `choices` is the number of requested answers or vectors. `may_repeat` counts one more
    dispatch of the request, and returns whether it is allowed.
    """

    request_id: str
    endpoint: Endpoint
    model: str
    fields: Fields
    stream: bool
    deadlines: Deadlines
    max_tokens: int | None = None
    max_tokens_field: str = "max_tokens"
    price_ceiling: PriceCeiling | None = None
    choices: int = 1
    may_repeat: Callable[[], bool] = lambda: False


class Usage(Struct, frozen=True, kw_only=True, gc=False):
    """Tokens of one attempt and, where the upstream reports it, the cost in nano-dollars."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nano: int | None = None
    raw: bytes = b"{}"


class ChunkBatch(Struct, kw_only=True):
    """Chunks of one read from the upstream, in OpenRouter's shape, ready for the client.

    `chunks` are JSON objects without SSE framing; a whole answer is a single chunk. The usage
    chunk, `[DONE]` and comments are never among them. `uncovered_bytes` counts the part of
    `text_bytes` that came after `usage`.
    """

    chunks: list[bytes]
    has_content: bool = False
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str | None = None
    provider: str | None = None
    id: str | None = None
    created: int | None = None
    text_bytes: int = 0
    uncovered_bytes: int = 0
