"""Learn anew from all lessons at once, and judge the result by lessons it has not seen."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from sophia.learning.live import Live, Taught
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
    """

    lessons: int
    held_out: int
    before: float
    after: float
    better: bool


def refit(fresh: Live, taught: Sequence[Taught]) -> tuple[Refit, Hierarchical]:
    """Return the judgement, and the learner that has learned all lessons at once.

    Args:
        fresh: knows the arms and their priors, and has learned nothing.
        taught: all lessons in their order.

    Raises:
        ValueError: there are too few lessons to tell.
    """
    if len(taught) < LEAST:
        raise ValueError(f"{len(taught)} lessons are too few to learn anew from: {LEAST} needed")
    lessons = [one.lesson for one in taught]
    cut = len(lessons) - max(int(len(lessons) * HELD_OUT), 10)
    start = fresh.learner.snapshot()
    stepwise, at_once = Hierarchical.restore(start), Hierarchical.restore(start)
    for lesson in lessons[:cut]:
        stepwise.learn_one(lesson)
    at_once.fit(lessons[:cut])
    unseen = lessons[cut:]
    errors = np.array([[_error(each, one) for each in (stepwise, at_once)] for one in unseen])
    gain = errors[:, 0] - errors[:, 1]
    doubt = float(gain.std(ddof=1) / np.sqrt(len(gain)))
    before, after = (float(mean) for mean in errors.mean(axis=0))
    final = Hierarchical.restore(start)
    final.fit(lessons)
    judged = Refit(len(lessons), len(gain), before, after, before - after > doubt)
    return judged, final


def _error(learner: Hierarchical, lesson: Lesson) -> float:
    rated = learner.rate(lesson.sight, [lesson.arm])
    return float((rated.quality[0] - lesson.quality) ** 2)
