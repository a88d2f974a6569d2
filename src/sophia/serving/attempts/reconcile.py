"""Cost of abandoned attempts: asked of the upstream; until known, reservations stay charged."""

import asyncio
from collections.abc import Callable, Sequence

from sophia.core.background import BackgroundTasks
from sophia.core.failures import UpstreamFailure
from sophia.core.ports import DispatchedCall, Upstream
from sophia.core.rows import AttemptOutcome
from sophia.serving.attempts.reservation import AttemptResult, Reservation, update_attempt_result

_DRAIN_SECONDS = 60.0
RECONCILE_DELAYS = (0.2, 1.0, 5.0, 15.0, 60.0)


class Reconciler:
    """Asks upstreams for costs in the background; `delays` are seconds between the questions."""

    def __init__(self, delays: Sequence[float] = RECONCILE_DELAYS) -> None:
        self._delays = delays
        self._tasks = BackgroundTasks()

    def schedule(
        self,
        upstream: Upstream,
        reservation: Reservation,
        result: AttemptResult,
        on_settled: Callable[[AttemptOutcome], None],
    ) -> None:
        """Settle `reservation` once the upstream reports its cost, then call `on_settled`."""

        async def poll() -> None:
            can_ask = upstream.can_fetch_usage and result.generation_id
            try:
                for delay in self._delays if can_ask else ():
                    await asyncio.sleep(delay)
                    usage = await upstream.fetch_usage(result.generation_id or "")
                    if usage is not None:
                        result.usage, result.uncovered_bytes = usage, 0
                        break
            finally:
                # A shutdown ends the waiting too; `jobs.correct_costs` keeps asking.
                on_settled(_close(reservation, result))

        self._tasks.start(poll())

    def drain(
        self,
        exchange: DispatchedCall,
        reservation: Reservation,
        result: AttemptResult,
        on_settled: Callable[[AttemptOutcome], None],
    ) -> None:
        """Read the rest of an abandoned answer for its usage, then settle as `schedule` does."""

        async def read() -> None:
            try:
                async with asyncio.timeout(_DRAIN_SECONDS):
                    while (batch := await exchange.next()) is not None:
                        update_attempt_result(result, batch)
            except (UpstreamFailure, TimeoutError):
                # What has come is charged.
                pass
            finally:
                exchange.close()
                on_settled(_close(reservation, result))

        self._tasks.start(read())

    async def close(self, grace_seconds: float = 2.0) -> None:
        """Wait `grace_seconds` for running questions, then settle with what is known."""
        await self._tasks.close(grace_seconds)


def _close(reservation: Reservation, result: AttemptResult) -> AttemptOutcome:
    """Settle at what was received, or close with an unknown cost when that is nothing."""
    return (reservation.settle if result.is_chargeable else reservation.close_unknown)(result)
