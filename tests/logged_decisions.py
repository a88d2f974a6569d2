"""Decisions of a learned policy in a made-up world, as plans in a ledger would hold them."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec.structs import astuple

from sophia.core.ids import IdGenerator
from sophia.core.rows import AttemptIntent, AttemptOutcome, LessonRow
from sophia.learning.online.packaged import load_task_names
from sophia.routing.bandit.choose import ChoiceSet, choose_arm
from sophia.routing.bandit.policy import ArmRatings, PolicyContext
from sophia.routing.explain.trace import build_rated_arms, pack_context
from sophia.routing.features.extract import build_default_features
from sophia.routing.types import Attempt, DecisionTrace, Exploration, Plan, Prompt, UtilityWeights
from stores import write_rows

ARMS = ("a/cheap", "b/dear", "c/weak")
COSTS = np.array([3e5, 3e6, 1e5])
TRUTH = np.array([[0.6, 0.9, 0.3], [0.9, 0.8, 0.3]])
"""The chance of a good answer by task and arm."""

TASTE = UtilityWeights(0.05, 3e6)
EXPLORING = Exploration("softmax", temperature=0.1, max_extra_cost=100.0)
TASKS = np.zeros((2, len(load_task_names())))
TASKS[:, :2] = [[0.9, 0.1], [0.1, 0.9]]


def plan_of(task: int, draw: float, policy: str = "learned", mode: str = "") -> tuple[Plan, int]:
    """Return a plan whose choice knew nothing of the task, and the arm that was drawn."""
    options = ChoiceSet(
        ratings=ArmRatings(np.array([0.7, 0.75, 0.6]), np.zeros(3)),
        cost=COSTS,
        explorable=np.ones(3, bool),
        late_probability=np.zeros(3),
        failure_probability=np.zeros(3),
    )
    choice = choose_arm(options, TASTE, EXPLORING, draw)
    evidence = DecisionTrace(
        "s+0",
        pack_context(PolicyContext(TASKS[task])),
        draw,
        astuple(TASTE),
        astuple(EXPLORING),
        build_rated_arms(ARMS, options, choice) if policy == "learned" else (),
        call_mode=mode,
    )
    attempts = (Attempt(ARMS[choice.arm], "", 1, 1),)
    features = build_default_features(Prompt(text="", chars=1, utf8_bytes=1))
    return Plan(attempts, policy, None, "", features, trace=evidence), choice.arm


def fill(  # noqa: PLR0913
    path: Path,
    at_ms: int,
    count: int,
    spoken: float = 0.7,
    policies: Sequence[str] = ("learned",),
    step_ms: int = 1,
) -> None:
    """Write `count` decisions from `at_ms` on, a share of them with a score, into a ledger.

    Each was billed a thousand nano-dollars.
    """
    rng = np.random.default_rng(0)
    now = at_ms
    ids = IdGenerator(lambda: now)
    lessons = 0
    rows: list[object] = []
    for number in range(count):
        task, policy = int(rng.integers(2)), policies[number % len(policies)]
        plan, arm = plan_of(task, float(rng.random()), policy)
        now = at_ms + number * step_ms
        id = ids.next()
        row = AttemptIntent(
            attempt_id=id,
            key_id="k1",
            window="2026-01-01",
            model=ARMS[arm],
            upstream="u",
            held_nano=1,
            at_ms=now,
        )
        rows.append(msgspec.structs.replace(row, plan=msgspec.json.encode(plan)))
        if rng.random() < spoken:
            lessons += 1
            score = float(rng.random() < TRUTH[task, arm])
            lesson = LessonRow(
                number=lessons,
                decision_id=id,
                key_id="k1",
                arm=ARMS[arm],
                quality=score,
                weight=1.0,
                policy=policy,
                at_ms=now,
            )
            rows.append(lesson)
        rows.append(
            AttemptOutcome(
                attempt_id=id, key_id="k1", window="2026-01-01", model=ARMS[arm], state="settled", cost_nano=1000, cost_source="priced", estimate_nano=1000,
                prompt_tokens=1, completion_tokens=1, cached_tokens=0, reasoning_tokens=0, finish_reason="stop", failure=None, generation_id=None, provider=None, first_content_ms=None, total_ms=1.0, at_ms=now,
            )
        )  # fmt: skip
    write_rows(path, rows)
