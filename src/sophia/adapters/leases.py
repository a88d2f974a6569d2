"""Budgets in memory, inside the parts that this worker has leased of them."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

from sophia.core.background import BackgroundTasks
from sophia.core.errors import BudgetExceeded, CommitUnknown, Unavailable
from sophia.core.money import format_usd
from sophia.core.ports import Clock, LeaseStore
from sophia.core.rows import Lease, LeaseRequest
from sophia.tenants.budget import BudgetSlice

log = logging.getLogger("sophia.ledger")

_Result = TypeVar("_Result")

_CALL_SECONDS = 1.0
"""Longest wait for other workers to give back what they do not use."""
_ASK_AGAIN_SECONDS = 0.02
_ANSWER_SECONDS = 5.0
"""Longest wait for the store."""
_IDLE_SECONDS = 10.0
"""Time without use after which a lease is given back where other workers spend too."""
_FORGET_SECONDS = 600.0
"""Time without use after which any lease is given back."""


class LeasedBudgets:
    """Reserves in memory inside leases of the store; asks it ahead, or for a missing part."""

    def __init__(self, store: LeaseStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._slices: defaultdict[tuple[str, str], BudgetSlice] = defaultdict(BudgetSlice)
        self._asking: dict[tuple[str, str], asyncio.Task[Any]] = {}
        self._renewing: set[tuple[str, str]] = set()
        self._tasks = BackgroundTasks()

    async def reserve(self, account: str, window: str, limit: int | None, amount: int) -> bool:
        """Hold `amount` nano-dollars; return whether they are of a lease.

        Raises:
            BudgetExceeded: the budget does not cover it; nothing is held.
            Unavailable: the store does not answer, and the lease does not cover it.
        """
        part = self._slices[account, window]
        if limit is None:
            part.unlimited += amount
            return False
        if limit != part.limit or part.idle < amount:
            await self._lease_more(account, window, limit, amount)
        part.reserved += amount
        part.last_use = self._clock.monotonic()
        part.unit = max(part.unit, amount)
        if part.should_renew and (account, window) not in self._renewing:
            self._renewing.add((account, window))
            self._tasks.start(self._renew(account, window))
        return True

    def settle(self, account: str, window: str, held: int, used: int, *, leased: bool) -> None:
        """Replace the amount held for an attempt by the amount used up."""
        part = self._slices[account, window]
        if leased:
            part.reserved -= held
            part.used += used
        else:
            part.unlimited -= held
            part.charge(used)

    def correct(self, account: str, window: str, change: int) -> None:
        """Note that an account has to pay more than was known, or less."""
        if (account, window) in self._slices:
            self._slices[account, window].charge(change)

    def remaining(self, account: str, window: str, limit: int) -> int:
        """Return the nano-dollars that may still be reserved, as far as is known here."""
        return self._slices[account, window].remaining(limit)

    def needs_refresh(self, account: str, window: str, limit: int) -> bool:
        """Return whether the store may know of more, or less, that is left than is known here."""
        return self._slices[account, window].is_vague(limit)

    async def refresh(self, account: str, window: str, limit: int) -> None:
        """Ask the store and the other workers for the rest of the budget. Raises Unavailable."""
        wanted = self._slices[account, window].wanted(limit)
        await self._gather(account, window, limit, wanted)

    def in_flight(self, account: str, window: str) -> int:
        """Return the nano-dollars that are held for attempts that run here."""
        part = self._slices[account, window]
        return part.reserved + part.unlimited

    async def answer_calls(self) -> None:
        """Give back idle parts of leases that another worker needs. Raises Unavailable."""
        calls = await self._store.lease_calls()
        await asyncio.gather(*(self._give_back(*call) for call in calls))

    async def give_back_idle(self) -> None:
        """Give back leases that were not used for a while. Raises Unavailable."""
        now = self._clock.monotonic()
        for key, part in tuple(self._slices.items()):
            if now - part.last_use < (_IDLE_SECONDS if part.others else _FORGET_SECONDS):
                continue
            if part.idle > 0:
                await self._give_back(*key, 0)
            if part.is_empty:
                del self._slices[key]

    async def close(self) -> None:
        """Wait for the questions under way."""
        await self._tasks.close()

    async def _lease_more(self, account: str, window: str, limit: int, amount: int) -> None:
        """Lease the missing part of `amount`. Raises BudgetExceeded or Unavailable."""
        part = self._slices[account, window]
        if not await self._gather(account, window, limit, amount):
            raise BudgetExceeded(
                f"This key's budget of {format_usd(limit)} for {window} has "
                f"{format_usd(part.remaining(limit))} left "
                f"({format_usd(part.reserved)} is held); "
                f"this request may cost {format_usd(amount)}. Raise the key's daily "
                "budget, lower max_tokens, or wait for the next day (UTC)."
            )

    async def _gather(self, account: str, window: str, limit: int, amount: int) -> bool:
        """Lease until the slice covers `amount`; return False when nothing more is to be had.

        Raises Unavailable when the store, or a worker that has something idle, does not answer.
        """
        part = self._slices[account, window]
        part.waiting += 1
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await self._gather_slowly(part, (account, window), limit, amount)
        except TimeoutError:
            raise Unavailable("The ledger does not answer.", retry_after=1) from None
        finally:
            part.waiting -= 1

    async def _gather_slowly(
        self, part: BudgetSlice, key: tuple[str, str], limit: int, amount: int
    ) -> bool:
        call, end = 0, self._clock.monotonic() + _CALL_SECONDS
        while limit != part.limit or part.idle < amount:
            if (asking := self._find_asking(key)) is not None:
                # Another request asks; what it gets may be enough for both.
                await asyncio.shield(asking)
                continue
            lease, is_covered = await self._ask(key, limit, amount, call)
            call = lease.call
            if part.idle >= amount:
                return True
            if is_covered:
                # Another request was faster, but there is more.
                continue
            if not lease.unheard_nano:
                return False
            if self._clock.monotonic() > end:
                raise Unavailable("A worker does not give back what it has leased.", retry_after=1)
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
        return True

    async def _ask(
        self, key: tuple[str, str], limit: int, amount: int, call: int = 0
    ) -> tuple[Lease, bool]:
        """Ask the store once for the missing part of `amount`, or give back a surplus.

        Return whether slice and store together covered it, too. The slice gets the grant even if
        no request waits for it any more.
        """
        return await self._start_asking(key, self._ask_store(key, limit, amount, call))

    async def _start_asking(
        self, key: tuple[str, str], work: Coroutine[Any, Any, _Result]
    ) -> _Result:
        """Change a slice as the store says; nothing else that does may run at the same time.

        A worker that gives back what is idle must not have more on its way, for which the others
        would not wait.
        """
        asking = self._asking[key] = self._tasks.start(work)
        asking.add_done_callback(partial(self._end_asking, key))
        return await asyncio.shield(asking)

    async def _wait_for_turn(self, key: tuple[str, str]) -> None:
        while (asking := self._find_asking(key)) is not None:
            await asyncio.wait([asking])

    def _find_asking(self, key: tuple[str, str]) -> asyncio.Task[Any] | None:
        asking = self._asking.get(key)
        return None if asking is None or asking.done() else asking

    def _end_asking(self, key: tuple[str, str], asked: asyncio.Task[Any]) -> None:
        if self._asking.get(key) is asked:
            del self._asking[key]
        if not asked.cancelled():
            # Taken note of here, since all who waited may have gone.
            asked.exception()

    async def _ask_store(
        self, key: tuple[str, str], limit: int, amount: int, call: int
    ) -> tuple[Lease, bool]:
        part = self._slices[key]
        need = max(amount - part.idle, 0)
        # What may have to be given back must not be reserved meanwhile.
        withheld = max(part.idle, 0) if limit != part.limit else 0
        part.granted -= withheld
        part.waiting += 1
        request = LeaseRequest(
            account=key[0], window=key[1], limit=limit, need=need, idle=withheld,
            unit=max(part.unit, amount), call=call,
        )  # fmt: skip
        try:
            lease = await self._store.lease(request)
        except Unavailable as error:
            # Unless it may have been taken: rather too little than too much.
            if not isinstance(error, CommitUnknown):
                part.granted += withheld
            raise
        finally:
            part.waiting -= 1
        part.granted += withheld + lease.granted_nano
        part.free, part.limit, part.others = lease.free_nano, limit, lease.holders - 1
        return lease, part.idle + part.free >= amount

    async def _renew(self, account: str, window: str) -> None:
        part = self._slices[account, window]
        try:
            await self._wait_for_turn((account, window))
            if part.limit is not None and part.should_renew:
                await self._ask((account, window), part.limit, 0)
        except Unavailable as error:
            log.warning("a lease cannot be renewed now: %s", error)
        finally:
            self._renewing.discard((account, window))

    async def _give_back(self, account: str, window: str, call: int) -> None:
        await self._wait_for_turn((account, window))
        work = self._return_idle(account, window, call)
        await self._start_asking((account, window), work)

    async def _return_idle(self, account: str, window: str, call: int) -> None:
        part = self._slices[account, window]
        amount = max(part.idle, 0)
        # First here: what is given back cannot be reserved any more.
        part.granted -= amount
        part.waiting += 1
        try:
            await self._store.return_lease(account, window, amount, call)
        except Unavailable as error:
            if not isinstance(error, CommitUnknown):
                part.granted += amount
            raise
        finally:
            part.waiting -= 1
        part.free += amount
