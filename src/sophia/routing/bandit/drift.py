"""Detection of arms that have become worse, by arm and by task (Page's CUSUM)."""

import math

from msgspec import Struct

QUALITY_LOSS = 0.3
"""The loss to detect, as a share of right answers."""
THRESHOLD = 7.0
"""Log-odds for a loss that raise the alarm: a steady arm does so about once in e^7 outcomes."""
WIDEN_FACTOR = 3.0
"""The factor for `HierarchicalPolicy.inflate_variance` after an alarm."""
MIN_SUCCESS_RATE, MAX_SUCCESS_RATE = 0.05, 0.97


class DriftState(Struct, frozen=True):
    """The accumulated evidence above 0 by arm and task; None stands for all tasks."""

    sums: dict[tuple[str, int | None], float] = {}


class DriftAlarm(Struct, frozen=True):
    """An arm that is worse than before, for one task or, with None, as a whole."""

    arm: str
    task: int | None


def log_likelihood_ratio(quality: float, expected: float, sd: float) -> float:
    """Return the logarithm of how much likelier an outcome is after a loss than before it.

    A score counts as a share of right answers. The uncertainty of the expectation, `sd`, counts in
    favour of the arm.
    """
    before = min(max(expected - sd, MIN_SUCCESS_RATE), MAX_SUCCESS_RATE)
    after = before * (1.0 - QUALITY_LOSS)
    right, wrong = math.log(after / before), math.log((1.0 - after) / (1.0 - before))
    return quality * right + (1.0 - quality) * wrong


def update_drift(
    state: DriftState, arm: str, task: int, log_ratio: float
) -> tuple[DriftState, DriftAlarm | None]:
    """Return the state after an outcome's log-likelihood ratio, and the alarm it raises, if any.

    An alarm resets its sum, and an alarm for the whole arm all sums of the arm.
    """
    sums = dict(state.sums)
    alarm = None
    for key in ((arm, None), (arm, task)):
        total = max(0.0, sums.get(key, 0.0) + log_ratio)
        if total >= THRESHOLD and alarm is None:
            alarm = DriftAlarm(arm, key[1])
        if total > 0.0:
            sums[key] = total
        else:
            sums.pop(key, None)
    if alarm is not None:
        if alarm.task is None:
            sums = {key: total for key, total in sums.items() if key[0] != arm}
        else:
            del sums[arm, alarm.task]
    return DriftState(sums), alarm
