"""Run a plan's attempts in order until one answers or the request's limit is spent."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import msgspec

from sophia.core.calls import ChunkBatch, Deadlines, UpstreamCall
from sophia.core.errors import SophiaError
from sophia.core.failures import CancelledBeforeSending, FailureKind, UpstreamFailure
from sophia.core.ids import encode_id
from sophia.core.ports import DispatchedCall
from sophia.core.rows import AttemptOutcome
from sophia.routing.quotes import build_spend_limit, quote_model
from sophia.routing.types import Attempt
from sophia.serving.attempts.answer import Answer, RequestRecord, update_attempt_result
from sophia.serving.attempts.dispatch import Deployment
from sophia.serving.attempts.failures import (
    FailedAttempt,
    build_attempts_error,
    build_caller_error,
    is_caller_fault,
    may_be_billed,
)
from sophia.serving.attempts.reservation import AttemptResult, AttemptSpec, BudgetScope, Reservation

_MAX_EMPTY_BYTES = 1 << 20
"""Longest beginning of an answer without content, which is held back."""


async def run_attempts(
    record: RequestRecord,
    scope: BudgetScope,
    attempts: Sequence[Attempt],
    numbers: Iterator[int] | None = None,
) -> Answer:
    """Return the first attempt that answers, committed at its first content.

    A model's other deployments come before the next model. Each attempt takes the next of
    `numbers`, by default of the request's own, which uses none twice; none is made without one.

    Raises:
        SophiaError: no attempt answered, the caller's request is at fault, or money ran out.
    """
    failed: list[FailedAttempt] = []
    tries = _list_tries(record, attempts)
    numbers, at, repeated = numbers or record.numbers, 0, False
    while at < len(tries) and (number := next(numbers, None)) is not None:
        attempt, deployment = tries[at]
        at += 1
        fitting = _fit_to_limit(record, attempt, scope.per_request_limit)
        if fitting is None:
            continue
        attempt = fitting
        run = _AttemptRun(record, attempt, deployment, keep_plan=number == 0)
        try:
            reservation = await record.dependencies.ledger.reserve(
                scope, record.request.id, number, run.spec
            )
        except SophiaError as error:
            # Out of money in mid-failover: the earlier failures say more.
            raise _close_with_error(
                record, build_attempts_error(failed) if failed else error
            ) from error
        record.upstream = deployment.upstream
        try:
            return await run.run(reservation, last=at == len(tries))
        except UpstreamFailure as failure:
            record.outcomes.append(run.settle_failure(reservation, failure))
            if failure.stale and not repeated:
                # Most likely nobody read it: once more, on a new connection and its own money.
                at, repeated = at - 1, True
                continue
            failed.append(FailedAttempt(attempt.model, deployment.upstream.name, failure))
            if is_caller_fault(failure):
                raise _close_with_error(record, build_caller_error(failed)) from failure
        except CancelledBeforeSending:
            record.finish(run.release_unsent(reservation), 499, "client_gone")
            raise
        except asyncio.CancelledError:
            run.abandon(reservation, 499, "client_gone")
            raise
        except BaseException:
            # Our own mistake: the upstream may bill all the same.
            run.abandon(reservation, 500, "internal")
            raise
    raise _close_with_error(record, build_attempts_error(failed))


def _list_tries(
    record: RequestRecord, attempts: Sequence[Attempt]
) -> list[tuple[Attempt, Deployment]]:
    upstreams, id = record.dependencies.upstreams, record.request.id
    return [
        (attempt, deployment)
        for attempt in attempts
        for deployment in upstreams.deployments(attempt.model, id)
    ]


def _fit_to_limit(record: RequestRecord, attempt: Attempt, limit: int | None) -> Attempt | None:
    """Return `attempt` with an answer that the rest of the request's `limit` covers, or None."""
    if limit is None or not record.outcomes:
        return attempt
    model = record.knowledge.find(attempt.model)
    if model is None or record.cost_nano + attempt.held_nano <= limit:
        return attempt
    plan, limits = record.decision.plan, record.dependencies.limits
    spend = build_spend_limit(limit - record.cost_nano, None, None)
    pool_model, prompt = record.knowledge.pool_model(model), record.request.prompt
    quote = quote_model(pool_model, prompt, plan.features, spend, limits.price_margin)
    if quote.held_nano is None:
        return None
    return msgspec.structs.replace(attempt, held_nano=quote.held_nano, max_tokens=quote.max_tokens)


def _close_with_error(record: RequestRecord, error: SophiaError) -> SophiaError:
    record.close(error.status, error.error_type)
    return error


