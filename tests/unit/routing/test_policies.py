"""Every policy passes the one battery of `sophia.testing.check_policy`."""

from collections.abc import Callable

import numpy as np
import pytest

from sophia.routing.features import extract
from sophia.routing.nouns import Features, Hints, Prompt
from sophia.routing.policies.heuristic import Heuristic
from sophia.routing.policies.hierarchical import Hierarchical, Projection
from sophia.routing.policies.linucb import LinUcb
from sophia.routing.policies.policy import Learner, Policy, Prior, Ratings, Sight
from sophia.routing.policies.widths import Settings
from sophia.testing.check_policy import ARMS, SHAPE, check_learner, check_policy


def _projection() -> Projection:
    rng = np.random.default_rng(3)
    return Projection(rng.normal(size=(SHAPE.embedding, 4)), rng.normal(size=4))


def _priors() -> dict[str, Prior]:
    means = np.linspace(0.8, 0.5, len(ARMS) - 1)
    return {
        arm: Prior(np.full(SHAPE.tasks, mean), np.full(SHAPE.tasks, 0.1))
        for arm, mean in zip(ARMS, means, strict=False)
    }


LEARNERS: dict[str, Callable[[], Learner]] = {
    "hierarchical": lambda: Hierarchical(SHAPE, None, _priors(), _projection()),
    "hierarchical, knowing nothing": lambda: Hierarchical(SHAPE),
    "hierarchical, sharing between tenants": lambda: Hierarchical(
        SHAPE, Settings(voice=5.0), _priors(), _projection()
    ),
    "linucb": lambda: LinUcb(_projection(), None, _priors()),
}


def _read(sight: Sight) -> Features:
    return extract(Prompt("write a poem" if sight.features[0] < 0.5 else "why?"), Hints())


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS.keys())
def test_a_learner_passes_the_battery(make: Callable[[], Learner]) -> None:
    check_learner(make)


def test_the_heuristic_passes_the_battery() -> None:
    """It declines where the arm of the role that it chose is not on offer."""
    roles = {"creative": ARMS[0], "fallback": ARMS[1]}
    check_policy(lambda: Heuristic(_read, roles, {ARMS[0]: 0.9, ARMS[3]: 0.95}))


class _Broken:
    """A policy of which one promise can be broken."""

    name = "broken"

    def __init__(self, fault: str) -> None:
        self._fault = fault
        self._calls = 0

    def rate(self, sight: Sight, arms: object) -> Ratings | None:
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
            sight.tasks[0] = 0.0
        return Ratings(quality, sd)


@pytest.mark.parametrize(
    "fault", ["order", "range", "sd", "finite", "count", "steady", "hands"]
)
def test_the_battery_notices_a_broken_promise(fault: str) -> None:
    def make() -> Policy:
        return _Broken(fault)

    check_policy(lambda: _Broken(""))
    with pytest.raises((AssertionError, ValueError)):
        check_policy(make)
