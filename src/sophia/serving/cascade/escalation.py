"""Models that may be asked next, their expected success, and their cost."""

from collections.abc import Iterable

from sophia.routing.escalation import (
    DEFAULT_VALUE_MULTIPLE,
    CheckScore,
    EscalationCandidate,
    choose_escalation,
    estimate_success,
    update_success,
)
from sophia.routing.pool import UNKNOWN_QUALITY
from sophia.routing.quotes import build_spend_limit, quote_model
from sophia.routing.request import KeyLimits
from sophia.serving.attempts.answer import RequestRecord


class EscalationSelector:
    """The plan's models that were not asked yet, with the expected quality of each.

    A failure of one model lowers the expectation of the others: the request may be hard.
    """

    def __init__(self, record: RequestRecord, value_nano: int | None) -> None:
        plan = record.decision.plan
        self._record = record
        self._quality = _expected_quality(record)
        costs = {candidate.model: candidate.expected_nano for candidate in plan.candidates}
        costs |= {attempt.model: attempt.expected_nano for attempt in plan.attempts}
        best = max(self._quality, key=lambda model: (self._quality[model], -costs[model]))
        default = DEFAULT_VALUE_MULTIPLE * costs[best]
        self._value_nano = max(default if value_nano is None else value_nano, 1)

    def success_probability(self, model: str, scores: Iterable[CheckScore]) -> float:
        """Return the probability that the answer of `model` is good."""
        return estimate_success(self._quality.get(model, UNKNOWN_QUALITY), scores)

    def next(
        self, model: str, success_probability: float, limits: KeyLimits, *, any_price: bool = False
    ) -> EscalationCandidate | None:
        """Return the model to ask in place of `model`, None when none is worth its cost.

        `any_price`: there is no answer to keep, so that any other one is worth its cost.
        """
        limit = build_spend_limit(limits.per_request_nano, limits.budget_left_nano, None)
        knowledge, plan = self._record.knowledge, self._record.decision.plan
        asked = {outcome.model for outcome in self._record.outcomes} | {model}
        candidates = []
        for name, quality in self._others(model, success_probability):
            pool_model = knowledge.find_pool_model(name)
            if pool_model is None or name in asked:
                continue
            offer = quote_model(
                pool_model, self._record.request.prompt, plan.features, limit, limits.price_margin
            )
            if offer.held_nano is not None and offer.covers_expected:
                candidates.append(
                    EscalationCandidate(
                        model=name,
                        success_probability=quality,
                        expected_nano=0 if any_price else offer.expected_nano,
                        held_nano=offer.held_nano,
                        max_tokens=offer.max_tokens,
                    )
                )
        return choose_escalation(
            success_probability, candidates, self._value_nano, limit.limit_nano
        )

    def record_failure(self, model: str, success_probability: float) -> None:
        """Lower the expectation of the other models after an answer of `model`."""
        self._quality.update(list(self._others(model, success_probability)))

    def _others(self, model: str, success_probability: float) -> Iterable[tuple[str, float]]:
        own = self._quality.get(model, UNKNOWN_QUALITY)
        for name, quality in self._quality.items():
            if name != model:
                yield name, update_success(quality, own, success_probability)


def _expected_quality(record: RequestRecord) -> dict[str, float]:
    """Return the expected quality of each model: the policy's rating, else the pool's prior."""
    plan, knowledge = record.decision.plan, record.knowledge
    task = plan.features.task_type
    expected = {}
    for attempt in plan.attempts:
        entry = knowledge.find_pool_model(attempt.model)
        expected[attempt.model] = entry.quality.get(task, UNKNOWN_QUALITY) if entry else 0.0
    expected |= {candidate.model: candidate.quality for candidate in plan.candidates}
    if plan.trace is not None:
        for arm in plan.trace.rated_arms:
            if arm.model in expected:
                expected[arm.model] = min(max(arm.quality, 0.0), 1.0)
    return expected