class _AttemptRun:
    """One dispatch."""

    def __init__(
        self, record: RequestRecord, attempt: Attempt, deployment: Deployment, *, keep_plan: bool
    ) -> None:
        request, plan, parts = record.request, record.decision.plan, record.dependencies
        model = record.knowledge.find(attempt.model)
        if model is None:
            raise LookupError(f"{attempt.model} is planned, but not in the catalogue of the plan")
        self._record = record
        self._exchange: DispatchedCall | None = None
        self._result = AttemptResult()
        self._upstream = deployment.upstream
        self.spec = AttemptSpec(
            attempt=attempt,
            model=model,
            upstream=self._upstream.name,
            prompt_tokens=plan.features.prompt_tokens,
            encoded_plan=parts.encode_plan(plan) if keep_plan else None,
        )
        self._call = UpstreamCall(
            request_id=encode_id("req", request.id),
            endpoint=request.endpoint,
            model=record.decision.upstream_ids.get(attempt.model, deployment.served_as),
            fields=request.fields,
            stream=request.stream,
            deadlines=_remaining_deadlines(record),
            max_tokens=attempt.max_tokens,
            max_tokens_field=request.max_tokens_field,
            price_ceiling=record.knowledge.price_ceiling(
                model, plan.features.max_prompt_tokens, parts.limits.price_margin
            ),
            choices=request.prompt.choice_count,
        )

    async def run(self, reservation: Reservation, *, last: bool) -> Answer:
        """Dispatch, and hold everything back until there is content. Raises UpstreamFailure."""
        exchange = self._exchange = await self._upstream.open(self._call)
        buffered: deque[ChunkBatch] = deque()
        result = self._result
        result.generation_id = exchange.generation_id
        has_content, size = False, 0
        while not has_content and (batch := await exchange.next()) is not None:
            update_attempt_result(result, batch)
            buffered.append(batch)
            has_content = batch.has_content
            if not has_content:
                size += sum(map(len, batch.chunks))
                if size > _MAX_EMPTY_BYTES:
                    raise UpstreamFailure(FailureKind.MALFORMED, "the chunks have no content")
        if has_content:
            result.first_content_at = self._record.dependencies.ledger.clock.monotonic()
        elif not last and result.finish_reason == "stop":
            raise UpstreamFailure(FailureKind.EMPTY, "the answer was empty")
        return Answer(
            self._record,
            reservation=reservation,
            upstream=self._upstream,
            exchange=exchange,
            result=result,
            buffered=buffered,
        )

    def settle_failure(self, reservation: Reservation, failure: UpstreamFailure) -> AttemptOutcome:
        """Settle a failed attempt at its cost, as far as that is known."""
        if self._exchange is not None:
            self._exchange.close()
        result = self._result
        result.provider = failure.provider or result.provider
        kind, status = failure.kind, failure.status
        result.failure = f"{kind}:{status}" if status else str(kind)
        if result.usage is not None:
            return reservation.settle(result)
        if may_be_billed(failure):
            return reservation.close_unknown(result)
        return reservation.release(result)

    def release_unsent(self, reservation: Reservation) -> AttemptOutcome:
        """Settle an attempt of which nothing was sent when the caller left."""
        self._result.failure = "client_gone"
        return reservation.release(self._result)

    def abandon(self, reservation: Reservation, status: int, cause: str) -> None:
        """Cancel an attempt that nothing waits for, and settle once its bill is known."""
        self._result.failure = cause
        if self._exchange is not None:
            self._exchange.close()
        finish = partial(self._record.finish, status=status, error_type=cause)
        reconciler = self._record.dependencies.reconciler
        reconciler.schedule(self._upstream, reservation, self._result, finish)


def _remaining_deadlines(record: RequestRecord) -> Deadlines:
    """Return the deadlines of the next attempt, within the rest of the request's own."""
    limits, request = record.dependencies.limits, record.request
    deadlines = limits.deadlines if request.stream else limits.non_streaming_deadlines
    is_first = not record.outcomes and request.deadline is None
    if is_first and deadlines.total <= limits.request_timeout_seconds:
        return deadlines
    elapsed = record.dependencies.ledger.clock.monotonic() - request.arrived_at
    left = max((request.deadline or limits.request_timeout_seconds) - elapsed, 0.01)
    if left >= deadlines.total:
        return deadlines
    return replace(
        deadlines,
        content=min(deadlines.content, left),
        stall=min(deadlines.stall, left),
        total=left,
    )
