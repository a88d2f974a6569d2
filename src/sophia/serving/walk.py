"""Try a plan's attempts in order until one of them says something; chooses nothing."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from sophia.core.calls import Call, Deadlines, Piece
from sophia.core.errors import SophiaError
from sophia.core.failures import FailureKind, UpstreamFailure
from sophia.core.ids import encode
from sophia.core.ports import Exchange
from sophia.core.rows import Outcome
from sophia.routing.nouns import Attempt
from sophia.serving.answer import Answer, Committed, Record, note
from sophia.serving.desk import Desk
from sophia.serving.failures import Step, Tried, as_error, may_bill, next_step
from sophia.serving.tab import Answered, Bid, Payer, Tab


async def walk(
    desk: Desk, record: Record, payer: Payer, instead: Sequence[Attempt] = (), first: int = 0
) -> Answer:
    """Return the first attempt that answers, committed at its first content.

    Args:
        desk: the standing parts.
        record: where the request's outcomes are put down.
        payer: whose budget pays.
        instead: attempts in place of the plan's.
        first: the number of the first of these attempts; numbers are not used twice.

    Raises:
        SophiaError: no attempt answered, the caller's request is at fault, or money ran out.
    """
    tried: list[Tried] = []
    attempts = instead or record.decision.plan.attempts
    for number, attempt in enumerate(attempts, first):
        if tried and _exceeds(payer.per_request, record.cost_nano + attempt.held_nano):
            continue
        step = _Attempt(desk, record, attempt, keep_plan=number == 0)
        try:
            tab = await desk.books.open(payer, record.request.id, number, step.bid)
        except SophiaError as error:
            # Out of money in mid-failover: what failed before is the better news.
            raise _closed(record, as_error(tried, told=False) if tried else error) from error
        try:
            committed = await step.run(tab, last=attempt is attempts[-1])
        except UpstreamFailure as failure:
            record.outcomes.append(step.failed(tab, failure))
            tried.append(Tried(attempt.model, failure))
            if next_step(failure) is Step.TELL:
                raise _closed(record, as_error(tried, told=True)) from failure
            continue
        except asyncio.CancelledError:
            step.abandoned(tab, 499, "client_gone")
            raise
        except BaseException:
            step.abandoned(tab, 500, "internal")
            raise
        return Answer(record, committed)
    told = next_step(tried[-1].failure) is Step.TELL
    raise _closed(record, as_error(tried, told=told))


def _exceeds(limit: int | None, amount: int) -> bool:
    return limit is not None and amount > limit


def _closed(record: Record, error: SophiaError) -> SophiaError:
    record.close(error.status, error.error_type)
    return error


class _Attempt:
    """One dispatch of a walk."""

    def __init__(self, desk: Desk, record: Record, attempt: Attempt, *, keep_plan: bool) -> None:
        request, plan = record.request, record.decision.plan
        model = record.knowledge.find(attempt.model)
        if model is None:
            raise LookupError(f"{attempt.model} is planned, but not in the catalogue of the plan")
        self._desk = desk
        self._record = record
        self._exchange: Exchange | None = None
        self._answered = Answered()
        self._upstream, served = desk.upstreams.serving(attempt.model)
        kept = desk.encode(plan) if keep_plan else None
        self.bid = Bid(attempt, model, self._upstream.name, plan.features.prompt_tokens, kept)
        self._call = Call(
            encode("req", request.id),
            request.endpoint,
            record.decision.served_ids.get(attempt.model, served),
            request.fields,
            request.stream,
            _deadlines(desk, record),
            attempt.max_tokens,
            request.max_tokens_field,
            record.knowledge.price_ceiling(
                model, plan.features.max_prompt_tokens, desk.limits.price_headroom
            ),
            request.prompt.choices,
        )

    async def run(self, tab: Tab, *, last: bool) -> Committed:
        """Dispatch, and hold everything back until there is content. Raises UpstreamFailure."""
        exchange = self._exchange = await self._upstream.open(self._call)
        opening: deque[Piece] = deque()
        answered = self._answered
        answered.generation_id = exchange.generation_id
        while True:
            piece = await exchange.next()
            if piece is None:
                break
            note(answered, piece)
            opening.append(piece)
            if piece.content:
                answered.first_content_at = self._desk.books.clock.monotonic()
                return Committed(tab, self._upstream, exchange, answered, opening)
        if last or answered.finish_reason != "stop":
            return Committed(tab, self._upstream, exchange, answered, opening)
        raise UpstreamFailure(FailureKind.EMPTY, "the answer was empty")

    def failed(self, tab: Tab, failure: UpstreamFailure) -> Outcome:
        """Settle a failed attempt at what it cost, as far as that is known."""
        if self._exchange is not None:
            self._exchange.close()
        answered = self._answered
        answered.provider = failure.provider or answered.provider
        answered.failure = _cause(failure)
        if answered.usage is not None:
            return tab.settle(answered)
        if may_bill(failure):
            return tab.doubt(answered)
        return tab.release(answered.failure, answered)

    def abandoned(self, tab: Tab, status: int, cause: str) -> None:
        """Nobody waits any more: cancel, and settle when the bill is known."""
        self._answered.failure = cause
        record = self._record
        if self._exchange is not None:
            self._exchange.close()

        def closed() -> None:
            if tab.outcome is not None:
                record.outcomes.append(tab.outcome)
            record.close(status, cause)

        self._desk.reconciler.later(self._upstream, tab, self._answered, closed)


def _cause(failure: UpstreamFailure) -> str:
    return f"{failure.kind}:{failure.status}" if failure.status else str(failure.kind)


def _deadlines(desk: Desk, record: Record) -> Deadlines:
    """Return the clocks of the next attempt, inside what is left of the request's own."""
    limits, request = desk.limits, record.request
    clocks = limits.deadlines if request.stream else limits.whole_deadlines
    if not record.outcomes and request.deadline is None and clocks.total <= limits.request_seconds:
        return clocks
    spent = desk.books.clock.monotonic() - request.arrived
    left = max((request.deadline or limits.request_seconds) - spent, 0.01)
    if left >= clocks.total:
        return clocks
    return replace(
        clocks, content=min(clocks.content, left), stall=min(clocks.stall, left), total=left
    )
