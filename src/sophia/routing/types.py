"""Inputs and outputs of a decision."""

import math
from collections.abc import Callable
from typing import Literal

from msgspec import Struct, json

TaskType = Literal["coding", "analysis", "creative", "general"]
TASK_TYPES: tuple[TaskType, ...] = ("coding", "analysis", "creative", "general")
CascadeMode = Literal["off", "check", "strict"]
Tradeoff = Literal["balanced", "cheap", "fast", "best"]
CutAction = Literal["terminate", "continue"]
"""Answer to a stream that breaks off after its first content."""
ExplorationMode = Literal["off", "softmax", "thompson"]

BALANCED_COST_WEIGHT = 0.1
DEFAULT_LATENCY_MS = 5000


class Prompt(Struct, frozen=True, kw_only=True, gc=False):
    """Counts of a request, and the capped ends of its text.

    Attributes:
        text: at most 2,000 characters of the last user message.
        system: at most 500 characters of the system prompt.
        chars: characters of all text in all messages; `utf8_bytes` bounds it from above.
        body_bytes: bound of everything that may become prompt tokens, without attachments.
        after_tool_result: whether the last message is the result of a tool.
        reasoning_effort: `low` or `high` where the caller asks for it.
        provider_preference: `price`, `fast`, `chosen` by the caller, or empty.
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
    choice_count: int = 1
    body_bytes: int = 0
    after_tool_result: bool = False
    reasoning_effort: str = ""
    provider_preference: str = ""


class Hints(Struct, frozen=True, kw_only=True, gc=False):
    """Hints of the caller; None: estimate it from the request."""

    task_type: TaskType | None = None
    complexity: float | None = None
    max_latency_ms: int | None = None
    cost_sensitive: bool | None = None
    min_quality: float | None = None
    strict: bool = False
    max_cost_nano: int | None = None
    models: tuple[str, ...] = ()
    session_id: str | None = None
    tradeoff: Tradeoff = "balanced"
    rule: str | None = None
    policy: str | None = None
    cascade: CascadeMode | None = None
    webhook: str | None = None
    quality_bias: float | None = None
    explore: bool = True
    on_cut: CutAction | None = None
    on_too_long: Literal["error", "middle_out"] = "error"
    cut_repetition: bool = False
    hedge: bool = False


class Features(Struct, frozen=True, array_like=True):
    """Feature vector of a request; token counts are estimates.

    `task_confidence` is the probability of `task_type`. The defaults are those of a text that
    nothing has read.
    """

    task_type: TaskType = "general"
    task_confidence: float = 0.0
    task_declared: bool = False
    complexity: float = 0.5
    complexity_declared: bool = False
    chars: int = 0
    prompt_tokens: int = 0
    max_prompt_tokens: int = 0
    output_tokens: int = 0
    turns: int = 1
    code: float = 0.0
    maths: float = 0.0
    language: str = ""
    max_latency_ms: int = DEFAULT_LATENCY_MS
    latency_declared: bool = False
    cost_sensitive: bool = True


class Candidate(Struct, frozen=True, array_like=True):
    """A model that can serve the request, with its expected quality, latency and cost."""

    model: str
    quality: float
    latency_ms: int
    expected_nano: int
    worst_nano: int


class ExcludedModel(Struct, frozen=True, array_like=True):
    """A model that cannot serve the request, and a sentence with the reason."""

    model: str
    cause: str
    code: str


class Attempt(Struct, frozen=True, array_like=True):
    """One attempt of a plan, at a cost of at most `held_nano`.

    `max_tokens` is set only when the budget clamps the answer below what the caller and the model
    allow.
    """

    model: str
    reason: str
    expected_nano: int
    held_nano: int
    max_tokens: int | None = None


class UtilityWeights(Struct, frozen=True, array_like=True):
    """Weights of cost, time and continuity, in units of quality (0 to 1).

    Attributes:
        cost: quality given up for saving one `reference_cost`; see `bandit.choose.cost_weight`.
        reference_cost: typical cost of an answer of the best arm, in the unit of the costs.
        lateness: quality lost with an answer that comes too late.
        switching: quality lost by leaving the arm that the conversation is on.
        failure: quality lost with an attempt that fails, although another arm steps in.
    """

    cost: float = BALANCED_COST_WEIGHT
    reference_cost: float = 1.0
    lateness: float = 0.0
    switching: float = 0.0
    failure: float = 0.0


class Exploration(Struct, frozen=True, array_like=True):
    """Limits of the departure from the best-looking arm.

    Attributes:
        mode: `off` takes the best; `softmax` by utility over `temperature`; `thompson` takes each
            arm with the probability that it is the best one.
        temperature: utility by which an arm is e times less likely under `softmax`.
        sd_scale: factor on the sd under `thompson`.
        floor: probability shared evenly by the explorable arms, from 0 to 1.
        max_share: greatest probability of all other arms together, from 0 to 1.
        max_extra_cost: greatest addition to the expected cost, as a share of the best arm's cost.
    """

    mode: ExplorationMode = "thompson"
    temperature: float = 0.01
    sd_scale: float = 1.0
    floor: float = 0.0
    max_share: float = 1.0
    max_extra_cost: float = math.inf


NO_EXPLORATION = Exploration("off", max_extra_cost=0.0)


class RatedArm(Struct, frozen=True, array_like=True):
    """Rating of one arm by a learned policy.

    Attributes:
        model: the arm's model.
        quality: expected score, with standard deviation `sd`.
        cost_nano: expected cost of an answer.
        late_probability: probability that the answer comes too late.
        explorable: whether exploration may take it.
        utility: quality less the price of cost, lateness, switching and failure.
        propensity: exact probability of taking it.
        failure_probability: probability that an attempt fails.
    """

    model: str
    quality: float
    sd: float
    cost_nano: float
    late_probability: float
    explorable: bool
    utility: float
    propensity: float
    failure_probability: float = 0.0


class TaskSources(Struct, frozen=True, array_like=True):
    """Sources of the task posterior, where more than the text contributed.

    Attributes:
        text_probabilities: posterior by the text alone, float32.
        task_declared: whether the caller's task type contributed.
        history_requests: earlier requests under the same system prompt.
        history_probability: weight of the history, 0 to 1.
        history_counts: tasks of those requests, float32; empty without any.
    """

    text_probabilities: bytes
    task_declared: bool
    history_requests: int = 0
    history_probability: float = 0.0
    history_counts: bytes = b""


class DecisionTrace(Struct, frozen=True, array_like=True):
    """Everything a decision depended on, so that it can be reproduced bit by bit; no prompt text.

    Attributes:
        state: the learned state: a snapshot id and the number of lessons since.
        context: the request as numbers, float32; see `routing.explain.trace`.
        uniform: the random number in [0, 1) that decided.
        utility_weights, exploration: None when no learned policy chose.
        rated_arms: the arms in the order they were rated; empty when no learned policy chose.
        current_index: position of the arm that the conversation is on.
        trial: position of an arm on trial, and its probability.
        call_mode: how models are called; with a model's id it makes the arm's.
        policy_randomized: whether the choice of the policy was left to Sophia.
        judge_sampled: whether the answer was sampled for the judge.
        performance: expected performance of the rated arms; see `bandit.performance.summary`.
        task_sources: None when the task posterior follows from the text alone.
    """

    state: str
    context: bytes
    uniform: float
    utility_weights: UtilityWeights | None = None
    exploration: Exploration | None = None
    rated_arms: tuple[RatedArm, ...] = ()
    current_index: int | None = None
    trial: tuple[int, float] | None = None
    call_mode: str = ""
    policy_randomized: bool = True
    judge_sampled: bool = False
    performance: bytes = b""
    task_sources: TaskSources | None = None


class Plan(Struct, frozen=True, array_like=True):
    """A decision: ordered attempts and everything that explains them."""

    attempts: tuple[Attempt, ...]
    policy: str
    rule: str | None
    reason: str
    features: Features
    candidates: tuple[Candidate, ...] = ()
    excluded: tuple[ExcludedModel, ...] = ()
    propensity: float = 1.0
    notes: tuple[str, ...] = ()
    trace: DecisionTrace | None = None


decode_plan: Callable[[bytes], Plan] = json.Decoder(Plan).decode
"""Decodes the plan of a stored intent."""
