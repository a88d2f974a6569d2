"""A live policy goes on from what was written down exactly as if it had never been interrupted."""

import numpy as np

from sophia.learning.live import Live
from sophia.learning.taught import Taught
from sophia.routing.policies.hierarchical import Hierarchical, Shape
from sophia.routing.policies.policy import Lesson, Prior, Sight

TASKS, MODELS = 3, ("a/one", "b/two")


def stranger(_: str) -> Prior:
    return Prior(np.full(TASKS, 0.8), np.full(TASKS, 0.1))


def live() -> Live:
    return Live(Hierarchical(Shape(TASKS, 0, 0)), "base", stranger)


def lesson(number: int, tenant: str, quality: float) -> Taught:
    tasks = np.eye(TASKS)[number % TASKS]
    sight = Sight(tasks, np.zeros(0), np.zeros(0), 0.0, tenant)
    return Taught(Lesson(sight, MODELS[number % 2], quality, 1.0), "hierarchical", number)


def test_what_was_written_down_goes_on_bit_by_bit() -> None:
    """Who is suspected and how far, too: an alarm must ring at the same lesson."""
    going_on = live()
    going_on.know(MODELS)
    for number in range(60):
        going_on.learn(lesson(number, f"key-{number % 7}", float(number % 5 > 1)))
    restored, adopted = live(), live()
    restored.restore(going_on.snapshot(), "base")
    aside = live()
    aside.restore(going_on.snapshot(), "base")
    adopted.adopt(aside)
    for number in range(60, 120):
        for each in (going_on, restored, adopted):
            each.learn(lesson(number, f"key-{number % 3}", 0.0))
    assert restored.snapshot() == going_on.snapshot() == adopted.snapshot()


def test_what_is_kept_of_those_who_have_nothing_to_complain_of_does_not_grow() -> None:
    """Ten thousand keys whose models do well need no memory of whom to suspect."""
    calm, upset = live(), live()
    for one, quality in ((calm, 1.0), (upset, 0.0)):
        one.know(MODELS)
        for number in range(40):
            one.learn(lesson(number, f"key-{number}", quality))
    assert b"key-7\0" not in calm.snapshot()
    assert b"key-7\0" in upset.snapshot()
