"""Every policy passes the one battery of `check_policy`."""

from collections.abc import Callable

import numpy as np
import pytest

from check_policy import ARMS, TASKS, check_learner, check_policy
from lab.learner import Learner
from sophia.routing.bandit.policy import ArmRatings, Policy, PolicyContext, Prior
from sophia.routing.bandit.quality.hierarchical import HierarchicalPolicy


def _priors() -> dict[str, Prior]:
    means = np.linspace(0.8, 0.5, len(ARMS) - 1)
    return {
        arm: Prior(np.full(TASKS, mean), np.full(TASKS, 0.1))
        for arm, mean in zip(ARMS, means, strict=False)
    }


LEARNERS: dict[str, Callable[[], Learner]] = {
    "hierarchical": lambda: HierarchicalPolicy(TASKS, _priors()),
    "hierarchical, without priors": lambda: HierarchicalPolicy(TASKS),
}


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS.keys())
def test_a_learner_passes_the_battery(make: Callable[[], Learner]) -> None:
    check_learner(make)


class _Broken:
    """A policy of which one promise can be broken."""

    name = "broken"

    def __init__(self, fault: str) -> None:
        self._fault = fault
        self._calls = 0

    def rate(self, sight: PolicyContext, arms: object) -> ArmRatings | None:
        names = list(arms)  # type: ignore[call-overload]
        self._calls += 1
        quality = np.array([len(name) / 40 for name in names])
        sd = np.zeros(len(names))
        if self._fault == "order":
            quality = np.sort(quality)
        if self._fault == "range":
            quality += 1.0
        if self._fault == "sd":
            sd -= 0.1
        if self._fault == "finite":
            sd[0] = np.inf
        if self._fault == "count":
            quality = quality[:1]
        if self._fault == "steady":
            quality *= 1 / self._calls
        if self._fault == "hands":
            sight.task_probabilities[0] = 0.0
        return ArmRatings(quality, sd)


@pytest.mark.parametrize("fault", ["order", "range", "sd", "finite", "count", "steady", "hands"])
def test_the_battery_notices_a_broken_promise(fault: str) -> None:
    def make() -> Policy:
        return _Broken(fault)

    check_policy(lambda: _Broken(""))
    with pytest.raises((AssertionError, ValueError)):
        check_policy(make)
