"""Caps on how far feedback of one key moves the routing of others."""

import math
from collections.abc import Sequence

DAY_MS = 86_400_000

DAILY_WEIGHT_CAP = 500.0
"""Upper bound on the weight of a key's feedback on one arm in a day (UTC)."""

PRIOR_SEATS = 4  # of the pooled mean; they hold the prior
TRIM_DIVISOR = 4  # The pooled mean cuts off a quarter of the seats at each end.
PRIOR_WEIGHT, MAX_MEAN_WEIGHT = 10.0, 100.0
"""Weight of the prior in a key's own mean, and the most that the key's observations weigh there."""

_Window = tuple[int, str, str]  # day, key and arm


class InfluenceLimiter:
    """Limits the weight of each key's feedback on each arm, day by day.

    The granted weight is a concave function of the weight that was offered: the first outcomes
    count nearly in full, and no number of them passes the cap.
    """

    def __init__(self) -> None:
        self._offered: dict[_Window, float] = {}

    def grant(self, key: str, arm: str, at_ms: int, weight: float) -> float:
        """Return the weight that feedback may have, and count it; forget earlier days."""
        window = (at_ms // DAY_MS, key, arm)
        self._offered = {past: sum for past, sum in self._offered.items() if past[0] >= window[0]}
        before = self._offered.get(window, 0.0)
        after = before + weight
        self._offered[window] = after
        return compute_effective_weight(after) - compute_effective_weight(before)

    def record_granted(self, key: str, arm: str, at_ms: int, weight: float) -> None:
        """Count feedback with a weight granted before a restart."""
        window = (at_ms // DAY_MS, key, arm)
        granted = compute_effective_weight(self._offered.get(window, 0.0)) + weight
        # The inverse of `compute_effective_weight`; the cap itself is reached by no finite weight.
        share = min(granted / DAILY_WEIGHT_CAP, 1.0 - 1e-12)
        self._offered[window] = -DAILY_WEIGHT_CAP * math.log1p(-share)


def compute_effective_weight(weight: float) -> float:
    """Return the total weight granted for `weight` offered: concave, below it and the cap."""
    return -DAILY_WEIGHT_CAP * math.expm1(-weight / DAILY_WEIGHT_CAP)


def compute_robust_mean(means: Sequence[tuple[float, float]], prior: float) -> float:
    """Return the trimmed mean of the keys' means and of four seats that hold the prior.

    As many keys as are trimmed at one end cannot move it out of the range of the others. `means`
    holds mean, from 0 to 1, and weight by key; each is shrunk towards the prior by its weight.
    """
    capped = [(mean, min(weight, MAX_MEAN_WEIGHT)) for mean, weight in means]
    shrunk = [
        (PRIOR_WEIGHT * prior + weight * mean) / (PRIOR_WEIGHT + weight) for mean, weight in capped
    ]
    seats = sorted([prior] * PRIOR_SEATS + shrunk)
    cut = len(seats) // TRIM_DIVISOR
    kept = seats[cut : len(seats) - cut]
    return min(max(math.fsum(kept) / len(kept), kept[0]), kept[-1])
