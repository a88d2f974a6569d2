"""Notices an arm that has become worse, arm by arm and task by task (Page–Hinkley)."""

import math

from msgspec import Struct


class Alertness(Struct, frozen=True):
    """When to raise the alarm.

    Attributes:
        slack: what an outcome may fall short of its expectation unnoticed, in standard deviations.
        threshold: the accumulated shortfall that raises the alarm, in standard deviations.
        cap: the most that one outcome counts for, in standard deviations.
        doubt: the factor that `Hierarchical.widen` should be given.
    """

    slack: float = 0.4
    threshold: float = 12.0
    cap: float = 2.0
    doubt: float = 3.0


class Watch(Struct, frozen=True):
    """The accumulated shortfalls by arm and task; the task None stands for all of them."""

    sums: dict[tuple[str, int | None], float] = {}


class Alarm(Struct, frozen=True):
    """An arm that is worse than it was, for one task or, with None, as a whole."""

    arm: str
    task: int | None


def standardised(quality: float, expected: float, sd: float, noise: float = 0.9) -> float:
    """Return how far an outcome is from its expectation, in standard deviations.

    One score of expectation q varies by `noise` × q(1-q), at least by `noise` × 0.05, and the
    expectation itself by `sd`.
    """
    variance = noise * max(expected * (1.0 - expected), 0.05) + sd * sd
    return (quality - expected) / math.sqrt(variance)


def watch(
    state: Watch, arm: str, task: int | None, residual: float, alertness: Alertness
) -> tuple[Watch, Alarm | None]:
    """Return the state after a standardised residual, and the alarm that it raises, if any.

    Both the arm as a whole and its task are watched; after an alarm that sum begins anew, and with
    an alarm for the whole arm all its sums do.
    """
    residual = max(residual, -alertness.cap)
    sums = dict(state.sums)
    alarm = None
    for key in ((arm, None),) if task is None else ((arm, None), (arm, task)):
        total = max(0.0, sums.get(key, 0.0) - residual - alertness.slack)
        if total >= alertness.threshold and alarm is None:
            alarm = Alarm(*key)
        sums[key] = total
    if alarm is not None:
        if alarm.task is None:
            sums = {key: total for key, total in sums.items() if key[0] != arm}
        else:
            sums[arm, alarm.task] = 0.0
    return Watch(sums), alarm


def forget(state: Watch, arm: str) -> Watch:
    """Return the state without `arm`, which was removed or has changed its version."""
    return Watch({key: total for key, total in state.sums.items() if key[0] != arm})
