"""Notices an arm that has become worse, arm by arm and task by task (Page's CUSUM)."""

import math

from msgspec import Struct

LEAST, MOST = 0.05, 0.97


class Alertness(Struct, frozen=True):
    """When to raise the alarm.

    Attributes:
        loss: the share of right answers whose loss is looked for, from 0 to 1.
        threshold: the logarithm of the odds for a loss that raises the alarm. A steady arm is
            suspected about once in exp(threshold) outcomes.
        doubt: the factor that `Hierarchical.widen` should be given.
    """

    loss: float = 0.3
    threshold: float = 7.0
    doubt: float = 3.0


class Watch(Struct, frozen=True):
    """The accumulated evidence by arm and task, where there is any; None stands for all tasks."""

    sums: dict[tuple[str, int | None], float] = {}


class Alarm(Struct, frozen=True):
    """An arm that is worse than it was, for one task or, with None, as a whole."""

    arm: str
    task: int | None


def evidence(quality: float, expected: float, sd: float, alertness: Alertness) -> float:
    """Return how much likelier an outcome is after a loss than before it, as a logarithm.

    A score is taken for a share of right answers. What is not known of the expectation, its `sd`,
    is in favour of the arm.
    """
    before = min(max(expected - sd, LEAST), MOST)
    after = before * (1.0 - alertness.loss)
    right, wrong = math.log(after / before), math.log((1.0 - after) / (1.0 - before))
    return quality * right + (1.0 - quality) * wrong


def watch(
    state: Watch, arm: str, task: int | None, found: float, alertness: Alertness
) -> tuple[Watch, Alarm | None]:
    """Return the state after `evidence` was found, and the alarm that it raises, if any.

    Both the arm as a whole and its task are watched; after an alarm that sum begins anew, and with
    an alarm for the whole arm all its sums do.
    """
    sums = dict(state.sums)
    alarm = None
    for key in ((arm, None),) if task is None else ((arm, None), (arm, task)):
        total = max(0.0, sums.get(key, 0.0) + found)
        if total >= alertness.threshold and alarm is None:
            alarm = Alarm(*key)
        if total > 0.0:
            sums[key] = total
        else:
            sums.pop(key, None)
    if alarm is not None:
        if alarm.task is None:
            sums = {key: total for key, total in sums.items() if key[0] != arm}
        else:
            del sums[arm, alarm.task]
    return Watch(sums), alarm


def forget(state: Watch, arm: str) -> Watch:
    """Return the state without `arm`, which was removed or has changed its version."""
    return Watch({key: total for key, total in state.sums.items() if key[0] != arm})
