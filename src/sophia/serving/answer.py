"""A committed answer: pieces for the caller, and a bill that is settled whatever happens."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from sophia.core.calls import Piece, Usage
from sophia.core.events import Settled
from sophia.core.failures import UpstreamFailure
from sophia.core.ids import MAX_ATTEMPTS
from sophia.core.ports import Exchange, Upstream
from sophia.core.rows import RUBRIC, Outcome
from sophia.routing.arms import mode_of
from sophia.routing.nouns import Attempt
from sophia.serving.decide import Decision
from sophia.serving.desk import Desk
from sophia.serving.ear import Ear, Ending
from sophia.serving.request import Request
from sophia.serving.tab import Answered, Tab


@dataclass(slots=True)
class Committed:
    """The attempt that answers: its tab, its exchange, and what it has said so far."""

    tab: Tab
    upstream: Upstream
    exchange: Exchange
    answered: Answered
    opening: deque[Piece]


class Record:
    """What one request leaves behind: its outcomes, and one event for the sinks."""

    def __init__(self, desk: Desk, request: Request, decision: Decision) -> None:
        self.desk = desk
        self.request = request
        self.decision = decision
        self.knowledge = desk.knowledge
        self.outcomes: list[Outcome] = []

    @property
    def cost_nano(self) -> int:
        """What all attempts together cost, in nano-dollars."""
        outcomes = self.outcomes
        return outcomes[0].cost_nano if len(outcomes) == 1 else sum(o.cost_nano for o in outcomes)

    def close(self, status: int, error_type: str | None = None) -> None:
        """Tell the sinks."""
        request, desk, plan = self.request, self.desk, self.decision.plan
        last = self.outcomes[-1] if self.outcomes else None
        model = last.model if last is not None else plan.attempts[0].model
        first = last.first_content_ms if last is not None else None
        event = Settled(
            request.id,
            request.endpoint,
            request.model,
            model,
            last.provider if last is not None else None,
            desk.upstreams.serving(model)[0].name,
            plan.rule or plan.policy,
            plan.features.task_type,
            request.stream,
            status,
            last.finish_reason if last is not None else None,
            error_type,
            self.cost_nano,
            last.prompt_tokens if last is not None else 0,
            last.completion_tokens if last is not None else 0,
            desk.books.clock.monotonic() - request.arrived,
            None if first is None else first / 1000,
            tuple(self.outcomes),
            plan.features.output_tokens * request.prompt.choices,
            mode_of(request.prompt),
        )
        for sink in desk.sinks:
            sink.emit(event)


class Answer:
    """What the caller reads from. `next` until None, and `close` in a `finally`, always."""

    def __init__(self, record: Record, committed: Committed) -> None:
        self.record = record
        self.model = committed.tab.bid.attempt.model
        self.outcome: Outcome | None = None
        self.ear: Ear | None = None
        self._committed = committed
        self._open = True

    @property
    def usage(self) -> Usage | None:
        """Tokens of the answer, known once the upstream has told them."""
        return self._committed.answered.usage

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, known once it has."""
        return self._committed.answered.finish_reason

    @property
    def attempt(self) -> Attempt:
        """The step of the plan that answers."""
        return self._committed.tab.bid.attempt

    @property
    def number(self) -> int:
        """Which attempt of the request this is, from 0."""
        return self._committed.tab.id & MAX_ATTEMPTS

    @property
    def cost_nano(self) -> int:
        """What the answer costs, as far as it came, in nano-dollars."""
        return self._committed.tab.bill(self._committed.answered).nano

    @property
    def held(self) -> Sequence[Piece]:
        """What was read ahead and not given out yet."""
        return self._committed.opening

    async def hold(self, most: int) -> bool:
        """Read ahead to the end, so that the answer can be looked at before it is given out.

        Returns:
            Whether all of it is `held`; False when it is longer than `most` bytes.

        Raises:
            UpstreamFailure: the answer broke off; nothing is settled yet.
        """
        committed = self._committed
        size = sum(len(chunk) for piece in committed.opening for chunk in piece.chunks)
        while size <= most:
            piece = await committed.exchange.next()
            if piece is None:
                return True
            note(committed.answered, piece)
            committed.opening.append(piece)
            size += sum(map(len, piece.chunks))
        return False

    def reject(self, cause: str, *, broken: bool = False) -> None:
        """Settle an answer in whose place another one is asked for; what is held stays readable.

        What broke off without a bill stays in doubt, with its hold charged.
        """
        committed = self._committed
        self._open = False
        committed.exchange.close()
        answered = committed.answered
        answered.failure = cause
        answered.generation_id = answered.generation_id or committed.exchange.generation_id
        doubtful = broken and answered.usage is None
        self.outcome = (committed.tab.doubt if doubtful else committed.tab.settle)(answered)
        self.record.outcomes.append(self.outcome)

    def judged(self, mark: str) -> None:
        """Settle an answer that was for Sophia's own use; `mark` stands as its finish reason."""
        committed = self._committed
        self._open = False
        committed.exchange.close()
        committed.answered.finish_reason = mark
        self.outcome = committed.tab.settle(committed.answered)
        self.record.outcomes.append(self.outcome)

    async def next(self) -> Piece | None:
        """Return what came next; None after a complete answer, which is settled by then.

        Raises:
            UpstreamFailure: the answer broke off; what came until then is settled.
        """
        committed = self._committed
        if committed.opening:
            return self._heard(committed.opening.popleft())
        if self.outcome is not None:
            self._over(complete=True)
            return None
        try:
            piece = await committed.exchange.next()
        except UpstreamFailure as failure:
            committed.answered.failure = str(failure.kind)
            self._abandon(status=502, error_type=str(failure.kind))
            raise
        if piece is None:
            self._finish()
            return None
        note(committed.answered, piece)
        return self._heard(piece)

    def _heard(self, piece: Piece) -> Piece:
        if self.ear is not None:
            self.ear.hear(piece)
        return piece

    def _over(self, *, complete: bool) -> None:
        """Tell who listens."""
        if self.ear is not None:
            clamped = self.attempt.max_tokens is not None
            marked = any(one.finish_reason == RUBRIC for one in self.record.outcomes)
            ending = Ending(self.model, self.finish_reason, complete, clamped, marked)
            self.ear.end(ending)

    def _finish(self) -> None:
        committed = self._committed
        self._open = False
        committed.exchange.close()
        self.outcome = committed.tab.settle(committed.answered)
        self.record.outcomes.append(self.outcome)
        self.record.close(200)
        self._over(complete=True)

    def _abandon(self, status: int, error_type: str) -> None:
        """End an answer that is not complete: cancel it, and settle what it really cost."""
        committed, record = self._committed, self.record
        self._open = False
        committed.exchange.close()
        answered = committed.answered
        answered.generation_id = answered.generation_id or committed.exchange.generation_id
        if answered.usage is not None:
            record.outcomes.append(committed.tab.settle(answered))
            record.close(status, error_type)
            return

        def closed() -> None:
            if committed.tab.outcome is not None:
                record.outcomes.append(committed.tab.outcome)
            record.close(status, error_type)

        record.desk.reconciler.later(committed.upstream, committed.tab, answered, closed)

    def close(self) -> None:
        """Release everything; an answer that nobody waits for is cancelled and settled."""
        if self._open:
            self._committed.answered.failure = "client_gone"
            self._abandon(status=499, error_type="client_gone")
            self._over(complete=False)


def note(answered: Answered, piece: Piece) -> None:
    """Add what `piece` says to what is known of an attempt."""
    answered.chars += piece.text_chars
    if piece.usage is not None:
        answered.usage = piece.usage
    if piece.finish_reason is not None:
        answered.finish_reason = piece.finish_reason
    if piece.provider is not None:
        answered.provider = piece.provider
    if piece.id is not None:
        answered.generation_id = answered.generation_id or piece.id
