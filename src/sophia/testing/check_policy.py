"""The battery that every policy passes: it says what it was asked, of whom, and stays the same."""

from collections.abc import Callable, Sequence

import numpy as np

from sophia.routing.policies.hierarchical import Shape
from sophia.routing.policies.policy import Learner, Lesson, Policy, Ratings, Sight

ARMS = ("vendor/large", "vendor/small", "maker/quick", "maker/slow")
STRANGER = "nobody/unheard-of"
SHAPE = Shape(tasks=5, embedding=8, features=3)


def check_policy(make: Callable[[], Policy], *, shape: Shape = SHAPE) -> None:
    """Check what a policy promises; `make` returns a fresh one that knows some of `ARMS` or none.

    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    sights = sights_of(12, shape)
    assert make().name, "a policy has a name"
    assert make().name == make().name, "a policy's name does not change"
    for sight in sights:
        _rates_what_it_is_asked(make(), sight)
    _keeps_its_hands_off(make(), sights)
    _says_the_same_again(make, sights)


def check_learner(make: Callable[[], Learner], *, shape: Shape = SHAPE) -> None:
    """Check `check_policy` before and after learning, and that the learned can be written down.

    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    check_policy(make, shape=shape)
    lessons = lessons_of(160, shape)

    def taught() -> Learner:
        learner = make()
        for lesson in lessons:
            learner.learn_one(lesson)
        return learner

    def fitted() -> Learner:
        learner = make()
        learner.fit(lessons)
        return learner

    for learned in (taught, fitted):
        check_policy(learned, shape=shape)
        _survives_a_round_trip(learned(), shape)
    _forgets_when_fitted(make, lessons, shape)
    _keeps_its_hands_off_lessons(make, lessons)


def sights_of(count: int, shape: Shape, seed: int = 7) -> list[Sight]:
    """Return requests of every kind: familiar and not, of a tenant and of nobody, unread."""
    rng = np.random.default_rng(seed)
    sights = []
    for number in range(count):
        embedding = rng.normal(size=shape.embedding)
        embedding *= 0.0 if number % 5 == 4 else 1.0 / np.linalg.norm(embedding)
        sights.append(
            Sight(
                rng.dirichlet(np.full(shape.tasks, 0.3)),
                embedding,
                rng.uniform(size=shape.features),
                float(number % 3 == 2) * rng.uniform(),
                "tenant" if number % 4 == 3 else "",
            )
        )
    return sights


def lessons_of(count: int, shape: Shape, seed: int = 8) -> list[Lesson]:
    """Return outcomes of `ARMS`, the first of which is right most often."""
    rng = np.random.default_rng(seed)
    lessons = []
    for number, sight in enumerate(sights_of(count, shape, seed)):
        arm = int(rng.integers(len(ARMS)))
        right = float(rng.uniform() < 0.9 - 0.2 * arm)
        task = int(sight.tasks.argmax()) if number % 2 else None
        lessons.append(Lesson(sight, ARMS[arm], right, float(rng.uniform(0.2, 1.5)), task))
    return lessons


def same(one: Ratings | None, other: Ratings | None) -> bool:
    """Say whether two ratings are bit for bit the same."""
    if one is None or other is None:
        return one is other
    return bool(
        np.array_equal(one.quality, other.quality) and np.array_equal(one.sd, other.sd)
    )


def _rates_what_it_is_asked(policy: Policy, sight: Sight) -> None:
    asked: list[Sequence[str]] = [
        ARMS,
        ARMS[::-1],
        ARMS[1:3],
        ARMS[:1],
        (STRANGER, *ARMS),
        (STRANGER,),
    ]
    for arms in asked:
        ratings = policy.rate(sight, arms)
        if ratings is None:
            continue
        for part in (ratings.quality, ratings.sd):
            assert part.shape == (len(arms),), f"{policy.name} rates each arm asked for, once"
            assert np.isfinite(part).all(), f"{policy.name} says numbers"
        assert (ratings.quality >= 0.0).all(), f"{policy.name}'s qualities are at least 0"
        assert (ratings.quality <= 1.0).all(), f"{policy.name}'s qualities are at most 1"
        assert (ratings.sd >= 0.0).all(), f"{policy.name}'s sd are at least 0"
    forth, back = policy.rate(sight, ARMS), policy.rate(sight, ARMS[::-1])
    if forth is not None and back is not None:
        turned = np.allclose(forth.quality, back.quality[::-1], rtol=0.0, atol=1e-9)
        assert turned, f"{policy.name} rates arms in the order asked"


def _keeps_its_hands_off(policy: Policy, sights: Sequence[Sight]) -> None:
    for sight in sights:
        for part in (sight.tasks, sight.embedding, sight.features):
            part.setflags(write=False)
        policy.rate(sight, ARMS)


def _keeps_its_hands_off_lessons(make: Callable[[], Learner], lessons: Sequence[Lesson]) -> None:
    for lesson in lessons:
        for part in (lesson.sight.tasks, lesson.sight.embedding, lesson.sight.features):
            part.setflags(write=False)
    learner = make()
    for lesson in lessons:
        learner.learn_one(lesson)
    learner.fit(lessons)


def _says_the_same_again(make: Callable[[], Policy], sights: Sequence[Sight]) -> None:
    policy, twin = make(), make()
    first = [policy.rate(sight, ARMS) for sight in sights]
    for sight, said in zip(sights, first, strict=True):
        assert same(policy.rate(sight, ARMS), said), f"rating does not change {policy.name}"
        assert same(twin.rate(sight, ARMS), said), f"{policy.name} made alike rates alike"


def _survives_a_round_trip(learner: Learner, shape: Shape) -> None:
    name = learner.name
    written = learner.snapshot()
    assert written == learner.snapshot(), f"{name} writes the same state in the same bytes"
    restored = type(learner).restore(written)
    assert restored.snapshot() == written, f"{name} restored writes the same bytes"
    late, sights = lessons_of(20, shape, seed=9), sights_of(20, shape, seed=10)
    asked = (*ARMS, STRANGER)
    for lesson, sight in zip(late, sights, strict=True):
        assert same(learner.rate(sight, asked), restored.rate(sight, asked)), (
            f"{name} restored rates bit for bit the same"
        )
        learner.learn_one(lesson)
        restored.learn_one(lesson)


def _forgets_when_fitted(
    make: Callable[[], Learner], lessons: Sequence[Lesson], shape: Shape
) -> None:
    half = len(lessons) // 2
    fresh, used = make(), make()
    for lesson in lessons[half:]:
        used.learn_one(lesson)
    fresh.fit(lessons[:half])
    used.fit(lessons[:half])
    for sight in sights_of(6, shape, seed=11):
        one, other = fresh.rate(sight, ARMS), used.rate(sight, ARMS)
        # The order in which arms were met may be remembered, and with it how sums are rounded.
        alike = one is other if one is None or other is None else _close(one, other)
        assert alike, f"{fresh.name} keeps nothing from before a fit"


def _close(one: Ratings, other: Ratings) -> bool:
    return bool(
        np.allclose(one.quality, other.quality, rtol=0.0, atol=1e-6)
        and np.allclose(one.sd, other.sd, rtol=0.0, atol=1e-6)
    )
