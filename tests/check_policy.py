"""The test battery of every policy: it rates the arms of a request, in order and repeatably."""

from collections.abc import Callable, Sequence

import numpy as np

from lab.learner import Learner
from sophia.routing.bandit.policy import ArmRatings, Lesson, Policy, PolicyContext

ARMS = ("vendor/large", "vendor/small", "maker/quick", "maker/slow")
UNKNOWN_ARM = "unknown/model"
TASKS = 5


def make_contexts(count: int, seed: int = 7) -> list[PolicyContext]:
    """Return requests of every kind: familiar and novel, of a tenant and of none."""
    rng = np.random.default_rng(seed)
    return [
        PolicyContext(
            rng.dirichlet(np.full(TASKS, 0.3)),
            float(number % 3 == 2) * rng.uniform(),
            "tenant" if number % 4 == 3 else "",
        )
        for number in range(count)
    ]


def make_lessons(count: int, seed: int = 8) -> list[Lesson]:
    """Return outcomes of `ARMS`, the first of which is right most often."""
    rng = np.random.default_rng(seed)
    lessons = []
    for context in make_contexts(count, seed):
        arm = int(rng.integers(len(ARMS)))
        right = float(rng.uniform() < 0.9 - 0.2 * arm)
        lessons.append(Lesson(context, ARMS[arm], right, float(rng.uniform(0.2, 1.5))))
    return lessons


def check_policy(
    make: Callable[[], Policy], contexts: Callable[[int], Sequence[PolicyContext]] = make_contexts
) -> None:
    """Check the promises of a policy; `make` returns a fresh one with some of `ARMS` or none.

    `contexts` returns so many requests.

    Raises:
        AssertionError: a promise is broken; the message names it.
    """
    requests = contexts(12)
    assert make().name, "a policy has a name"
    assert make().name == make().name, "a policy's name does not change"
    for context in requests:
        _check_rates_each_arm(make(), context)
    _check_leaves_contexts_unchanged(make(), requests)
    _check_is_deterministic(make, requests)


def check_learner(make: Callable[[], Learner]) -> None:
    """Check `check_policy` before and after learning, and that the state can be saved.

    Raises:
        AssertionError: a promise is broken; the message names it.
    """
    check_policy(make)
    lessons = make_lessons(160)

    def learned() -> Learner:
        learner = make()
        for lesson in lessons:
            learner.learn_one(lesson)
        return learner

    def fitted() -> Learner:
        learner = make()
        learner.fit(lessons)
        return learner

    for make_learned in (learned, fitted):
        check_policy(make_learned)
        _check_round_trip(make_learned())
    _check_fit_resets(make, lessons)
    _check_leaves_lessons_unchanged(make, lessons)


def equal_ratings(one: ArmRatings | None, other: ArmRatings | None) -> bool:
    """Return whether two ratings are bit for bit the same."""
    if one is None or other is None:
        return one is other
    return bool(np.array_equal(one.quality, other.quality) and np.array_equal(one.sd, other.sd))


def _check_rates_each_arm(policy: Policy, context: PolicyContext) -> None:
    questions: list[Sequence[str]] = [
        ARMS,
        ARMS[::-1],
        ARMS[1:3],
        ARMS[:1],
        (UNKNOWN_ARM, *ARMS),
        (UNKNOWN_ARM,),
    ]
    for arms in questions:
        ratings = policy.rate(context, arms)
        if ratings is None:
            continue
        for part in (ratings.quality, ratings.sd):
            assert part.shape == (len(arms),), f"{policy.name} rates each arm once"
            assert np.isfinite(part).all(), f"{policy.name} returns finite numbers"
        assert (ratings.quality >= 0.0).all(), f"{policy.name}'s qualities are at least 0"
        assert (ratings.quality <= 1.0).all(), f"{policy.name}'s qualities are at most 1"
        assert (ratings.sd >= 0.0).all(), f"{policy.name}'s sd are at least 0"
    forth, back = policy.rate(context, ARMS), policy.rate(context, ARMS[::-1])
    if forth is not None and back is not None:
        same = np.allclose(forth.quality, back.quality[::-1], rtol=0.0, atol=1e-9)
        assert same, f"{policy.name} rates arms in the order of the request"


def _check_leaves_contexts_unchanged(policy: Policy, contexts: Sequence[PolicyContext]) -> None:
    for context in contexts:
        context.task_probabilities.setflags(write=False)
        policy.rate(context, ARMS)


def _check_leaves_lessons_unchanged(make: Callable[[], Learner], lessons: Sequence[Lesson]) -> None:
    for lesson in lessons:
        lesson.context.task_probabilities.setflags(write=False)
    learner = make()
    for lesson in lessons:
        learner.learn_one(lesson)
    learner.fit(lessons)


def _check_is_deterministic(make: Callable[[], Policy], contexts: Sequence[PolicyContext]) -> None:
    policy, twin = make(), make()
    before = [policy.rate(context, ARMS) for context in contexts]
    for context, ratings in zip(contexts, before, strict=True):
        assert equal_ratings(policy.rate(context, ARMS), ratings), (
            f"rating does not change {policy.name}"
        )
        assert equal_ratings(twin.rate(context, ARMS), ratings), (
            f"two equal {policy.name} rate alike"
        )


def _check_round_trip(learner: Learner) -> None:
    name = learner.name
    written = learner.snapshot()
    assert written == learner.snapshot(), f"{name} writes the same state in the same bytes"
    restored = type(learner).restore(written)
    assert restored.snapshot() == written, f"{name} restored writes the same bytes"
    arms = (*ARMS, UNKNOWN_ARM)
    for lesson, context in zip(make_lessons(20, seed=9), make_contexts(20, seed=10), strict=True):
        assert equal_ratings(learner.rate(context, arms), restored.rate(context, arms)), (
            f"{name} restored rates bit for bit the same"
        )
        learner.learn_one(lesson)
        restored.learn_one(lesson)


def _check_fit_resets(make: Callable[[], Learner], lessons: Sequence[Lesson]) -> None:
    half = len(lessons) // 2
    fresh, used = make(), make()
    for lesson in lessons[half:]:
        used.learn_one(lesson)
    fresh.fit(lessons[:half])
    used.fit(lessons[:half])
    for context in make_contexts(6, seed=11):
        one, other = fresh.rate(context, ARMS), used.rate(context, ARMS)
        # The order in which arms were added may differ, and with it how sums are rounded.
        alike = one is other if one is None or other is None else _almost_equal(one, other)
        assert alike, f"{fresh.name} keeps nothing from before a fit"


def _almost_equal(one: ArmRatings, other: ArmRatings) -> bool:
    return bool(
        np.allclose(one.quality, other.quality, rtol=0.0, atol=1e-6)
        and np.allclose(one.sd, other.sd, rtol=0.0, atol=1e-6)
    )
