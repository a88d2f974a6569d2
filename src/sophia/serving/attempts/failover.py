"""Run a plan's attempts in order until one answers or the request's limit is spent."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import msgspec

from sophia.catalogue.model import Model
from sophia.core.calls import ChunkBatch, Deadlines, Fields, UpstreamCall
from sophia.core.errors import SophiaError
from sophia.core.failures import CancelledBeforeSending, FailureKind, UpstreamFailure
from sophia.core.ids import encode_id
from sophia.core.ports import DispatchedCall, Upstream
from sophia.core.rows import AttemptOutcome
from sophia.routing.quotes import build_spend_limit, quote_model
from sophia.routing.types import Attempt, Plan
from sophia.serving.attempts.adapt import adapt_fields
from sophia.serving.attempts.answer import REPETITION_MESSAGE, Answer, RequestRecord, RunningAttempt
from sophia.serving.attempts.race import LOST, race
from sophia.serving.attempts.repetition import RepetitionDetector
from sophia.serving.attempts.reservation import (
    AttemptResult,
    AttemptSpec,
    BudgetScope,
    Reservation,
    update_attempt_result,
)
from sophia.serving.attempts.targets.chain import Chain, ChainTarget, remaining_seconds
from sophia.serving.attempts.targets.classifier import classify, describe_failure, is_final
from sophia.serving.attempts.targets.dispatch import CLIENT_GONE
from sophia.serving.attempts.targets.failure_table import HealthEffect
from sophia.serving.attempts.targets.failures import (
    FailedAttempt,
    build_attempts_error,
    build_caller_error,
)
from sophia.serving.request import Request

log = logging.getLogger("sophia.serving")

MIN_CONTENT_SHARE = 1 / 6
"""Least part of the deadline of the first content that a target with fast answers gets."""

_EMPTY_REASONS = ("stop", "tool_calls", "function_call")
_MAX_EMPTY_BYTES = 1 << 20
"""Longest beginning of an answer without content, which is held back."""


async def run_attempts(
    record: RequestRecord,
    scope: BudgetScope,
    attempts: Sequence[Attempt],
    numbers: Iterator[int] | None = None,
    continued_fields: Fields | None = None,
) -> Answer:
    """Return the first attempt that answers, committed at its first content.

    Each attempt takes the next of `numbers`, by default of the request's own, which uses none
    twice; none is made without one. To go on with an answer, `continued_fields` replace those of
    the request, and its attempts so far count.

    Raises:
        SophiaError: no attempt answered, the caller's request is at fault, or money ran out.
    """
    failed: list[FailedAttempt] = []
    chain, numbers = Chain(record, attempts), numbers or record.numbers
    if continued_fields is None:
        record.dependencies.retries.add_request()
    hints = record.request.hints
    while (target := chain.next() or await _wait_for_again(record, chain)) is not None:
        attempt = _fit_to_limit(record, target.attempt, scope.per_request_limit)
        if attempt is None:
            chain.skip()
            continue
        if (number := next(numbers, None)) is None:
            break
        last = chain.is_last
        run = _AttemptRun(
            record, attempt, target, continued_fields, keep_plan=number == 0, last=last
        )
        try:
            reservation = await record.dependencies.ledger.reserve(
                scope, record.request.id, number, run.spec
            )
        except SophiaError as error:
            run.report.drop()
            # Out of money in mid-failover: the earlier failures say more.
            raise _close_with_error(
                record, build_attempts_error(failed) if failed else error
            ) from error
        except BaseException:
            run.report.drop()
            record.close(*record.dependencies.cancellation)
            raise
        record.upstream = target.deployment.upstream
        try:
            if hints.hedge and record.request.stream:
                return await _race(record, scope, chain, run, reservation, failed)
            return await run.run(reservation, last=last)
        except UpstreamFailure as failure:
            record.outcomes.append(run.settle_failure(reservation, failure))
            failed.append(FailedAttempt(attempt.model, target.deployment.upstream.name, failure))
            if not chain.add_failure(target, failure) and is_final(failure):
                raise _close_with_error(record, build_caller_error(failed)) from failure
    raise _close_with_error(record, build_attempts_error(failed))


async def _race(  # noqa: PLR0913 - the parts of the first attempt
    record: RequestRecord,
    scope: BudgetScope,
    chain: Chain,
    run: "_AttemptRun",
    reservation: Reservation,
    failed: list[FailedAttempt],
) -> Answer:
    """Return the answer of `run`, or of the next target when it is late. Raises UpstreamFailure."""
    attempt, parts = run.run(reservation, last=chain.is_last), record.dependencies
    late = parts.health.late_first_content(run.target, run.spec.prompt_tokens)
    if late is None:
        return await attempt

    def start_second() -> Awaitable[Answer] | None:
        if chain.is_last or not parts.hedges.take(parts.ledger.clock.monotonic()):
            return None
        target = chain.next()
        if target is None:
            return None
        running = run.spec.attempt.held_nano
        fitting = _fit_to_limit(record, target.attempt, scope.per_request_limit, running)
        number = None if fitting is None else next(record.numbers, None)
        if fitting is None or number is None:
            chain.put_back(target)
            return None
        second = _AttemptRun(record, fitting, target, run.fields, keep_plan=False, last=True)
        return _run_second(record, scope, second, number, failed)

    parts.hedges.add_request()
    try:
        answer = await race(record, attempt, late, start_second)
    except asyncio.CancelledError:
        if run.failure is not None:
            record.outcomes.append(run.settle_failure(reservation, run.failure))
            record.close(*parts.cancellation)
        raise
    record.upstream = answer.upstream
    if answer.running.reservation is not reservation and run.failure is not None:
        record.outcomes.append(run.settle_failure(reservation, run.failure))
    return answer


async def _run_second(
    record: RequestRecord,
    scope: BudgetScope,
    run: "_AttemptRun",
    number: int,
    failed: list[FailedAttempt],
) -> Answer:
    """Return the answer of a second attempt. Raises UpstreamFailure or SophiaError, settled."""
    try:
        reservation = await record.dependencies.ledger.reserve(
            scope, record.request.id, number, run.spec
        )
    except BaseException:
        run.report.drop()
        raise
    try:
        return await run.run(reservation, last=True)
    except UpstreamFailure as failure:
        record.outcomes.append(run.settle_failure(reservation, failure))
        upstream, model = run.target
        failed.append(FailedAttempt(model, upstream, failure))
        raise


async def _wait_for_again(record: RequestRecord, chain: Chain) -> ChainTarget | None:
    """Return the target that may be asked again after a wait, where only a repetition is left."""
    if (wait := chain.wait_for_again()) is None:
        return None
    try:
        await asyncio.sleep(wait)
    except asyncio.CancelledError:
        record.close(*record.dependencies.cancellation)
        raise
    return chain.next()


def _fit_to_limit(
    record: RequestRecord, attempt: Attempt, limit: int | None, running: int = 0
) -> Attempt | None:
    """Return `attempt` with an answer that the rest of the request's `limit` covers, or None.

    `running` nano-dollars are held by another attempt of the request.
    """
    if limit is None or not (record.outcomes or running):
        return attempt
    used = record.cost_nano + running
    if not used or used + attempt.held_nano <= limit:
        return attempt
    model = record.knowledge.find(attempt.model)
    if model is None:
        return None
    features, prompt = record.decision.plan.features, record.request.prompt
    if record.continued_bytes:
        features = msgspec.structs.replace(
            features,
            prompt_tokens=features.prompt_tokens + record.continued_bytes // 4,
            max_prompt_tokens=features.max_prompt_tokens + record.continued_bytes,
        )
        prompt = msgspec.structs.replace(prompt, max_tokens=attempt.max_tokens or prompt.max_tokens)
    spend = build_spend_limit(limit - used, None, None)
    margin = record.dependencies.limits.price_margin
    quote = quote_model(record.knowledge.pool_model(model), prompt, features, spend, margin)
    if quote.held_nano is None:
        return None
    max_tokens = quote.max_tokens or attempt.max_tokens
    return msgspec.structs.replace(attempt, held_nano=quote.held_nano, max_tokens=max_tokens)


def _close_with_error(record: RequestRecord, error: SophiaError) -> SophiaError:
    record.close(error.status, error.error_type)
    return error


class _AttemptRun:
    """One dispatch."""

    def __init__(  # noqa: PLR0913 - what differs from one dispatch to the next
        self,
        record: RequestRecord,
        attempt: Attempt,
        target: ChainTarget,
        fields: Fields | None,
        *,
        keep_plan: bool,
        last: bool,
    ) -> None:
        request, plan, parts = record.request, record.decision.plan, record.dependencies
        model = record.knowledge.find(attempt.model)
        if model is None:
            raise LookupError(f"{attempt.model} is planned, but not in the catalogue of the plan")
        self._record = record
        self._exchange: DispatchedCall | None = None
        self._result = AttemptResult()
        self._upstream = target.deployment.upstream
        self.fields = fields
        fields = request.fields if fields is None else fields
        if attempt.model != plan.attempts[0].model or plan.policy != "named":
            fields, notes = adapt_fields(fields, model)
            record.adapted += [note for note in notes if note not in record.adapted]
        key = self.target = target.key
        self.failure: UpstreamFailure | None = None
        self.report = parts.health.begin(
            key, parts.ledger.clock.monotonic(), plan.features.prompt_tokens
        )
        self.spec = AttemptSpec(
            attempt=attempt,
            model=model,
            upstream=self._upstream.name,
            reports_cost=self._upstream.can_fetch_usage,
            prompt_tokens=plan.features.prompt_tokens + record.continued_bytes // 4,
            encoded_plan=parts.encode_plan(plan) if keep_plan else None,
        )
        self._call = UpstreamCall(
            request_id=encode_id("req", request.id),
            endpoint=request.endpoint,
            model=record.decision.upstream_ids.get(attempt.model, target.deployment.served_as),
            fields=fields,
            stream=request.stream,
            deadlines=_remaining_deadlines(record, target, last=last),
            max_tokens=attempt.max_tokens or _limit_answer(request, plan, model, self._upstream),
            max_tokens_field=request.max_tokens_field,
            price_ceiling=record.knowledge.price_ceiling(
                model, plan.features.max_prompt_tokens, parts.limits.price_margin
            ),
            choices=request.prompt.choice_count,
            may_repeat=record.take_dispatch,
        )

    async def run(self, reservation: Reservation, *, last: bool) -> Answer:
        """Return the answer once there is content; settle when the caller leaves before.

        Raises UpstreamFailure.
        """
        result, upstream, has_content = self._result, self._upstream, False
        buffered: deque[ChunkBatch] = deque()
        size = 0
        try:
            exchange = self._exchange = await upstream.open(self._call)
            # The upstream may have been asked twice.
            last = last or not (self._record.may_dispatch or self._record.is_raced)
            result.generation_id = exchange.generation_id
            if result.generation_id and upstream.can_fetch_usage and not exchange.is_received:
                reservation.note_generation(result.generation_id)
            while not has_content and (batch := await exchange.next()) is not None:
                update_attempt_result(result, batch)
                if batch.finish_reason is None and upstream.can_fetch_usage:
                    reservation.note_generation(result.generation_id)
                buffered.append(batch)
                has_content = batch.has_content
                size += 0 if has_content else _check_size(batch, size)
            if has_content:
                result.first_content_at = self._record.dependencies.ledger.clock.monotonic()
            if not (has_content and last):
                self._check_content(buffered, has_content=has_content, last=last)
        except UpstreamFailure as failure:
            self.failure = failure
            raise
        except BaseException as error:
            self._settle_interrupted(reservation, error)
            raise
        running = RunningAttempt(
            reservation=reservation,
            upstream=upstream,
            exchange=exchange,
            result=result,
            buffered=buffered,
            report=self.report,
        )
        return Answer(self._record, running)

    def _check_content(
        self, buffered: Sequence[ChunkBatch], *, has_content: bool, last: bool
    ) -> None:
        """Raise UpstreamFailure for an answer of no use, unless it is the last one."""
        result, request = self._result, self._record.request
        is_empty = not has_content and result.finish_reason in _EMPTY_REASONS
        if is_empty and not (last or self._record.may_be_complete):
            raise UpstreamFailure(FailureKind.EMPTY, "the answer was empty")
        if request.hints.cut_repetition and not (last or request.stream):
            chunks = [chunk for batch in buffered for chunk in batch.chunks]
            if RepetitionDetector().repeats(chunks):
                raise UpstreamFailure(FailureKind.REPETITION, REPETITION_MESSAGE)

    def _settle_interrupted(self, reservation: Reservation, error: BaseException) -> None:
        """Settle an attempt that was cancelled, or that failed by a mistake of our own."""
        record = self._record
        status, cause = record.dependencies.cancellation
        if isinstance(error, CancelledBeforeSending):
            outcome = self._release_unsent(reservation, cause)
            if record.is_raced:
                record.outcomes.append(outcome)
            else:
                record.finish(outcome, status, cause)
        elif record.is_raced and isinstance(error, asyncio.CancelledError):
            self._lose(reservation)
        elif isinstance(error, asyncio.CancelledError):
            self._abandon(reservation, status, cause)
        else:
            # The upstream may bill all the same.
            self._abandon(reservation, 500, "internal")

    def settle_failure(self, reservation: Reservation, failure: UpstreamFailure) -> AttemptOutcome:
        """Settle a failed attempt at its cost, as far as that is known."""
        if self._exchange is not None:
            self._exchange.close()
        result = self._result
        if failure.received is not None:
            update_attempt_result(result, failure.received)
        result.provider = failure.provider or result.provider
        row = classify(failure)
        result.failure = describe_failure(failure)
        if row.health is HealthEffect.REMOVE:
            log.warning("%s at %s is gone: %s", *reversed(self.target), failure.message)
        now = self._record.dependencies.ledger.clock.monotonic()
        self.report.fail(row, result.failure, now, failure.retry_after)
        if result.is_chargeable:
            return reservation.settle(result)
        if row.may_be_billed and failure.sent:
            return reservation.close_unknown(result)
        return reservation.release(result)

    def _release_unsent(self, reservation: Reservation, cause: str) -> AttemptOutcome:
        """Settle an attempt of which nothing was sent when it was cancelled."""
        self.report.drop()
        self._result.failure = cause
        return reservation.release(self._result)

    def _abandon(self, reservation: Reservation, status: int, cause: str) -> None:
        """Cancel an attempt that nothing waits for, and settle once its bill is known."""
        self.report.drop()
        self._result.failure = cause
        record, exchange = self._record, self._exchange
        finish = partial(record.finish, status=status, error_type=cause)
        on_settled = record.outcomes.append if record.is_raced else finish
        reconciler = record.dependencies.reconciler
        if exchange is not None and status == CLIENT_GONE and self._upstream.is_drained:
            reconciler.drain(exchange, reservation, self._result, on_settled)
            return
        if exchange is not None:
            exchange.close()
        reconciler.schedule(self._upstream, reservation, self._result, on_settled)

    def _lose(self, reservation: Reservation) -> None:
        """Cancel the attempt that lost a race, at its probable cost until its bill is known."""
        self.report.drop()
        self._result.failure = LOST
        if self._exchange is not None:
            self._exchange.close()
        self._record.outcomes.append(reservation.close_unknown(self._result))


def _limit_answer(request: Request, plan: Plan, model: Model, upstream: Upstream) -> int | None:
    """Return the model's own limit, on which the reservation is based.

    That is where the caller asks for more, or asks for no limit at an upstream that reports no
    bills. None where it is not needed, or the context leaves less room.
    """
    longest, wanted = model.max_output_tokens, request.prompt.max_tokens
    if longest is None or (wanted is not None and wanted <= longest):
        return None
    if wanted is None and upstream.can_fetch_usage:
        return None
    # Twice, since the prompt's tokens are an estimate.
    has_room = 2 * plan.features.prompt_tokens + longest <= model.context_length
    return longest if has_room or wanted is not None else None


def _check_size(batch: ChunkBatch, size: int) -> int:
    """Return the bytes of a batch without content. Raises UpstreamFailure beyond the limit."""
    added = sum(map(len, batch.chunks))
    if size + added > _MAX_EMPTY_BYTES:
        raise UpstreamFailure(FailureKind.MALFORMED, "the chunks have no content")
    return added


def _remaining_deadlines(record: RequestRecord, target: ChainTarget, *, last: bool) -> Deadlines:
    """Return the deadlines of the next attempt, within the rest of the request's own.

    The first content of a stream is expected as soon as the target usually begins, unless it
    thinks first, or nothing else is left to ask.
    """
    parts, request = record.dependencies, record.request
    limits = parts.limits
    deadlines = limits.deadlines if request.stream else limits.non_streaming_deadlines
    if request.stream and not (last or request.prompt.reasoning):
        tokens = record.decision.plan.features.prompt_tokens
        usual = parts.health.first_content_limit(target.key, tokens, deadlines.content)
        if usual < deadlines.content:
            floor = deadlines.content * MIN_CONTENT_SHARE
            deadlines = replace(deadlines, content=max(usual, floor))
    is_first = not record.outcomes and request.deadline is None
    if is_first and deadlines.total <= limits.request_timeout_seconds:
        return deadlines
    left = max(remaining_seconds(record), 0.01)
    if left >= deadlines.total:
        return deadlines
    return replace(
        deadlines,
        content=min(deadlines.content, left),
        stall=min(deadlines.stall, left),
        total=left,
    )
