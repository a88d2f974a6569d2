"""Configuration of answer checks: for which answers, their value, and the checkers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from sophia.core.errors import BadRequest
from sophia.routing.types import Plan
from sophia.serving.feedback.queue import FeedbackQueue
from sophia.serving.request import Request

AnswerScorer = Callable[[bytes], Awaitable[float | None]]
"""Scores an answer, sent as JSON, from 0 to 1; None when it has no score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeConfig:
    """Configuration of the cascade.

    Attributes:
        auto: check complete answers of models that Sophia chose, unless the caller declines.
        value_nano: value of a good answer in place of a bad one; None: a multiple of the cost of
            the best candidate.
        webhooks: scorers by the URL under which callers may name them.
    """

    auto: bool = False
    value_nano: int | None = None
    rubric_model: str | None = None
    webhooks: Mapping[str, AnswerScorer] = field(default_factory=dict)
    feedback: FeedbackQueue | None = None

    def applies_to(self, request: Request, plan: Plan) -> bool:
        """Return whether the answer is checked before the caller gets any of it."""
        hints = request.hints
        mode = hints.cascade or ("check" if hints.webhook else None)
        if mode is None:
            return self.auto and not request.stream and plan.policy != "named"
        if request.endpoint == "embeddings" or mode == "off":
            return False
        return mode == "strict" or not request.stream

    def find_webhook(self, url: str | None) -> AnswerScorer | None:
        """Return the scorer that a caller names. Raises BadRequest for an unknown URL."""
        if url is None:
            return None
        if url not in self.webhooks:
            raise BadRequest(
                "`sophia.webhook`: this URL is not among the ones that `cascade.webhooks` allows.",
                param="sophia.webhook",
            )
        return self.webhooks[url]


NO_CHECKS = CascadeConfig()
