"""The fields of request bodies that Sophia reads; all others pass through untouched."""

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

PositiveInt = Annotated[int, Meta(ge=1, le=2**31 - 1)]
UnitInterval = Annotated[float, Meta(ge=0, le=1)]
ShortName = Annotated[str, Meta(min_length=1, max_length=256)]
SessionId = Annotated[str, Meta(max_length=256)]
ChoiceCount = Annotated[int, Meta(ge=1, le=128)]
Temperature = Annotated[float, Meta(ge=0, le=2)]


class ContentPart(Struct, kw_only=True):
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
    content: str | list[ContentPart] | None = None
    tool_calls: list[Raw] | None = None


class ResponseFormat(Struct):
    """Required shape of the answer."""

    type: str


class StreamOptions(Struct):
    """Additional content of a stream."""

    include_usage: bool | None = None


class SophiaHints(Struct, forbid_unknown_fields=True, kw_only=True):
    """Sophia's own hints: the `sophia` object of a body, or `x-sophia-*` headers."""

    task_type: Literal["coding", "analysis", "creative", "general"] | None = None
    """Kind of work; estimated otherwise."""
    complexity: UnitInterval | None = None
    """How demanding the work is; estimated otherwise."""
    max_latency_ms: PositiveInt | None = None
    """Desired time to a stream's first content, or to a whole answer: models that usually begin
    later are left out, and faster ones preferred. A call that takes longer is not ended."""
    cost_sensitive: bool | None = None
    """Prefer the cheapest model of good quality."""
    quality_bias: Annotated[float, Meta(ge=0, le=10)] | None = None
    """Weight of quality against cost in the learned policy: 0 cheapest, 10 best."""
    min_quality: UnitInterval | None = None
    """Minimum expected quality, which the learned policy compares with its estimate less one
    standard deviation. If no model reaches it, the one that comes closest answers, with a
    warning."""
    strict: bool | None = None
    """Refuse the request instead, when no model is expected to reach `min_quality`."""
    max_cost_usd: Annotated[float, Meta(ge=0, le=1_000_000)] | None = None
    """Maximum cost of an attempt, in US dollars."""
    models: Annotated[list[ShortName], Meta(max_length=64)] | None = None
    """The only models to choose from; comma-separated in a header."""
    session_id: SessionId | None = None
    """Name of a conversation; a switch to another model counts against that model."""
    explore: bool | None = None
    """Set to false to use the best known model and never try a less known one."""
    cascade: Literal["off", "check", "strict"] | None = None
    """Check the answer and call a better model when it fails: `check` for whole answers only,
    `strict` also for streams, which are held back for it; `off` never."""
    webhook: Annotated[str, Meta(max_length=2048)] | None = None
    """URL that judges the answer, one of `cascade.webhooks`."""
    on_cut: Literal["terminate", "continue"] | None = None
    """A stream of text that breaks off ends with an error (`terminate`), or another call goes on
    where it stopped (`continue`), as the end of the answer says. Never with tools, a response
    format or several choices."""
    on_too_long: Literal["error", "middle_out"] | None = None
    """A conversation longer than the context of every model is refused (`error`), or loses turns
    from its middle (`middle_out`), as a warning with the answer says."""
    cut_repetition: bool | None = None
    """Break off an answer that repeats the same words again and again, and ask another model while
    nothing has been delivered."""
    hedge: bool | None = None
    """Ask a second model when a stream has not begun by the time in which 95 of 100 of the first
    one's do; the one that begins first answers, and both are paid."""
    annotate: bool | None = None
    """Set to false to leave the `sophia` object out of the answer. The end of a stream that lost a
    part still has it, with the warning."""


class BaseBody(Struct, kw_only=True):
    """Fields that every endpoint reads."""

    model: ShortName | None = None
    models: Annotated[list[ShortName], Meta(max_length=16)] | None = None
    stream: bool | None = None
    sophia: SophiaHints | None = None
    session_id: SessionId | None = None
    user: str | None = None


class ChatBody(BaseBody, kw_only=True):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    n: ChoiceCount | None = None
    temperature: Temperature | None = None
    top_p: UnitInterval | None = None
    tools: list[Raw] | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    reasoning: dict[str, Raw] | None = None
    reasoning_effort: str | None = None
    provider: dict[str, Raw] | None = None
    stream_options: StreamOptions | None = None


class CompletionBody(BaseBody, kw_only=True):
    """The body of `POST /v1/completions`."""

    prompt: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    n: ChoiceCount | None = None
    best_of: ChoiceCount | None = None
    temperature: Temperature | None = None
    top_p: UnitInterval | None = None
    logprobs: int | None = None
    stream_options: StreamOptions | None = None


class EmbeddingBody(BaseBody, kw_only=True):
    """The body of `POST /v1/embeddings`."""

    input: str | list[str | int | list[int]]
    dimensions: PositiveInt | None = None
    encoding_format: Literal["float", "base64"] | None = None


RequestBody = ChatBody | CompletionBody | EmbeddingBody


class FeedbackBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /v1/feedback`."""

    decision_id: ShortName
    score: UnitInterval | None = None
    thumbs: Literal["up", "down"] | None = None
    label: Annotated[str, Meta(max_length=64)] | None = None
    preferred_model: ShortName | None = None
    comment: Annotated[str, Meta(max_length=4000)] | None = None
    channel: Annotated[str, Meta(max_length=32)] | None = None
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
