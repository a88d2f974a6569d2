"""Decisions of a learned policy in a made-up world, as plans in a ledger would hold them."""

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec.structs import astuple

from sophia.adapters.store.sqlite import SqliteStore
from sophia.compose.learning import task_classes
from sophia.core.ids import Ids
from sophia.core.rows import Intent, LessonRow, Outcome
from sophia.routing.evidence import pack, rated
from sophia.routing.features import unread
from sophia.routing.nouns import Attempt, Evidence, Plan, Prompt
from sophia.routing.policies.choose import Exploration, Options, Taste, choose
from sophia.routing.policies.policy import Ratings, Sight

ARMS = ("a/cheap", "b/dear", "c/weak")
COSTS = np.array([3e5, 3e6, 1e5])
TRUTH = np.array([[0.6, 0.9, 0.3], [0.9, 0.8, 0.3]])
"""The chance of a good answer by task and arm."""

TASTE = Taste(0.05, 3e6)
EXPLORING = Exploration("softmax", temperature=0.1, extra=100.0)
TASKS = np.zeros((2, len(task_classes())))
TASKS[:, :2] = [[0.9, 0.1], [0.1, 0.9]]


def plan_of(
    task: int, draw: float, policy: str = "learned", mode: str = ""
) -> tuple[Plan, int]:
    """Return a plan whose choice knew nothing of the task, and the arm that was drawn."""
    options = Options(
        Ratings(np.array([0.7, 0.75, 0.6]), np.zeros(3)), COSTS, np.ones(3, bool), np.zeros(3)
    )
    choice = choose(options, TASTE, EXPLORING, draw)
    evidence = Evidence(
        "s+0",
        pack(Sight(TASKS[task], np.zeros(0), np.zeros(0))),
        draw,
        astuple(TASTE),
        astuple(EXPLORING),
        rated(ARMS, options, choice) if policy == "learned" else (),
        mode=mode,
    )
    attempts = (Attempt(ARMS[choice.arm], "", 1, 1),)
    features = unread(Prompt("", chars=1, utf8_bytes=1))
    return Plan(attempts, policy, None, "", features, evidence=evidence), choice.arm


async def fill(  # noqa: PLR0913
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
    store = SqliteStore(path)
    now = at_ms
    ids = Ids(lambda: now)
    lessons = 0
    writes: list[Coroutine[object, object, object]] = []
    for number in range(count):
        task, policy = int(rng.integers(2)), policies[number % len(policies)]
        plan, arm = plan_of(task, float(rng.random()), policy)
        now = at_ms + number * step_ms
        id = ids.next()
        row = Intent(id, "k1", "2026-01-01", ARMS[arm], "u", 1, now)
        writes.append(store.reserve(row._replace(plan=msgspec.json.encode(plan))))
        if rng.random() < spoken:
            lessons += 1
            score = float(rng.random() < TRUTH[task, arm])
            lesson = LessonRow(lessons, id, "k1", ARMS[arm], score, 1.0, policy, now)
            writes.append(store.add_lesson(lesson))
        store.settle(
            Outcome(
                id, "k1", "2026-01-01", ARMS[arm], "settled", 1000, "priced", 1000,
                1, 1, 0, 0, "stop", None, None, None, None, 1.0, now,
            )
        )  # fmt: skip
    # Together they are durable at one stroke.
    await asyncio.gather(*writes)
    await store.close()
