"""A committed answer: chunks for the caller, and a cost that is settled whatever happens."""

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from sophia.core.calls import ChunkBatch, Usage
from sophia.core.events import Settled
from sophia.core.failures import FailureKind, UpstreamFailure
from sophia.core.ids import JUDGE_ATTEMPT
from sophia.core.ports import DispatchedCall, Upstream
from sophia.core.rows import RUBRIC_FINISH, AttemptOutcome
from sophia.routing.bandit.arms import build_call_mode
from sophia.routing.types import Attempt
from sophia.serving.attempts.observer import AnswerEnd, AnswerObserver
from sophia.serving.attempts.repetition import RepetitionDetector
from sophia.serving.attempts.reservation import AttemptResult, Reservation, update_attempt_result
from sophia.serving.attempts.targets.classifier import classify, describe_failure
from sophia.serving.attempts.targets.dispatch import CLIENT_GONE, AttemptDependencies
from sophia.serving.attempts.targets.health import HealthReport
from sophia.serving.knowledge import Knowledge
from sophia.serving.request import Decision, Request

REPETITION_MESSAGE = "the model wrote the same words again and again"


class RequestRecord:
    """Outcomes of one request, and its one event for the sinks.

    `muted`: closing emits no event, because the request goes on with another attempt. `is_raced`:
    two attempts run at a time, so that a cancelled one does not close the request. `upstream` is
    the last one that was asked, `numbers` are those that its attempts have not used, `ejected`
    says why a planned model was not asked first, `continued` which models went on after how many
    characters, `adapted` the changes in the request for a model, `continued_bytes` the length of a
    text that another call goes on with, and `may_be_complete` whether it ends as whole texts do.
    """

    def __init__(
        self,
        dependencies: AttemptDependencies,
        knowledge: Knowledge,
        request: Request,
        decision: Decision,
    ) -> None:
        self.dependencies = dependencies
        self.knowledge = knowledge
        self.request = request
        self.decision = decision
        self.outcomes: list[AttemptOutcome] = []
        self.ejected: list[str] = []
        self.continued: list[tuple[str, int]] = []
        self.adapted: list[str] = []
        self.dispatches = 0
        self.continued_bytes = 0
        self.may_be_complete = False
        self.muted = False
        self.is_raced = False
        self.upstream = dependencies.upstreams.default
        self.numbers = iter(range(JUDGE_ATTEMPT))

    @property
    def may_dispatch(self) -> bool:
        """Whether another dispatch is allowed."""
        return self.dispatches < self.dependencies.limits.max_attempts

    @property
    def cost_nano(self) -> int:
        """Cost of all attempts together, in nano-dollars."""
        outcomes = self.outcomes
        return outcomes[0].cost_nano if len(outcomes) == 1 else sum(o.cost_nano for o in outcomes)

    def take_dispatch(self) -> bool:
        """Count one more dispatch; return False, and count none, when all have been made."""
        if not self.may_dispatch:
            return False
        self.dispatches += 1
        return True

    def finish(self, outcome: AttemptOutcome, status: int, error_type: str | None = None) -> None:
        """Add the last outcome, and close."""
        self.outcomes.append(outcome)
        self.close(status, error_type)

    def close(self, status: int, error_type: str | None = None) -> None:
        """Emit the event to every sink, unless muted."""
        if self.muted:
            return
        request, plan, parts = self.request, self.decision.plan, self.dependencies
        last = self.outcomes[-1] if self.outcomes else None
        model = last.model if last is not None else plan.attempts[0].model
        first = last.first_content_ms if last is not None else None
        event = Settled(
            request_id=request.id,
            endpoint=request.endpoint,
            requested_model=request.model,
            model=model,
            provider=last.provider if last is not None else None,
            upstream=self.upstream.name,
            policy=plan.rule or plan.policy,
            task_type=plan.features.task_type,
            stream=request.stream,
            status=status,
            finish_reason=last.finish_reason if last is not None else None,
            error_type=error_type,
            cost_nano=self.cost_nano,
            prompt_tokens=last.prompt_tokens if last is not None else 0,
            completion_tokens=last.completion_tokens if last is not None else 0,
            duration_s=parts.ledger.clock.monotonic() - request.arrived_at,
            first_content_s=None if first is None else first / 1000,
            attempts=tuple(self.outcomes),
            expected_tokens=plan.features.output_tokens * request.prompt.choice_count,
            mode=build_call_mode(request.prompt),
            key_id=request.principal.key_id,
            user=request.fields.get("user"),
            metadata=request.fields.get("metadata"),
        )
        for sink in parts.sinks:
            sink.emit(event)


