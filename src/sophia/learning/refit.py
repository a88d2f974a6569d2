"""Learn anew from all lessons at once, and judge the result by lessons it has not seen."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from sophia.learning.live import Live
from sophia.learning.missing import Means
from sophia.learning.taught import Taught
from sophia.routing.policies.hierarchical import Hierarchical
from sophia.routing.policies.policy import Lesson

LEAST = 50
HELD_OUT = 0.2


class Refit(Struct, frozen=True):
    """What learning anew came to.

    Attributes:
        lessons: how many there are.
        held_out: the latest of them, which both were judged by.
        before: the mean squared error of the policy as it learns lesson by lesson.
        after: the same of one that learned all earlier lessons at once.
        better: whether `after` is lower by more than its standard error.
        means: what the words say of all decisions, the silent ones included.
    """

    lessons: int
    held_out: int
    before: float
    after: float
    better: bool
    means: Means | None = None


def refit(
    fresh: Live, taught: Sequence[Taught], counts: Sequence[float] | None = None
) -> tuple[Refit, Hierarchical]:
    """Return the judgement, and the learner that has learned all lessons at once.

    Args:
        fresh: knows the arms and their priors, and has learned nothing.
        taught: all lessons in their order.
        counts: for how many decisions each of them stands, 1 in the mean; None: each for its own.

    Raises:
        ValueError: there are too few lessons to tell.
    """
    if len(taught) < LEAST:
        raise ValueError(f"{len(taught)} lessons are too few to learn anew from: {LEAST} needed")
    stands = np.ones(len(taught)) if counts is None else np.array(counts)
    lessons = [one.lesson for one in taught]
    weighed = [
        replace(lesson, weight=lesson.weight * count)
        for lesson, count in zip(lessons, stands.tolist(), strict=True)
    ]
    cut = len(lessons) - max(int(len(lessons) * HELD_OUT), 10)
    start = fresh.learner.snapshot()
    stepwise, at_once = Hierarchical.restore(start), Hierarchical.restore(start)
    for lesson in lessons[:cut]:
        stepwise.learn_one(lesson)
    at_once.fit(weighed[:cut])
    errors = np.array(
        [[_error(each, one) for each in (stepwise, at_once)] for one in lessons[cut:]]
    )
    share = stands[cut:] / stands[cut:].sum()
    gain = errors[:, 0] - errors[:, 1]
    mean = float(share @ gain)
    doubt = float(np.sqrt((share**2) @ (gain - mean) ** 2))
    before, after = (float(one) for one in share @ errors)
    final = Hierarchical.restore(start)
    final.fit(weighed)
    return Refit(len(lessons), len(gain), before, after, mean > doubt), final


def _error(learner: Hierarchical, lesson: Lesson) -> float:
    rated = learner.rate(lesson.sight, [lesson.arm])
    return float((rated.quality[0] - lesson.quality) ** 2)
