"""What is noted of requests that nobody looked at: a fair part, whoever stepped in for a failure."""

import time

import numpy as np

from sophia.compose.learning import first_steps
from sophia.core.events import Settled
from sophia.core.rows import Outcome
from sophia.routing.forecast import Asked
from sophia.serving.insight import TIMED_FIRST, Insight

USUAL, OTHER = "openai/gpt-4o-mini", "nobody/knows"


class WallClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


def outcome(model: str, failure: str | None) -> Outcome:
    return Outcome(
        1, "key", "day", model, "settled", 10, "priced", 10, 5, 50, 0, 0,
        None if failure else "stop", failure, None, None, None, 900.0, 10**12,
    )  # fmt: skip


def event(number: int, *attempts: Outcome) -> Settled:
    return Settled(
        number, "chat/completions", USUAL, attempts[-1].model, None, "up", "named", "general", False,
        200, "stop", None, 5, 50, 10, 1.0, None, attempts, 60,
    )  # fmt: skip


def test_failures_that_somebody_else_made_good_count_as_often_as_answers() -> None:
    live, senses = first_steps()
    live.know([USUAL])
    insight = Insight(live, senses.glance, WallClock())
    for number in range(TIMED_FIRST):
        insight.emit(event(number * 16, outcome(USUAL, None)))
    for number in range(TIMED_FIRST, 40_000):
        made = [outcome(USUAL, None)]
        if number % 10 == 0:
            made = [outcome(USUAL, "status:500"), outcome(OTHER, None)]
        insight.emit(event(number * 16, *made))
    tasks = np.full(len(senses.classes), 1 / len(senses.classes))
    told = live.habits.forecast([USUAL], Asked(tasks, np.array([60.0])))
    assert 0.07 < float(told.fails[0] / told.tries[0]) < 0.13
