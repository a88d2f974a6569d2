"""Timer that replaces unknown and estimated costs by the upstream's bill."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from sophia.core.calls import Usage
from sophia.core.ports import Upstream
from sophia.core.rows import AttemptOutcome, UnsettledAttempt
from sophia.serving.attempts.reservation import Ledger

_CONCURRENT = 8
_ASKING_SECONDS = 45.0
"""Time for the questions of one turn; an upstream that hangs must not keep the others waiting."""


class CostCorrection:
    """Correction that looks a week back the first time, 15 minutes after that.

    An attempt of unknown cost is asked about as long as it is held; after that its probable cost
    counts as spent. Of several processes the one that `is_leader` asks; all learn for what money is
    held.
    """

    def __init__(
        self,
        ledger: Ledger,
        upstreams: Mapping[str, Upstream],
        is_leader: Callable[[], bool] = lambda: True,
    ) -> None:
        self._ledger = ledger
        self._upstreams = upstreams
        self._is_leader = is_leader
        self._lookback_seconds = 7 * 86_400.0
        self._started_ms = int(ledger.clock.wall() * 1000)

    async def read_held(self) -> None:
        """Learn for which attempts of all processes money is held."""
        held, unknown = await self._ledger.store.held_attempts(), self._ledger.unknown
        unknown.retain({attempt.outcome.attempt_id for attempt in held})
        for attempt in held:
            can_ask = attempt.outcome.generation_id and self._find_upstream(attempt)
            # The upstream was not asked while no process ran.
            unknown.add(attempt, self._started_ms if can_ask else None)

    async def __call__(self) -> None:
        """Ask once about each cost, of the upstreams that report costs, then end overdue holds."""
        await self.read_held()
        if self._is_leader():
            try:
                await self._ask_all(await self._list_attempts())
            finally:
                self._assume_overdue()

    async def _list_attempts(self) -> list[UnsettledAttempt]:
        ledger = self._ledger
        since_ms = int((ledger.clock.wall() - self._lookback_seconds) * 1000)
        rows = {
            row.outcome.attempt_id: row for row in await ledger.store.unsettled_attempts(since_ms)
        }
        held = {row.outcome.attempt_id: row for row in ledger.unknown if row.outcome.generation_id}
        return [row for row in (rows | held).values() if self._find_upstream(row) is not None]

    def _find_upstream(self, attempt: UnsettledAttempt) -> Upstream | None:
        """Return the upstream of an attempt if it reports costs."""
        upstream = self._upstreams.get(attempt.upstream)
        return upstream if upstream is not None and upstream.can_fetch_usage else None

    async def _ask_all(self, attempts: Sequence[UnsettledAttempt]) -> None:
        clock = self._ledger.clock
        end = clock.monotonic() + _ASKING_SECONDS
        for start in range(0, len(attempts), _CONCURRENT):
            if clock.monotonic() > end:
                return
            await asyncio.gather(*map(self._ask, attempts[start : start + _CONCURRENT]))
        self._lookback_seconds = 15 * 60.0

    async def _ask(self, attempt: UnsettledAttempt) -> None:
        upstream = self._find_upstream(attempt)
        if upstream is not None:
            usage = await upstream.fetch_usage(attempt.outcome.generation_id or "")
            if usage is not None and usage.cost_nano is not None:
                self._correct(attempt, usage, usage.cost_nano)

    def _correct(self, attempt: UnsettledAttempt, usage: Usage, cost_nano: int) -> None:
        outcome = attempt.outcome
        self._replace(
            outcome,
            replace(
                outcome,
                state="settled",
                cost_nano=cost_nano,
                cost_source="upstream",
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                held_nano=0,
            ),
        )

    def _assume_overdue(self) -> None:
        """End the holds that are old enough: a probable cost counts as spent from now on."""
        ledger = self._ledger
        for outcome in ledger.unknown.overdue(int(ledger.clock.wall() * 1000)):
            assumed = replace(outcome, state="settled", cost_source="assumed", held_nano=0)
            self._replace(outcome, assumed)

    def _replace(self, old: AttemptOutcome, new: AttemptOutcome) -> None:
        """Settle an attempt anew, in all accounts that paid."""
        ledger = self._ledger
        ledger.unknown.remove(old.attempt_id)
        change = new.spent_nano + new.held_nano - old.spent_nano - old.held_nano
        for account in old.accounts:
            ledger.leases.correct(account, old.window, change)
        ledger.store.settle(new)
