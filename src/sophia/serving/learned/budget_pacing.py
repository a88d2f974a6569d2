"""Budget pacing: money counts more when a key would spend its daily budget too early."""

from dataclasses import dataclass

from sophia.core.bounded import BoundedDict
from sophia.routing.bandit.pacing import PacingState, update_pacing

DAY_SECONDS = 86_400.0
MAX_KEYS = 10_000
_MIN_SMOOTHING = 0.02
_MIN_ARRIVALS = 50
"""Requests from which a key's rate is used."""
_NO_PACING = PacingState()


@dataclass(slots=True, kw_only=True)
class _KeyPacing:
    """One key: its last request, its mean gap between requests, and the price in force."""

    last_request_at: float
    budget_left: float
    mean_gap: float = 0.0
    arrivals: int = 0
    state: PacingState = _NO_PACING


class BudgetPacing:
    """Pacing of every key with a daily budget; money in nano-dollars, times in seconds."""

    def __init__(self) -> None:
        self._keys: BoundedDict[str, _KeyPacing] = BoundedDict(MAX_KEYS)

    def price(self, key_id: str) -> float:
        """Return the amount added to the weight of cost for the key's next request."""
        pacing = self._keys.get(key_id)
        # The request that asks counts as well.
        return pacing.state.price if pacing and pacing.arrivals >= _MIN_ARRIVALS else 0.0

    def record_request(self, key_id: str, budget_left: float, now: float) -> None:
        """Record a request with `budget_left` in its day."""
        pacing = self._keys.get(key_id)
        if pacing is None:
            pacing = _KeyPacing(last_request_at=now, budget_left=budget_left)
        gap = max(now - pacing.last_request_at, 0.0)
        # The first gaps are averaged evenly, later ones exponentially over about fifty.
        pacing.mean_gap += (gap - pacing.mean_gap) * max(
            _MIN_SMOOTHING, 1.0 / (pacing.arrivals + 1)
        )
        pacing.last_request_at, pacing.budget_left = now, budget_left
        pacing.arrivals += 1
        self._keys[key_id] = pacing

    def record_cost(self, key_id: str, cost: float, now: float) -> None:
        """Record the cost of an answer."""
        pacing = self._keys.get(key_id)
        if pacing is None or pacing.arrivals <= _MIN_ARRIVALS or pacing.mean_gap <= 0.0:
            return
        answers = (DAY_SECONDS - now % DAY_SECONDS) / pacing.mean_gap
        target = pacing.budget_left / max(answers, 1.0)
        pacing.state = update_pacing(pacing.state, cost, target)
