"""Timer that replaces estimated costs by what the upstream billed."""

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from sophia.core.calls import Usage
from sophia.core.ports import Upstream
from sophia.core.rows import UnsettledAttempt
from sophia.serving.attempts.reservation import Ledger


@dataclass(slots=True)
class CostCorrection:
    """Correction that looks a week back the first time, 15 minutes after that."""

    _ledger: Ledger
    _upstreams: Mapping[str, Upstream]
    _lookback_seconds: float = 7 * 86_400.0

    async def __call__(self) -> None:
        """Ask once about each estimated cost, of the upstreams that report costs."""
        since = self._ledger.clock.wall() - self._lookback_seconds
        for attempt in await self._ledger.store.unsettled_attempts(int(since * 1000)):
            upstream = self._upstreams.get(attempt.upstream)
            if upstream is None or not upstream.can_fetch_usage:
                continue
            usage = await upstream.fetch_usage(attempt.outcome.generation_id or "")
            if usage is not None and usage.cost_nano is not None:
                self._correct(attempt, usage, usage.cost_nano)
        self._lookback_seconds = 15 * 60.0

    def _correct(self, attempt: UnsettledAttempt, usage: Usage, cost_nano: int) -> None:
        outcome, ledger = attempt.outcome, self._ledger
        # An unknown cost is still reserved; an estimated one is already counted as spent.
        is_reserved = outcome.state == "unknown"
        reserved, counted = (outcome.cost_nano, 0) if is_reserved else (0, outcome.cost_nano)
        ledger.coordinator.settle(outcome.key_id, outcome.window, reserved, cost_nano - counted)
        ledger.store.settle(
            replace(
                outcome,
                state="settled",
                cost_nano=cost_nano,
                cost_source="upstream",
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
            )
        )
