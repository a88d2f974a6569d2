"""One attempt's money: held and durable before dispatch, settled exactly once after it."""

from dataclasses import dataclass

from msgspec import Struct

from sophia.catalogue.model import Model
from sophia.core.calls import Usage
from sophia.core.ids import attempt_id
from sophia.core.ports import Clock, Coordinator, Store
from sophia.core.rows import AttemptState, Intent, Outcome
from sophia.ledger import cost
from sophia.routing.nouns import Attempt
from sophia.tenants.budget import day_window


class Payer(Struct, frozen=True):
    """Whose budget pays: a key, its limits in nano-dollars and the window that is charged."""

    key_id: str
    limit: int | None
    window: str
    per_request: int | None = None


@dataclass(slots=True)
class Books:
    """Where money is written down."""

    coordinator: Coordinator
    store: Store
    clock: Clock
    _day: int = -1
    _window: str = ""

    def payer(self, key_id: str, limit: int | None, per_request: int | None = None) -> Payer:
        """Return who pays for a request that arrives now."""
        now = self.clock.wall()
        day = int(now // 86400)
        if day != self._day:
            self._day, self._window = day, day_window(now)
        return Payer(key_id, limit, self._window, per_request)

    async def open(self, payer: Payer, request_id: int, number: int, bid: "Bid") -> "Tab":
        """Hold the worst case of an attempt and make the intent durable.

        Raises:
            BudgetExceeded: the budget does not pay for it; nothing is held.
            Unavailable: the ledger cannot take the intent; nothing is held.
        """
        held = bid.attempt.held_nano
        await self.coordinator.reserve(payer.key_id, payer.window, payer.limit, held)
        tab = Tab(self, payer, attempt_id(request_id, number), bid)
        try:
            await self.store.reserve(
                Intent(
                    tab.id,
                    payer.key_id,
                    payer.window,
                    bid.attempt.model,
                    bid.upstream,
                    held,
                    int(self.clock.wall() * 1000),
                    bid.plan,
                )
            )
        except BaseException:
            tab.release("not_dispatched")
            raise
        return tab


class Bid(Struct, frozen=True):
    """An attempt about to be made: the plan's step, its model's facts, and where it goes.

    The first one of a request brings the plan as JSON, to be kept.
    """

    attempt: Attempt
    model: Model
    upstream: str
    prompt_tokens: int
    plan: bytes | None = None


@dataclass(slots=True)
class Answered:
    """What came back of an attempt, as far as it came."""

    usage: Usage | None = None
    chars: int = 0
    finish_reason: str | None = None
    failure: str | None = None
    generation_id: str | None = None
    provider: str | None = None
    first_content_at: float | None = None


class Tab:
    """The open bill of one attempt."""

    def __init__(self, books: Books, payer: Payer, id: int, bid: Bid) -> None:
        self.id = id
        self.bid = bid
        self.outcome: Outcome | None = None
        self._books = books
        self._payer = payer
        self._started = books.clock.monotonic()

    def release(self, failure: str, answered: Answered | None = None) -> Outcome:
        """Close the tab at no cost: the upstream does not bill for what happened."""
        seen = answered or Answered()
        seen.failure = failure
        return self._close("released", seen, cost.Cost(0, "none", 0, Usage()))

    def settle(self, answered: Answered) -> Outcome:
        """Close the tab at what the answer cost."""
        return self._close("settled", answered, self.bill(answered))

    def bill(self, answered: Answered) -> cost.Cost:
        """Return what the answer costs, as far as it came."""
        bid = self.bid
        return cost.settle(answered.usage, bid.model.prices, bid.prompt_tokens, answered.chars)

    def doubt(self, answered: Answered) -> Outcome:
        """Close the tab as unknown: the upstream may bill, so the hold stays charged."""
        held = self.bid.attempt.held_nano
        return self._close("unknown", answered, cost.Cost(held, "estimated", held, Usage()))

    def _close(self, state: AttemptState, seen: Answered, bill: cost.Cost) -> Outcome:
        if self.outcome is not None:
            return self.outcome
        books, payer, usage = self._books, self._payer, bill.usage
        held = self.bid.attempt.held_nano
        if state != "unknown":
            books.coordinator.settle(payer.key_id, payer.window, held, bill.nano)
        now = books.clock.monotonic()
        first = seen.first_content_at
        self.outcome = Outcome(
            self.id,
            payer.key_id,
            payer.window,
            self.bid.attempt.model,
            state,
            bill.nano,
            bill.source,
            bill.estimate_nano,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens,
            seen.finish_reason,
            seen.failure,
            seen.generation_id,
            seen.provider,
            None if first is None else (first - self._started) * 1000,
            (now - self._started) * 1000,
            int(books.clock.wall() * 1000),
        )
        books.store.settle(self.outcome)
        return self.outcome
