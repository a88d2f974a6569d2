"""Money of one attempt: reserved and durable before dispatch, settled exactly once after it."""

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime

from msgspec import Struct

from sophia.catalogue.model import Model
from sophia.core.calls import ChunkBatch, Deadlines, Usage
from sophia.core.errors import BudgetExceeded
from sophia.core.money import format_usd
from sophia.core.ports import Clock, Leases, Store
from sophia.core.rows import AttemptIntent, AttemptOutcome, AttemptState, UnsettledAttempt
from sophia.ledger.cost import Cost, compute_cost
from sophia.ledger.unknown import UnknownAttempts
from sophia.routing.types import Attempt, CutAction
from sophia.tenants.budget import day_window, seconds_to_next_day
from sophia.tenants.keys import Principal

log = logging.getLogger("sophia.ledger")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeLimits:
    """Defaults of every key. Money in nano-dollars, times in seconds.

    `price_margin` is a percentage added to list prices for reservations.
    """

    daily_budget_nano: int | None
    per_request_nano: int | None
    max_attempts: int
    price_margin: int
    deadlines: Deadlines
    non_streaming_deadlines: Deadlines
    request_timeout_seconds: float
    on_cut: CutAction = "terminate"


class BudgetScope(Struct, frozen=True, kw_only=True):
    """The budget that pays: a key, its limits in nano-dollars and the window that is charged.

    `also` is another account that pays as well, with its own limit.
    """

    key_id: str
    daily_limit: int | None
    window: str
    per_request_limit: int | None = None
    also: tuple[str, int] | None = None

    @property
    def accounts(self) -> tuple[tuple[str, int | None], ...]:
        """The accounts that pay, with their limits."""
        own = self.key_id, self.daily_limit
        return (own,) if self.also is None else (own, self.also)


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Budgets, durable rows and the clock that dates them.

    `running` counts the attempts that are reserved and not settled, `held_nano` is their amount.
    """

    leases: Leases
    store: Store
    clock: Clock
    unknown: UnknownAttempts = field(default_factory=UnknownAttempts)
    running: int = 0
    held_nano: int = 0
    _day: int = -1
    _window: str = ""

    def window(self) -> str:
        """Return the window that is charged now: the day, as an ISO date in UTC."""
        now = self.clock.wall()
        day = int(now // 86400)
        if day != self._day:
            self._day, self._window = day, day_window(now)
        return self._window

    def seconds_to_next_window(self) -> int:
        """Return the seconds until the next window begins."""
        return seconds_to_next_day(self.clock.wall())

    def budget_scope(self, principal: Principal, limits: RuntimeLimits) -> BudgetScope:
        """Return the budget that pays for a request of `principal` arriving now."""
        daily, each = principal.daily_budget_nano, principal.per_request_nano
        return BudgetScope(
            key_id=principal.key_id,
            daily_limit=limits.daily_budget_nano if daily is None else daily,
            window=self.window(),
            per_request_limit=limits.per_request_nano if each is None else each,
        )

    def remaining(self, scope: BudgetScope) -> int | None:
        """Return the nano-dollars left in the window, as far as known; None without a limit."""
        if scope.daily_limit is None:
            return None
        return self.leases.remaining(scope.key_id, scope.window, scope.daily_limit)

    async def refresh(self, scope: BudgetScope) -> None:
        """Learn what is left where that depends on other workers. Raises Unavailable."""
        for account, limit in scope.accounts:
            if limit is not None and self.leases.needs_refresh(account, scope.window, limit):
                await self.leases.refresh(account, scope.window, limit)

    def explain_refusal(self, error: BudgetExceeded, scope: BudgetScope) -> None:
        """Add to a refusal by the daily budget when it is new, and how much is in doubt."""
        error.retry_after = self.seconds_to_next_window()
        unknown = self.unknown.sum_up(scope.key_id, scope.window)
        if unknown.nano:
            until = datetime.fromtimestamp(unknown.until_ms / 1000, UTC)
            error.message += (
                f" {format_usd(unknown.nano)} of the budget is held for calls whose cost is not "
                f"known yet ({unknown.count}), until their bill or {until:%H:%M} UTC. "
                "`GET /v1/key` has all that is held."
            )

    async def reserve(
        self, scope: BudgetScope, request_id: int, number: int, spec: "AttemptSpec"
    ) -> "Reservation":
        """Reserve the worst case of an attempt and make its intent durable.

        Raises:
            BudgetExceeded: the budget does not cover it; nothing is reserved.
            Unavailable: the store cannot take the intent; nothing is reserved.
        """
        held = spec.attempt.held_nano
        leased = await self._reserve_in_accounts(scope, held)
        self.running += 1
        self.held_nano += held
        reservation = Reservation(self, scope, request_id | number, spec, leased)
        try:
            await self.store.reserve(
                AttemptIntent(
                    attempt_id=reservation.id,
                    key_id=scope.key_id,
                    window=scope.window,
                    model=spec.attempt.model,
                    upstream=spec.upstream,
                    held_nano=held,
                    at_ms=int(self.clock.wall() * 1000),
                    plan=spec.encoded_plan,
                    expected_nano=spec.attempt.expected_nano,
                )
            )
        except BaseException:
            # A cancelled request included: without an intent nothing was dispatched.
            reservation.release(AttemptResult(failure="not_dispatched"))
            raise
        return reservation

    async def _reserve_in_accounts(self, scope: BudgetScope, amount: int) -> tuple[str, ...]:
        """Hold an amount in all accounts of a scope; return those where it is of a lease."""
        leases, key_id, window = self.leases, scope.key_id, scope.window
        try:
            is_leased = await leases.reserve(key_id, window, scope.daily_limit, amount)
        except BudgetExceeded as error:
            self.explain_refusal(error, scope)
            raise
        leased = (key_id,) if is_leased else ()
        if scope.also is None:
            return leased
        account, limit = scope.also
        try:
            await leases.reserve(account, window, limit, amount)
        except BaseException:
            # A cancelled request included: nothing stays held in the first account.
            leases.settle(key_id, window, amount, 0, leased=is_leased)
            raise
        return (*leased, account)


class AttemptSpec(Struct, frozen=True, kw_only=True):
    """An attempt about to be made; the first of a request carries the plan as JSON.

    `reports_cost` says whether the upstream can be asked for its bill.
    """

    attempt: Attempt
    model: Model
    upstream: str
    reports_cost: bool
    prompt_tokens: int
    encoded_plan: bytes | None = None


class AttemptResult(Struct, kw_only=True, gc=False):
    """Result of an attempt so far; `first_content_at` is in monotonic seconds.

    `uncovered_bytes` counts the text that came after `usage`.
    """

    usage: Usage | None = None
    text_bytes: int = 0
    uncovered_bytes: int = 0
    finish_reason: str | None = None
    failure: str | None = None
    generation_id: str | None = None
    provider: str | None = None
    first_content_at: float | None = None

    @property
    def has_full_usage(self) -> bool:
        """Whether a usage was reported that covers all of the text."""
        return self.usage is not None and not self.uncovered_bytes

    @property
    def is_chargeable(self) -> bool:
        """Whether usage or text was received."""
        return self.usage is not None or bool(self.text_bytes)


def update_attempt_result(result: AttemptResult, batch: ChunkBatch) -> None:
    """Add the facts of a batch to the result of its attempt."""
    result.text_bytes += batch.text_bytes
    if batch.usage is not None:
        result.usage, result.uncovered_bytes = batch.usage, batch.uncovered_bytes
    else:
        result.uncovered_bytes += batch.text_bytes
    if batch.finish_reason is not None:
        result.finish_reason = batch.finish_reason
    if batch.provider is not None:
        result.provider = batch.provider
    if batch.id is not None:
        result.generation_id = result.generation_id or batch.id


class Reservation:
    """Reserved money of one attempt, until it is settled or released."""

    def __init__(
        self,
        ledger: Ledger,
        scope: BudgetScope,
        id: int,
        spec: AttemptSpec,
        leased: tuple[str, ...],
    ) -> None:
        self.id = id
        self.spec = spec
        self.outcome: AttemptOutcome | None = None
        self._noted = False
        self._ledger = ledger
        self._scope = scope
        self._leased = leased
        self._started = ledger.clock.monotonic()

    def note_generation(self, generation_id: str | None) -> None:
        """Keep the upstream's id of the attempt for the bill after a crash; once is enough."""
        if generation_id and not self._noted:
            self._noted = True
            self._ledger.store.note_generation(self.id, generation_id)

    def release(self, result: AttemptResult) -> AttemptOutcome:
        """Close at no cost: the upstream does not bill for what happened."""
        return self._close("released", result, Cost(0, "none", 0, Usage()))

    def settle(self, result: AttemptResult) -> AttemptOutcome:
        """Close at the cost of the answer."""
        return self._close("settled", result, self.cost(result))

    def cost(self, result: AttemptResult) -> Cost:
        """Return the cost of the answer so far."""
        spec = self.spec
        return compute_cost(
            result.usage,
            spec.model.prices,
            spec.prompt_tokens,
            result.text_bytes,
            is_partial=result.uncovered_bytes > 0,
        )

    def close_unknown(self, result: AttemptResult) -> AttemptOutcome:
        """Close with an unknown cost: the upstream may bill, so the probable cost stays reserved.

        That is the expected one, or more where more text was received; the rest is free again.
        """
        attempt = self.spec.attempt
        probable = max(attempt.expected_nano, self.cost(result).nano)
        kept = min(probable, attempt.held_nano)
        return self._close("unknown", result, Cost(kept, "estimated", kept, Usage()))

    def _close(self, state: AttemptState, result: AttemptResult, cost: Cost) -> AttemptOutcome:
        if self.outcome is not None:
            return self.outcome
        ledger, scope, usage = self._ledger, self._scope, cost.usage
        held = self.spec.attempt.held_nano
        if cost.nano > held:
            log.warning(
                "%s cost %s, more than the %s held for it",
                self.spec.attempt.model,
                format_usd(cost.nano),
                format_usd(held),
            )
        kept = self._keep(state, result, cost) if cost.source == "estimated" else 0
        used = kept if state == "unknown" else cost.nano + kept
        for account, _ in scope.accounts:
            leased = account in self._leased
            ledger.leases.settle(account, scope.window, held, used, leased=leased)
        ledger.running -= 1
        ledger.held_nano -= held
        first = result.first_content_at
        self.outcome = AttemptOutcome(
            attempt_id=self.id,
            key_id=scope.key_id,
            window=scope.window,
            model=self.spec.attempt.model,
            state=state,
            cost_nano=cost.nano,
            cost_source=cost.source,
            estimate_nano=cost.estimate_nano,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            finish_reason=result.finish_reason,
            failure=result.failure,
            generation_id=result.generation_id,
            provider=result.provider,
            first_content_ms=None if first is None else (first - self._started) * 1000,
            total_ms=(ledger.clock.monotonic() - self._started) * 1000,
            at_ms=int(ledger.clock.wall() * 1000),
            held_nano=kept,
        )
        ledger.store.settle(self.outcome, self._leased)
        if kept:
            ledger.unknown.add(UnsettledAttempt(self.outcome, self.spec.upstream))
        return self.outcome

    def _keep(self, state: AttemptState, result: AttemptResult, cost: Cost) -> int:
        """Return the nano-dollars that stay held until an estimated cost is known."""
        if state == "unknown":
            return cost.nano
        will_be_known = self.spec.reports_cost and result.generation_id is not None
        if state == "settled" and will_be_known and result.failure is None:
            # Nothing less than the worst case bounds what a complete answer without usage cost.
            return max(self.spec.attempt.held_nano - cost.nano, 0)
        return 0
