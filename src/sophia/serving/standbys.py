"""Who could be asked next, how well each is expected to do now, and what is left to pay for it."""

from collections.abc import Iterable

from sophia.routing.cascade import VALUE_IN_BEST, Signal, Stakes, Standby, after, chance, escalate
from sophia.routing.nouns import Plan
from sophia.routing.optimizer import bounds_of, purse_of, quote
from sophia.routing.pool import UNKNOWN_QUALITY
from sophia.routing.request import Limits
from sophia.serving.answer import Record


class Standbys:
    """The plan's models that were not asked yet, with what is expected of each.

    What one model failed at is expected to be harder for the others, too.
    """

    def __init__(self, record: Record, headroom: int, value: int | None) -> None:
        request, plan = record.request, record.decision.plan
        self._record = record
        self._bounds = bounds_of(request.prompt, plan.features, headroom)
        self._expected = _expected(record, plan)
        costs = {one.model: one.expected_nano for one in plan.candidates}
        costs |= {one.model: one.expected_nano for one in plan.attempts}
        best = max(self._expected, key=lambda name: (self._expected[name], -costs[name]))
        self._value = max(value if value is not None else VALUE_IN_BEST * costs[best], 1)

    def chance(self, model: str, signals: Iterable[Signal]) -> float:
        """Return the chance that the answer of `model` is good."""
        return chance(self._expected.get(model, UNKNOWN_QUALITY), signals)

    def next(
        self, model: str, good: float, limits: Limits, *, any_price: bool = False
    ) -> Standby | None:
        """Return whom to ask in place of `model`, whose answer is good with chance `good`.

        `any_price`: there is no answer to keep, so that any other one is worth its cost.
        """
        purse = purse_of(limits.per_request_nano, limits.budget_left_nano, None)
        asked = {outcome.model for outcome in self._record.outcomes} | {model}
        standbys = []
        for name, expected in self._others(model, good):
            found = self._record.knowledge.find(name)
            if found is None or name in asked:
                continue
            seat = self._record.knowledge.seat(found)
            offer = quote(seat, self._record.decision.plan.features.task_type, self._bounds, purse)
            if offer.held is not None and offer.pays:
                cost = 0 if any_price else offer.expected
                standbys.append(Standby(name, expected, cost, offer.held, offer.max_tokens))
        return escalate(good, standbys, Stakes(self._value, purse.nano))

    def failed(self, model: str, good: float) -> None:
        """Expect of the others what is to be expected after this answer of `model`."""
        self._expected.update(list(self._others(model, good)))

    def _others(self, model: str, good: float) -> Iterable[tuple[str, float]]:
        known = self._expected.get(model, UNKNOWN_QUALITY)
        for name, expected in self._expected.items():
            if name != model:
                yield name, after(expected, known, good)


def _expected(record: Record, plan: Plan) -> dict[str, float]:
    """Return the quality that was expected of each model, by what decided if that knows it."""
    task = plan.features.task_type
    expected = {}
    for attempt in plan.attempts:
        model = record.knowledge.find(attempt.model)
        seat = record.knowledge.seat(model) if model is not None else None
        expected[attempt.model] = seat.quality.get(task, UNKNOWN_QUALITY) if seat else 0.0
    expected.update({one.model: one.quality for one in plan.candidates})
    if plan.evidence is not None:
        rated = {one.arm: min(max(one.quality, 0.0), 1.0) for one in plan.evidence.rated}
        expected.update({arm: quality for arm, quality in rated.items() if arm in expected})
    return expected
