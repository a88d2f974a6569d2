"""The fields of request bodies that Sophia reads; all others ride along untouched."""

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

Positive = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]


class Part(Struct):
    """One part of a message's content."""

    type: str = "text"
    text: str | None = None
    image_url: dict[str, Raw] | str | None = None
    input_audio: dict[str, Raw] | None = None
    file: dict[str, Raw] | None = None
    video_url: dict[str, Raw] | str | None = None


class Message(Struct):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[Raw] | None = None


class ResponseFormat(Struct):
    """What shape the answer must have."""

    type: str


class StreamOptions(Struct):
    """What a stream brings beside its text."""

    include_usage: bool | None = None


class SophiaHints(Struct, forbid_unknown_fields=True):
    """Sophia's own hints: the `sophia` object of a body, or `x-sophia-*` headers."""

    task_type: Literal["coding", "analysis", "creative", "general"] | None = None
    """What kind of work it is; estimated otherwise."""
    complexity: Share | None = None
    """How demanding it is; estimated otherwise."""
    max_latency_ms: Positive | None = None
    """How long the caller waits: for a stream's first content, else for the whole answer."""
    cost_sensitive: bool | None = None
    """Prefer the cheapest model of good quality."""
    dial: Annotated[float, Meta(ge=0, le=10)] | None = None
    """What quality is worth against money to the learned policy: 0 cheapest, 10 best."""
    min_quality: Share | None = None
    """Least expected quality."""
    max_cost_usd: Annotated[float, Meta(ge=0, le=1_000_000)] | None = None
    """Most that an attempt may cost, in US dollars."""
    models: Annotated[list[Name], Meta(max_length=64)] | None = None
    """The only models to choose from; comma-separated in a header."""
    session_id: Annotated[str, Meta(max_length=256)] | None = None
    """Names a conversation; leaving the model that it is on counts against the others."""
    explore: bool | None = None
    """Set to false to take what looks best, and never a model that only may be better."""
    cascade: Literal["off", "check", "strict"] | None = None
    """Check the answer and ask a better model when it fails: `check` does so for whole answers,
    `strict` holds streams back for it, too; `off` never."""
    webhook: Annotated[str, Meta(max_length=2048)] | None = None
    """URL that is asked whether an answer is good, one of those in `cascade.webhooks`."""
    annotate: bool | None = None
    """Set to false to leave the `sophia` object out of the answer."""


class Common(Struct):
    """Fields that every endpoint reads."""

    model: Name | None = None
    models: Annotated[list[Name], Meta(max_length=16)] | None = None
    stream: bool | None = None
    sophia: SophiaHints | None = None
    session_id: Annotated[str, Meta(max_length=256)] | None = None
    user: str | None = None


class ChatBody(Common, kw_only=True):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    tools: list[Raw] | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    reasoning: dict[str, Raw] | None = None
    reasoning_effort: str | None = None
    provider: dict[str, Raw] | None = None
    stream_options: StreamOptions | None = None


class CompletionBody(Common, kw_only=True):
    """The body of `POST /v1/completions`."""

    prompt: str | Annotated[list[str], Meta(min_length=1)]
    max_tokens: Positive | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    logprobs: int | None = None
    stream_options: StreamOptions | None = None


class EmbeddingBody(Common, kw_only=True):
    """The body of `POST /v1/embeddings`."""

    input: str | list[str | int | list[int]]
    dimensions: Positive | None = None
    encoding_format: Literal["float", "base64"] | None = None


class FeedbackBody(Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/feedback`: a verdict on one decision."""

    decision_id: Name
    score: Share | None = None
    thumbs: Literal["up", "down"] | None = None
    label: Annotated[str, Meta(max_length=64)] | None = None
    preferred_model: Name | None = None
    comment: Annotated[str, Meta(max_length=4000)] | None = None
    channel: Annotated[str, Meta(max_length=32)] | None = None
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
