"""A restored policy goes on exactly as if it had never been interrupted."""

import numpy as np

from sophia.learning.online.policy import OnlinePolicy
from sophia.learning.online.tenant_status import LoggedLesson
from sophia.routing.bandit.policy import Lesson, PolicyContext, Prior
from sophia.routing.bandit.quality.hierarchical import HierarchicalPolicy

TASKS, MODELS = 3, ("a/one", "b/two")


def prior(_: str) -> Prior:
    return Prior(np.full(TASKS, 0.8), np.full(TASKS, 0.1))


def new_policy() -> OnlinePolicy:
    return OnlinePolicy(HierarchicalPolicy(TASKS), prior)


def lesson(number: int, tenant: str, quality: float) -> LoggedLesson:
    tasks = np.eye(TASKS)[number % TASKS]
    outcome = Lesson(PolicyContext(tasks, tenant=tenant), MODELS[number % 2], quality, 1.0)
    return LoggedLesson(lesson=outcome, decided_by="hierarchical", at_ms=number)


def test_a_restored_policy_goes_on_bit_by_bit() -> None:
    """Drift detectors too: an alarm must come at the same lesson."""
    original = new_policy()
    original.add_models(MODELS)
    for number in range(60):
        original.learn(lesson(number, f"key-{number % 7}", float(number % 5 > 1)))
    restored, adopted = new_policy(), new_policy()
    restored.restore(original.snapshot(), "base")
    copy = new_policy()
    copy.restore(original.snapshot(), "base")
    adopted.replace_with(copy)
    for number in range(60, 120):
        for policy in (original, restored, adopted):
            policy.learn(lesson(number, f"key-{number % 3}", 0.0))
    assert restored.snapshot() == original.snapshot() == adopted.snapshot()


def test_tenants_without_evidence_of_drift_take_no_space() -> None:
    """Ten thousand keys whose models do well need no drift state."""
    satisfied, upset = new_policy(), new_policy()
    for policy, quality in ((satisfied, 1.0), (upset, 0.0)):
        policy.add_models(MODELS)
        for number in range(40):
            policy.learn(lesson(number, f"key-{number}", quality))
    assert b"key-7\0" not in satisfied.snapshot()
    assert b"key-7\0" in upset.snapshot()
