"""A correction says what a policy missed, no more than was seen, and fades where no text tells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.learning.correction import LEAST, Miss, fit, miss_of
from sophia.routing.policies.hierarchical import Hierarchical
from sophia.routing.policies.policy import Lesson, Prior, Sight
from sophia.routing.policies.residual import Correction, Residual, Rival, describe
from sophia.testing.check_policy import ARMS, SHAPE, check_policy, lessons_of, sights_of

NOTHING = np.zeros(0)
CLEAR = np.array([0.96, 0.02, 0.02])
SPLIT = np.array([0.49, 0.49, 0.02])


def sight(tasks: np.ndarray, novelty: float = 0.0) -> Sight:
    return Sight(tasks, NOTHING, NOTHING, novelty)


def misses(count: int, seed: int = 0, size: float = 0.2) -> list[Miss]:
    """Return misses of a policy that expects 0.5 of all: `a` is better on clear requests only."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        clear, arm = rng.random() < 0.5, ("a", "b")[int(rng.integers(2))]
        chance = 0.5 + (size if clear == (arm == "a") else -size)
        lesson = Lesson(sight(CLEAR if clear else SPLIT), arm, float(rng.random() < chance))
        found.append(miss_of(lesson, 0.5))
    return found


def correction(count: int = 4000, **more: float) -> Correction:
    fitted = fit(misses(count, **more))  # type: ignore[arg-type]
    assert fitted is not None
    return fitted.correction


def make() -> Residual:
    prior = Prior(np.full(SHAPE.tasks, 0.6), np.full(SHAPE.tasks, 0.1))
    base = Hierarchical(SHAPE, None, dict.fromkeys(ARMS[:3], prior))
    found = fit([miss_of(one, 0.5) for one in lessons_of(400, SHAPE)])
    assert found is not None
    return Residual(base, found.correction)


def test_it_is_a_policy() -> None:
    check_policy(make)


def test_it_finds_what_a_line_in_the_tasks_cannot() -> None:
    found = correction()
    (clear, _), (split, _) = (found.at(sight(tasks), ["a", "b"]) for tasks in (CLEAR, SPLIT))
    assert clear[0] - clear[1] == pytest.approx(0.4, abs=0.12)
    assert split[0] - split[1] == pytest.approx(-0.4, abs=0.12)


def test_what_was_seen_little_is_corrected_little() -> None:
    few, many = ((abs(correction(n).at(sight(CLEAR), ["a"])[0][0])) for n in (240, 8000))
    assert few < many < 0.25


def test_where_nothing_is_missed_next_to_nothing_is_corrected() -> None:
    for seed in range(5):
        shift, _ = correction(4000, seed=seed, size=0.0).at(sight(CLEAR), ["a", "b"])
        assert abs(shift[0] - shift[1]) < 0.05


def test_its_sd_is_what_it_errs_by() -> None:
    """Over worlds; between the two arms, whose errors are their own."""
    errors, told = [], []
    for seed in range(40):
        shift, variance = correction(600, seed=seed, size=0.1).at(sight(CLEAR), ["a", "b"])
        errors.append(shift[0] - shift[1] - 0.2)
        told.append(variance.sum())
    assert 0.5 < np.sqrt(np.mean(told) / np.mean(np.square(errors))) < 2.5


def test_an_unknown_arm_gets_what_all_share_and_a_novel_request_nothing() -> None:
    found = correction()
    shift, variance = found.at(sight(CLEAR), ["a", "stranger"])
    assert shift[0] != shift[1] and variance[1] == 0.0 < variance[0]
    shift, variance = found.at(sight(CLEAR, 1.0), ["a", "b"])
    assert not shift.any() and not variance.any()


def test_too_few_lessons_of_an_arm_correct_nobody() -> None:
    assert fit([one for one in misses(2000) if one.lesson.arm == "a"]) is None
    lone = [one for one in misses(2000) if one.lesson.arm == "b"][: LEAST - 1]
    assert fit([*(one for one in misses(500) if one.lesson.arm == "a"), *lone]) is None
    assert fit([]) is None


def test_it_is_written_down_and_read_back_bit_by_bit() -> None:
    found = correction(600)
    again = Correction.unpack(found.pack())
    assert again.pack() == found.pack()
    for one in sights_of(5, SHAPE):
        same = Sight(one.tasks[:3], NOTHING, NOTHING, one.novelty)
        for told, kept in zip(found.at(same, ["b", "a"]), again.at(same, ["b", "a"]), strict=True):
            assert np.array_equal(told, kept)


def test_one_correction_stands_in_for_another() -> None:
    base, sights = make(), sights_of(6, SHAPE)
    ours = fit([miss_of(one, 0.4) for one in lessons_of(600, SHAPE, seed=3)])
    theirs = fit([miss_of(one, 0.5) for one in lessons_of(400, SHAPE)])
    assert ours is not None and theirs is not None
    plain = Hierarchical(SHAPE, None, {arm: Prior(np.full(5, 0.6), np.full(5, 0.1)) for arm in ARMS[:3]})
    for one in sights:
        rated = base.rate(one, ARMS)
        direct = Residual(plain, ours.correction).rate(one, ARMS)
        assert rated is not None and direct is not None
        instead = Rival(ours.correction, theirs.correction).correct(rated, one, ARMS)
        assert np.allclose(instead.quality, direct.quality)


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6), st.floats(0.0, 1.0))
def test_any_posterior_looks_like_numbers(chances: list[float], novelty: float) -> None:
    looks = describe(sight(np.array(chances) / sum(chances), novelty))
    assert looks.shape == (len(chances) + 3,) and np.isfinite(looks).all()
