"""Check an answer before the caller has it, and ask a better model when that pays."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec import Struct, json

from sophia.core.errors import SophiaError
from sophia.core.failures import UpstreamFailure
from sophia.core.ids import MAX_ATTEMPTS, encode
from sophia.core.rows import OWN, REJECTED, RUBRIC, Feedback
from sophia.routing.cascade import Signal, Standby
from sophia.routing.nouns import Attempt
from sophia.routing.request import Limits
from sophia.serving import rubric
from sophia.serving.answer import Answer
from sophia.serving.checking import Examiner
from sophia.serving.checks import Said, Verdict, choices, demands, examine
from sophia.serving.decide import Decision
from sophia.serving.desk import Desk
from sophia.serving.failures import Tried, as_error
from sophia.serving.request import Request
from sophia.serving.rubric import Unsettling
from sophia.serving.standbys import Standbys
from sophia.serving.tab import Payer
from sophia.serving.walk import walk
from sophia.tenants.budget import Account

_MOST_BYTES = 8 * 1024 * 1024
_LEAST_SECONDS = 1.0
_FAIR = 0.5
_CHANNELS: Mapping[str, str] = {"rubric": "judge", "webhook": "test"}

_Ask = Callable[[], Awaitable[float | None]]


async def checked(desk: Desk, request: Request, decision: Decision, payer: Payer) -> Answer:
    """Return the first answer that passes its checks, or the last when asking on does not pay.

    All of it was read by then; an answer too long to be held is given out unchecked.

    Raises:
        SophiaError: what the caller is told instead, as for any request.
    """
    webhook = desk.checking.webhook(request.hints.webhook)
    record = Unsettling(desk, request, decision)
    answer = await walk(desk, record, payer)
    return await _Cascade(desk, record, payer, webhook).settle_on(answer)


class _Onward(Struct, frozen=True):
    """Who is asked next, and the check that asks for it."""

    attempt: Attempt
    check: str


class _Cascade:
    """One request whose answers are looked at, from the first to the one that is given."""

    def __init__(
        self, desk: Desk, record: Unsettling, payer: Payer, webhook: Examiner | None
    ) -> None:
        self._desk = desk
        self._record = record
        self._payer = payer
        self._webhook = webhook
        self._demands = demands(record.request.fields)
        self._standbys = Standbys(record, desk.limits.price_headroom, desk.checking.value_nano)
        self._number = 0
        self._kept: Answer | None = None
        self._tried: list[Tried] = []

    async def settle_on(self, answer: Answer) -> Answer:
        """Return `answer` or a better one. Raises SophiaError when all of them broke off."""
        while True:
            self._number = max(self._number, answer.number)
            try:
                onward = await self._look(answer)
                if onward is None:
                    return answer
                answer.reject(REJECTED + onward.check)
                self._kept = answer
            except UpstreamFailure as failure:
                # Nothing of it was given out, so another model can still take over unseen.
                answer.reject(str(failure.kind), broken=True)
                self._tried.append(Tried(answer.model, failure))
                instead = self._next(answer, 0.0, any_price=True)
                onward = _onward(answer, instead, "", "it broke off")
            except BaseException:
                answer.close()
                raise
            following = await self._ask(onward.attempt) if onward is not None else None
            if following is None:
                return self._give()
            answer = following

    async def _look(self, answer: Answer) -> _Onward | None:
        """Return whom to ask instead, None to keep the answer. Raises UpstreamFailure."""
        if not await answer.hold(_MOST_BYTES):
            return None
        said = choices(chunk for piece in answer.held for chunk in piece.chunks)
        clamped = answer.attempt.max_tokens is not None
        verdicts = examine(said, self._demands, clamped=clamped)
        signals = [Signal(one.check, float(one.passed)) for one in verdicts]
        if all(one.passed for one in verdicts) and said:
            signals += await self._marks(answer, said[0], signals)
        good = self._standbys.chance(answer.model, signals)
        failed = [signal for signal in signals if signal.value < _FAIR]
        self._keep(answer, verdicts, signals)
        if not failed:
            return None
        instead = self._next(answer, good)
        if instead is not None:
            self._standbys.failed(answer.model, good)
        return _onward(answer, instead, failed[0].check, _why(failed[0], verdicts))

    async def _marks(self, answer: Answer, said: Said, signals: Sequence[Signal]) -> list[Signal]:
        """Ask those whose mark could change anything, one after the other."""
        given: list[Signal] = []
        asking: dict[str, _Ask] = {}
        if self._webhook is not None:
            asking["webhook"] = lambda: self._examined(answer, said)
        named = self._desk.checking.rubric
        # A maker's models think well of each other's answers, so another maker's is asked.
        if named is not None and named.partition("/")[0] != answer.model.partition("/")[0]:
            asking["rubric"] = lambda: self._marked(answer, said)
        for check, ask in asking.items():
            worst = self._standbys.chance(answer.model, [*signals, *given, Signal(check, 0.0)])
            if self._next(answer, worst) is not None:
                mark = await ask()
                given += [] if mark is None else [Signal(check, mark)]
        return given

    async def _examined(self, answer: Answer, said: Said) -> float | None:
        request = self._record.request
        sent = {
            "decision_id": encode("dec", request.id),
            "model": answer.model,
            "request": {name: request.fields[name] for name in _SHOWN if name in request.fields},
            "answer": said,
        }
        return await self._webhook(json.encode(sent)) if self._webhook is not None else None

    async def _marked(self, answer: Answer, said: Said) -> float | None:
        self._number += 1
        paper = rubric.Paper(said, self._limits(answer), self._number)
        return await rubric.mark(self._desk, self._record, self._payer, paper)

    def _next(self, answer: Answer, good: float, *, any_price: bool = False) -> Standby | None:
        """Return whom to ask in place of `answer`, while attempts, time and money are left."""
        desk, record = self._desk, self._record
        made = [one for one in record.outcomes if one.finish_reason != RUBRIC]
        tried = len(made) + (answer.outcome is None)
        spent = desk.books.clock.monotonic() - record.request.arrived
        deadline = record.request.deadline or desk.limits.request_seconds
        if tried >= desk.limits.max_attempts or self._number >= MAX_ATTEMPTS - 1:
            return None
        if deadline - spent < _LEAST_SECONDS:
            return None
        limits = self._limits(answer)
        return self._standbys.next(answer.model, good, limits, any_price=any_price)

    def _limits(self, answer: Answer) -> Limits:
        """Return what is left of the request's and the key's limits once `answer` is paid."""
        desk, payer, record = self._desk, self._payer, self._record
        spent, held = desk.books.coordinator.standing(payer.key_id, payer.window)
        budget = Account(spent, held).left(payer.limit)
        cost = record.cost_nano
        if answer.outcome is None:
            cost += answer.cost_nano
            if budget is not None:
                budget = max(budget + answer.attempt.held_nano - answer.cost_nano, 0)
        # What the caller allows for an attempt, all of them together must keep here.
        ceilings = (payer.per_request, record.request.hints.max_cost_nano)
        bounds = [ceiling - cost for ceiling in ceilings if ceiling is not None]
        each = max(min(bounds), 0) if bounds else None
        return Limits(each, budget, 1, desk.limits.price_headroom)

    async def _ask(self, attempt: Attempt) -> Answer | None:
        """Return what `attempt` answers, or None when it does not."""
        self._number += 1
        self._record.muted = True
        try:
            return await walk(self._desk, self._record, self._payer, (attempt,), self._number)
        except SophiaError:
            return None
        finally:
            self._record.muted = False

    def _give(self) -> Answer:
        """Return the answer that came whole, although it failed. Raises SophiaError without one."""
        record, kept = self._record, self._kept
        if kept is None or kept.outcome is None:
            error = as_error(self._tried, told=False)
            record.close(error.status, error.error_type)
            raise error
        record.outcomes.remove(kept.outcome)
        record.outcomes.append(kept.outcome)
        record.close(200)
        return kept

    def _keep(self, answer: Answer, verdicts: Sequence[Verdict], signals: Sequence[Signal]) -> None:
        """Put down what was found, as feedback on the decision's own arm."""
        keeping, request = self._desk.checking.verdicts, self._record.request
        if keeping is None or answer.attempt is not self._record.decision.plan.attempts[0]:
            return
        failed = ",".join(one.check for one in verdicts if not one.passed)
        said = [("validator", 0.0 if failed else 1.0, failed or "passed")]
        said += [
            (_CHANNELS[one.check], one.value, one.check)
            for one in signals
            if one.check in _CHANNELS
        ]
        decision, now = encode("dec", request.id), int(self._desk.books.clock.wall() * 1000)
        for channel, score, label in said:
            # No caller's key begins like this, so none can speak in Sophia's place.
            key = f"{OWN}{decision}:{channel}"
            row = Feedback(key, request.id, self._payer.key_id, score, label, 0, None, channel, now)
            keeping.add(row, answer.model)


_SHOWN = ("messages", "prompt", "response_format", "tools")


def _onward(answer: Answer, instead: Standby | None, check: str, why: str) -> _Onward | None:
    if instead is None:
        return None
    reason = f"{answer.model} was asked first, but {why}."
    attempt = Attempt(instead.model, reason, instead.expected, instead.held, instead.max_tokens)
    return _Onward(attempt, check)


def _why(failed: Signal, verdicts: Sequence[Verdict]) -> str:
    for verdict in verdicts:
        if verdict.check == failed.check:
            return verdict.why
    return f"the {failed.check} gives its answer {failed.value:.2f}"