@dataclass(slots=True, kw_only=True)
class RunningAttempt:
    """The attempt that answers; `buffered` was read ahead and not delivered yet."""

    reservation: Reservation
    upstream: Upstream
    exchange: DispatchedCall
    result: AttemptResult
    buffered: deque[ChunkBatch]
    report: HealthReport


class AnswerContinuation(Protocol):
    """Goes on with an answer that breaks off."""

    def deliver(self, batch: ChunkBatch) -> ChunkBatch:
        """Return a batch as the caller gets it."""

    def flush(self) -> ChunkBatch | None:
        """Return the text that was held back, at the end."""

    async def resume(self, answer: "Answer", failure: UpstreamFailure) -> bool:
        """Let `answer` go on; False when that is not possible. Raises UpstreamFailure."""


class Answer:
    """An answer to read: `next` until None, and `close` in a `finally`, always."""

    def __init__(self, record: RequestRecord, running: RunningAttempt) -> None:
        self.record = record
        self.running = running
        self.outcome: AttemptOutcome | None = None
        self.observer: AnswerObserver | None = None
        self.continuation: AnswerContinuation | None = None
        self._repetition: RepetitionDetector | None = None
        if record.request.stream and record.request.hints.cut_repetition:
            self._repetition = RepetitionDetector()
        self._open = True

    @property
    def attempt(self) -> Attempt:
        """The planned attempt that answers."""
        return self.running.reservation.spec.attempt

    @property
    def model(self) -> str:
        """The model that answers."""
        return self.running.reservation.spec.attempt.model

    @property
    def upstream(self) -> Upstream:
        """The upstream that answers."""
        return self.running.upstream

    @property
    def usage(self) -> Usage | None:
        """Tokens of the answer, once the upstream has reported them."""
        return self.running.result.usage

    @property
    def left_out_events(self) -> int:
        """Malformed events of the stream that were left out, so that text may be missing."""
        return self.running.exchange.left_out_events

    @property
    def cost_nano(self) -> int:
        """Cost of the answer so far, in nano-dollars."""
        return self.running.reservation.cost(self.running.result).nano

    @property
    def buffered_chunks(self) -> list[bytes]:
        """Chunks that were read ahead and not delivered yet."""
        return [chunk for batch in self.running.buffered for chunk in batch.chunks]

    async def buffer(self, max_bytes: int) -> bool:
        """Read ahead to the end, so that the answer can be checked before it is delivered.

        Returns:
            Whether all of it is buffered; False when it is longer than `max_bytes` bytes.

        Raises:
            UpstreamFailure: the answer broke off; nothing is settled yet.
        """
        size = sum(map(len, self.buffered_chunks))
        while size <= max_bytes:
            try:
                batch = await self.running.exchange.next()
            except UpstreamFailure as failure:
                self._report_failure(failure)
                raise
            if batch is None:
                return True
            update_attempt_result(self.running.result, batch)
            self.running.buffered.append(batch)
            size += sum(map(len, batch.chunks))
        return False

    def reject(self, cause: str, *, interrupted: bool = False) -> None:
        """Settle an answer that another one replaces; its buffer stays readable.

        One that broke off without a reported cost is charged by its text, or stays unknown.
        """
        result = self._end_exchange()
        result.failure = cause
        result.generation_id = result.generation_id or self.running.exchange.generation_id
        unknown = interrupted and not result.is_chargeable
        close = (
            self.running.reservation.close_unknown if unknown else self.running.reservation.settle
        )
        self.outcome = close(result)
        self.record.outcomes.append(self.outcome)

    def settle_internal(self, finish_reason: str) -> None:
        """Settle an answer for Sophia's own use, under `finish_reason`."""
        result = self._end_exchange()
        result.finish_reason = finish_reason
        self.outcome = self.running.reservation.settle(result)
        self.record.outcomes.append(self.outcome)

    async def next(self) -> ChunkBatch | None:
        """Return the next batch; None after a complete answer, which is settled by then.

        Raises:
            UpstreamFailure: the answer broke off; the part until then is settled.
        """
        if self.running.buffered:
            return self._deliver(self.running.buffered.popleft())
        if self.outcome is not None:
            self._notify_observer(complete=True)
            return None
        try:
            batch = await self.running.exchange.next()
        except UpstreamFailure as failure:
            self._report_failure(failure)
            if self.continuation is not None and await self.continuation.resume(self, failure):
                return await self.next()
            if self.outcome is None:
                self._abandon(502, str(failure.kind))
            raise
        if batch is None:
            if self.continuation is not None and (rest := self.continuation.flush()) is not None:
                return self._observe(rest)
            self.outcome = self.running.reservation.settle(self._end_exchange())
            self.record.finish(self.outcome, 200)
            self._notify_observer(complete=True)
            return None
        update_attempt_result(self.running.result, batch)
        return self._deliver(batch)

    def _deliver(self, batch: ChunkBatch) -> ChunkBatch:
        """Return a batch for the caller. Raises UpstreamFailure when the text repeats itself."""
        if self._repetition is not None and self._repetition.repeats(batch.chunks):
            repeated = UpstreamFailure(FailureKind.REPETITION, REPETITION_MESSAGE)
            self._report_failure(repeated)
            self._abandon(502, str(repeated.kind))
            raise repeated
        return self._observe(batch)

    def _report_failure(self, failure: UpstreamFailure) -> None:
        if failure.received is not None:
            update_attempt_result(self.running.result, failure.received)
        now, words = self.record.dependencies.ledger.clock.monotonic(), describe_failure(failure)
        self.running.report.fail(classify(failure), words, now, failure.retry_after)

    def take_over(self, other: "Answer") -> None:
        """Go on with what another attempt answers; the own one is settled."""
        self.running, self.outcome, self._open = other.running, None, True

    def _observe(self, batch: ChunkBatch) -> ChunkBatch:
        if self.continuation is not None:
            batch = self.continuation.deliver(batch)
        if self.observer is not None:
            self.observer.observe(batch)
        return batch

    def _notify_observer(self, *, complete: bool) -> None:
        """Report the end to the observer."""
        if self.observer is not None:
            scored = any(o.finish_reason == RUBRIC_FINISH for o in self.record.outcomes)
            self.observer.end(
                AnswerEnd(
                    model=self.model,
                    finish_reason=self.running.result.finish_reason,
                    complete=complete,
                    clamped=self.attempt.max_tokens is not None,
                    rubric_scored=scored,
                )
            )

    def _end_exchange(self, *, drains: bool = False) -> AttemptResult:
        """Read no more here, and return the result so far; `drains` leaves the rest to read."""
        self._open = False
        if not drains:
            self.running.exchange.close()
        # Without effect after a failure; a caller who left in mid-answer says nothing against it.
        streamed = self.record.request.stream
        self.running.report.succeed(self.running.result.first_content_at if streamed else None)
        return self.running.result

    def _abandon(self, status: int, cause: str) -> None:
        """Cancel an incomplete answer, or read its rest unseen, and settle its real cost."""
        running = self.running
        drains = status == CLIENT_GONE and running.upstream.is_drained
        drains = drains and not running.result.has_full_usage
        result = self._end_exchange(drains=drains)
        result.failure = cause
        result.generation_id = result.generation_id or running.exchange.generation_id
        finish = partial(self.record.finish, status=status, error_type=cause)
        reconciler = self.record.dependencies.reconciler
        if result.has_full_usage:
            finish(running.reservation.settle(result))
        elif drains:
            reconciler.drain(running.exchange, running.reservation, result, finish)
        else:
            reconciler.schedule(running.upstream, running.reservation, result, finish)

    def close(self) -> None:
        """Release everything; an unfinished answer is cancelled and settled."""
        if self._open:
            dependencies = self.record.dependencies
            self._abandon(*dependencies.cancellation)
            if not dependencies.interrupted:
                self._notify_observer(complete=False)
