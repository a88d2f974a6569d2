"""Keeps each key on pace with its day: money grows dearer when it would run out too soon."""

from collections import OrderedDict
from dataclasses import dataclass, field

from sophia.routing.pacer import Pace, Pacing, pace, target_of

DAY = 86_400.0
KEYS = 10_000
_MEMORY = 0.02
_SETTLED = 50
"""Arrivals after which a key's rate is believed."""


@dataclass(slots=True)
class _Day:
    """One key: when it asked last, how often it asks, what is left, and the price in force."""

    asked_at: float
    left: float
    gap: float = 0.0
    arrivals: int = 0
    pacing: Pacing = field(default_factory=lambda: Pacing(price=0.0))


class Paces:
    """The pace of every key that has a daily budget; money in nano-dollars, times in seconds."""

    def __init__(self, settings: Pace | None = None) -> None:
        self._settings = settings or Pace()
        self._days: OrderedDict[str, _Day] = OrderedDict()

    def asked(self, key_id: str, left: float, now: float) -> float:
        """Note a request with `left` in its day; return what is added to the price of money."""
        day = self._days.get(key_id)
        if day is None:
            day = self._days[key_id] = _Day(now, left)
            if len(self._days) > KEYS:
                self._days.popitem(last=False)
        gap = max(now - day.asked_at, 0.0)
        # The first gaps are averaged evenly, later ones with a memory of some fifty.
        day.gap += (gap - day.gap) * max(_MEMORY, 1.0 / (day.arrivals + 1))
        day.asked_at, day.left, day.arrivals = now, left, day.arrivals + 1
        self._days.move_to_end(key_id)
        return day.pacing.price if day.arrivals > _SETTLED else 0.0

    def paid(self, key_id: str, cost: float, now: float) -> None:
        """Note what an answer cost."""
        day = self._days.get(key_id)
        if day is None or day.arrivals <= _SETTLED or day.gap <= 0.0:
            return
        answers = (DAY - now % DAY) / day.gap
        even = day.left / max(answers, 1.0)
        target = target_of(day.left, answers, even)
        day.pacing = pace(day.pacing, cost, target, self._settings)
