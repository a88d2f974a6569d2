"""Chain: the targets of one request in the order to ask them, by plan and health."""

from collections.abc import Sequence

from msgspec import Struct

from sophia.core.failures import UpstreamFailure
from sophia.core.uniform import derive_uniform
from sophia.routing.types import Attempt
from sophia.serving.attempts.answer import RequestRecord
from sophia.serving.attempts.targets.classifier import TOO_LONG_ROW, classify
from sophia.serving.attempts.targets.dispatch import Deployment
from sophia.serving.attempts.targets.failure_table import Action, HealthEffect
from sophia.serving.attempts.targets.health import Target

MAX_WAIT_SECONDS = 10.0
"""Longest wait before the same target is asked again."""
MIN_ANSWER_SECONDS = 1.0
"""Time before the deadline that an attempt after a wait must have."""
FIRST_BACKOFF_SECONDS = 0.5
_BACKOFF_STREAM = 8


class ChainTarget(Struct, frozen=True):
    """One attempt of the plan at one deployment of its model."""

    attempt: Attempt
    deployment: Deployment

    @property
    def key(self) -> Target:
        """The key of its health."""
        return self.deployment.upstream.name, self.attempt.model


class Chain:
    """The next target to ask, until one answers or nothing is left to try.

    Healthy targets come first, in the order of the plan; a model's other deployments come
    before the next model. Those that are ejected come last, the one that is soonest back first.
    With none left, one that was refused for the moment may be asked again.
    """

    def __init__(self, record: RequestRecord, attempts: Sequence[Attempt]) -> None:
        parts, id = record.dependencies, record.request.id
        self._record = record
        self._health = parts.health
        self._retries = parts.retries
        self._targets = [
            ChainTarget(attempt, deployment)
            for attempt in attempts
            for deployment in parts.upstreams.deployments(attempt.model, id)
        ]
        healthy = len(self._targets) == 1 or parts.health.all_healthy
        self._left = self._targets if healthy else self._order(self._targets)
        self._again: list[tuple[float, ChainTarget]] = []
        self._repeated = False
        self._is_granted = False

    @property
    def is_last(self) -> bool:
        """Whether no further target may be asked after the present one."""
        return not (self._left and self._record.may_dispatch)

    def next(self) -> ChainTarget | None:
        """Return the next target, None when there is none or too much is repeated already."""
        record = self._record
        if not (self._left and record.may_dispatch):
            return None
        if record.dispatches and not (self._is_granted or self._may_repeat()):
            return None
        self._is_granted = False
        record.dispatches += 1
        return self._left.pop(0)

    def skip(self) -> None:
        """Take back a dispatch that was not made, since money does not cover it."""
        self._record.dispatches -= 1

    def put_back(self, target: ChainTarget) -> None:
        """Keep a target for later that was not dispatched to."""
        self.skip()
        self._left.insert(0, target)

    def add_failure(self, target: ChainTarget, failure: UpstreamFailure) -> bool:
        """Note a failed attempt; return whether the same target comes again at once.

        A connection that had been kept open and was lost most likely ended before the request.
        """
        if failure.stale and not self._repeated:
            self._repeated = True
            self._left.insert(0, target)
            return True
        row = classify(failure)
        # The budget of repetitions protects what is in trouble, not what refuses or says nothing.
        self._is_granted = row.health in (HealthEffect.NONE, HealthEffect.SOFT)
        if row.number == TOO_LONG_ROW:
            self._keep_longer(target)
        if row.action is Action.AGAIN:
            wait = failure.retry_after
            if wait is None and not failure.sent:
                jitter = derive_uniform(self._record.request.id, _BACKOFF_STREAM)
                wait = FIRST_BACKOFF_SECONDS * 2.0 ** (self._record.dispatches - 1) * jitter
            if wait is not None:
                self._again.append((wait, target))
        return False

    def wait_for_again(self) -> float | None:
        """Return the seconds after which a target may be asked again, which then comes next.

        None when no target is left for that, or not before the request's deadline.
        """
        if self._left or not self._again:
            return None
        if not self._record.may_dispatch:
            return None
        self._again.sort(key=lambda pair: pair[0])
        wait, target = self._again[0]
        if wait > min(MAX_WAIT_SECONDS, remaining_seconds(self._record) - MIN_ANSWER_SECONDS):
            return None
        if not self._may_repeat():
            return None
        self._again.clear()
        self._left, self._is_granted = [target], True
        return wait

    def _keep_longer(self, target: ChainTarget) -> None:
        """Leave out the targets whose context is no longer than that of `target`."""
        find = self._record.knowledge.find
        known = find(target.attempt.model)
        least = 0 if known is None else known.context_length
        longer = [
            each
            for each in self._left
            if (model := find(each.attempt.model)) is not None and model.context_length > least
        ]
        self._left = longer or self._left

    def _may_repeat(self) -> bool:
        return self._retries.take(self._record.dependencies.ledger.clock.monotonic())

    def _order(self, targets: list[ChainTarget]) -> list[ChainTarget]:
        book = self._health
        now = self._record.dependencies.ledger.clock.monotonic()
        healthy = [target for target in targets if book.is_available(target.key, now)]
        ejected = [target for target in targets if target not in healthy]
        self._record.ejected += [book.describe(target.key, now) for target in ejected]
        ejected.sort(key=lambda target: book.back_at(target.key))
        return [*healthy, *ejected]


def remaining_seconds(record: RequestRecord) -> float:
    """Return the rest of a request's deadline, in seconds."""
    request, limits = record.request, record.dependencies.limits
    elapsed = record.dependencies.ledger.clock.monotonic() - request.arrived_at
    return max((request.deadline or limits.request_timeout_seconds) - elapsed, 0.0)
