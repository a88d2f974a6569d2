"""What goes into a decision and what comes out of it."""

from typing import Literal, NamedTuple

from msgspec import Struct

TaskType = Literal["coding", "analysis", "creative", "general"]
TASK_TYPES: tuple[TaskType, ...] = ("coding", "analysis", "creative", "general")
Checks = Literal["off", "check", "strict"]
Tradeoff = Literal["balanced", "cheap", "fast", "best"]


class Prompt(NamedTuple):
    """What routing may look at of a request: counts, and the capped ends of its text.

    `text` holds at most 2,000 characters of the last user message, `system` at most 500 of the
    system prompt. `chars` counts all text of all messages; `utf8_bytes` bounds it from above.
    `body_bytes` bounds everything that may become prompt tokens, attachments left out. `tool_turn`
    says that the last message is what a tool gave back. `effort` is the reasoning asked for, `low`
    or `high` where it is not the usual; `providers` how the upstream is to choose providers:
    `price`, `fast`, `chosen` by the caller, or empty.
    """

    text: str
    system: str = ""
    chars: int = 0
    utf8_bytes: int = 0
    turns: int = 1
    images: int = 0
    files: int = 0
    audio: int = 0
    tools: int = 0
    schema: bool = False
    json_object: bool = False
    logprobs: bool = False
    reasoning: bool = False
    max_tokens: int | None = None
    choices: int = 1
    body_bytes: int = 0
    tool_turn: bool = False
    effort: str = ""
    providers: str = ""


class Hints(NamedTuple):
    """What the caller declared; None means: estimate it from the request."""

    task_type: TaskType | None = None
    complexity: float | None = None
    max_latency_ms: int | None = None
    cost_sensitive: bool | None = None
    min_quality: float | None = None
    max_cost_nano: int | None = None
    models: tuple[str, ...] = ()
    session_id: str | None = None
    tradeoff: Tradeoff = "balanced"
    rule: str | None = None
    policy: str | None = None
    cascade: Checks | None = None
    webhook: str | None = None
    dial: float | None = None
    explore: bool = True


class Features(Struct, frozen=True, array_like=True):
    """The plan's feature vector and a little more; token counts are estimates."""

    task_type: TaskType
    task_confidence: float
    task_declared: bool
    complexity: float
    complexity_declared: bool
    chars: int
    prompt_tokens: int
    max_prompt_tokens: int
    output_tokens: int
    turns: int
    code: float
    maths: float
    language: str
    max_latency_ms: int
    latency_declared: bool
    cost_sensitive: bool


class Candidate(Struct, frozen=True, array_like=True):
    """A model that was able to serve the request, with what it was expected to give and cost."""

    model: str
    quality: float
    latency_ms: int
    expected_nano: int
    worst_nano: int


class Excluded(Struct, frozen=True, array_like=True):
    """A model that was not able, and the sentence that says why."""

    model: str
    cause: str
    code: str


class Attempt(Struct, frozen=True, array_like=True):
    """One step of a plan: try `model`, paying at most `held_nano`.

    `max_tokens` is set only when the purse clamps the answer below what the caller and the model
    allow.
    """

    model: str
    reason: str
    expected_nano: int
    held_nano: int
    max_tokens: int | None = None


class Rated(Struct, frozen=True, array_like=True):
    """What a learned policy made of one arm that could be taken; `arm` is the name of its model.

    `quality` and `sd` are its expectation, `cost_nano` what an answer is expected to cost, `late`
    the chance that it comes too late, `utility` what is left of the quality then, `propensity` the
    exact probability that the arm was to be taken with, `fail` the chance that an attempt fails.
    """

    arm: str
    quality: float
    sd: float
    cost_nano: float
    late: float
    explorable: bool
    utility: float
    propensity: float
    fail: float = 0.0


class Sources(Struct, frozen=True, array_like=True):
    """What the chances of the tasks were made of, where more than the text had a say.

    Attributes:
        text: the chances by the text alone, float32.
        declared: whether the caller's task type was weighed in.
        earlier: how many requests were seen before under the same system prompt.
        trust: how far their word was believed, 0 to 1.
        history: the counts of what they were about, float32; empty when there were none.
    """

    text: bytes
    declared: bool
    earlier: int = 0
    trust: float = 0.0
    history: bytes = b""


class Evidence(Struct, frozen=True, array_like=True):
    """What a decision rested on, enough to make it again bit by bit; no text of the prompt.

    Attributes:
        state: the learned state: a snapshot's id, and how many lessons were learned since.
        sight: the request as numbers, float32; see `sophia.routing.evidence`.
        draw: the number in [0, 1) that decided.
        taste: price, reference, lateness, switching and failing; see `choose.Taste`.
        exploration: mode, temperature, boldness, floor, share and extra; see `choose.Exploration`.
        rated: the arms in the order they were rated; empty when no learned policy chose.
        current: the position of the arm that the conversation is on.
        trial: the position of an arm on trial, and its probability.
        mode: how models are called; with a model's name it makes the arm's.
        by_lot: whether it was left to Sophia which policy decides.
        asked: whether the lot fell on the answer to be judged, whatever it is.
        usual: how the rated arms usually answer, to be told; see `sophia.routing.usual`.
        sources: what the tasks in `sight` were made of; None when the text alone told them.
    """

    state: str
    sight: bytes
    draw: float
    taste: tuple[float, ...] = ()
    exploration: tuple[str | float, ...] = ()
    rated: tuple[Rated, ...] = ()
    current: int | None = None
    trial: tuple[int, float] | None = None
    mode: str = ""
    by_lot: bool = True
    asked: bool = False
    usual: bytes = b""
    sources: Sources | None = None


class Plan(Struct, frozen=True, array_like=True):
    """A decision: ordered attempts and everything that explains them."""

    attempts: tuple[Attempt, ...]
    policy: str
    rule: str | None
    reason: str
    features: Features
    candidates: tuple[Candidate, ...] = ()
    excluded: tuple[Excluded, ...] = ()
    propensity: float = 1.0
    notes: tuple[str, ...] = ()
    evidence: Evidence | None = None
