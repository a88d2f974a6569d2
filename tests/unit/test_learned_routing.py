"""What is noted of requests that nobody looked at: a fair part, whoever stepped in for a failure."""

import numpy as np

from sophia.core.events import Settled
from sophia.core.rows import AttemptOutcome
from sophia.learning.online.build import build_policy
from sophia.learning.online.packaged import load_task_names
from sophia.serving.learned.prompt_histories import PromptHistories
from sophia.serving.learned.routing import ALWAYS_TIMED_ANSWERS, LearnedRouting
from sophia.testing.clock import ManualClock

USUAL, OTHER = "openai/gpt-4o-mini", "nobody/knows"


def outcome(model: str, failure: str | None) -> AttemptOutcome:
    return AttemptOutcome(
        attempt_id=1, key_id="key", window="day", model=model, state="settled", cost_nano=10, cost_source="priced", estimate_nano=10, prompt_tokens=5, completion_tokens=50, cached_tokens=0, reasoning_tokens=0,
        finish_reason=None if failure else "stop", failure=failure, generation_id=None, provider=None, first_content_ms=None, total_ms=900.0, at_ms=10**12,
    )  # fmt: skip


def event(number: int, *attempts: AttemptOutcome) -> Settled:
    return Settled(
        request_id=number, endpoint="chat/completions", requested_model=USUAL, model=attempts[-1].model, provider=None, upstream="up", policy="named", task_type="general", stream=False,
        status=200, finish_reason="stop", error_type=None, cost_nano=5, prompt_tokens=50, completion_tokens=10, duration_s=1.0, first_content_s=None, attempts=attempts, expected_tokens=60,
    )  # fmt: skip


def test_failures_that_somebody_else_made_good_count_as_often_as_answers() -> None:
    live = build_policy(shared=False)
    live.add_models([USUAL])
    classes = load_task_names()
    insight = LearnedRouting(live, ManualClock(), PromptHistories(classes))
    for number in range(ALWAYS_TIMED_ANSWERS):
        insight.emit(event(number * 16, outcome(USUAL, None)))
    for number in range(ALWAYS_TIMED_ANSWERS, 40_000):
        made = [outcome(USUAL, None)]
        if number % 10 == 0:
            made = [outcome(USUAL, "status:500"), outcome(OTHER, None)]
        insight.emit(event(number * 16, *made))
    tasks = np.full(len(classes), 1 / len(classes))
    told = live.performance.forecast([USUAL], tasks, np.array([60.0]))
    assert 0.07 < float(told.failures[0] / told.attempts[0]) < 0.13
