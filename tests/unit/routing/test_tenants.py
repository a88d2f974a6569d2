"""A tenant's own level learns as surely, and as unsurely, as one that nobody shares with."""

import numpy as np
import pytest

from sophia.routing.bandit.policy import Lesson, PolicyContext, Prior
from sophia.routing.bandit.quality.hierarchical import HierarchicalPolicy

ARMS = ("a", "b", "c")
TRUTH = {"a": 0.7, "b": 0.5, "c": 0.8}
TASKS = 4


def policy() -> HierarchicalPolicy:
    priors = {arm: Prior(np.full(TASKS, 0.65), np.full(TASKS, 0.1)) for arm in ARMS}
    return HierarchicalPolicy(TASKS, priors)


def sight(task: int, tenant: str) -> PolicyContext:
    return PolicyContext(np.eye(TASKS)[task], tenant=tenant)


def teach(
    learner: HierarchicalPolicy, tenant: str, count: int, seed: int = 1, *, lie: bool = False
) -> None:
    generator = np.random.default_rng(seed)
    for _ in range(count):
        arm = ARMS[int(generator.integers(3))]
        good = float(generator.random() < TRUTH[arm])
        asked = sight(int(generator.integers(TASKS)), tenant)
        learner.learn_one(Lesson(asked, arm, 1.0 - good if lie else good, 0.5))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_tenant_is_as_unsure_as_one_who_shares_with_nobody(seed: int) -> None:
    alone, tenant = policy(), policy()
    teach(alone, "", 600, seed)
    teach(tenant, "me", 600, seed)
    there, here = alone.rate(sight(1, ""), ARMS), tenant.rate(sight(1, "me"), ARMS)
    assert np.all(here.sd > 0.7 * there.sd) and np.all(here.sd < 1.6 * there.sd)
    assert np.abs(here.quality - there.quality).max() < 0.06


def test_what_one_tenant_says_leaves_every_figure_of_another_as_it_is() -> None:
    """Not the ratings alone: what the next lesson does must be the same, too."""
    quiet, flooded = policy(), policy()
    for learner in (quiet, flooded):
        teach(learner, "me", 60)
    teach(flooded, "liar", 400, seed=5, lie=True)
    flooded.inflate_variance("a", None, 5.0, "liar")
    for learner in (quiet, flooded):
        learner.learn_one(Lesson(sight(1, "me"), "a", 0.0, 0.5))
    one, other = (learner.rate(sight(1, "me"), ARMS) for learner in (quiet, flooded))
    assert one.quality.tolist() == other.quality.tolist() and one.sd.tolist() == other.sd.tolist()
