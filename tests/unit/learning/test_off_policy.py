"""Off-policy estimates: right where the truth is known, silent where the log cannot tell."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sophia.learning.missing import asked_only, inverse_chances
from sophia.learning.off_policy import Assessment, Comparison, Refused, assess, compare
from sophia.learning.support import Log, refusal, support

Matrix = NDArray[np.float64]
ARMS = 4


def world(seed: int, count: int = 3000, *, sharpness: float = 2.0) -> tuple[Log, Matrix, Matrix]:
    """A log, every arm's expected score for each of its requests, and what the logger believed."""
    rng = np.random.default_rng(seed)
    contexts = rng.normal(size=(count, 3))
    slopes = np.random.default_rng(99).normal(scale=0.1, size=(3, ARMS))
    truth = np.clip(0.6 + 0.1 * contexts[:, :1] + contexts @ slopes, 0.02, 0.98)
    belief = truth + rng.normal(scale=0.15, size=ARMS)
    propensities = 0.9 * softmax(sharpness * belief) + 0.1 / ARMS
    arms = (propensities.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    rewards = (rng.random(count) < truth[np.arange(count), arms]).astype(float)
    return Log(contexts, arms, propensities, rewards), truth, belief


def softmax(values: Matrix) -> Matrix:
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def greedy(values: Matrix) -> Matrix:
    return np.eye(values.shape[1])[values.argmax(axis=1)]


def assessed(log: Log, target: Matrix, **options: float) -> Assessment:
    verdict = assess(log, target, **options)  # type: ignore[arg-type]
    assert isinstance(verdict, Assessment), verdict
    return verdict


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """A 95 % interval holds the expected score of new requests in at least 93 % of worlds."""
    held = {"ips": 0, "snips": 0, "dr": 0, "clipped": 0}
    errors = dict.fromkeys(held, 0.0)
    seeds, expected = 150, expectation()
    for seed in range(seeds):
        log, truth, _ = world(seed)
        target = 0.8 * greedy(truth) + 0.2 / ARMS
        verdict = assessed(log, target)
        for method in held:
            one = getattr(verdict, method)
            held[method] += one.low <= expected <= one.high
            errors[method] += (one.value - expected) ** 2 / seeds

    assert min(held["dr"], held["snips"], held["clipped"]) >= 0.93 * seeds
    # Not wide for nothing: twice the standard error is what an interval is.
    assert held["dr"] < seeds
    assert errors["dr"] < errors["ips"]
    assert errors["dr"] ** 0.5 < 0.02


def expectation() -> float:
    """What the target scores on requests at large, from worlds that no estimate saw."""
    values = []
    for seed in range(200, 260):
        _, truth, _ = world(seed)
        values.append(float(((0.8 * greedy(truth) + 0.2 / ARMS) * truth).sum(axis=1).mean()))
    return float(np.mean(values))


def test_a_target_that_is_the_logger_scores_what_was_logged() -> None:
    log, _, _ = world(3)
    verdict = assessed(log, log.propensities)
    assert verdict.support.ess == pytest.approx(3000)
    assert verdict.support.max_weight == pytest.approx(1)
    assert verdict.ips.value == pytest.approx(log.rewards.mean())
    assert verdict.snips.value == pytest.approx(log.rewards.mean())
    assert verdict.dr.value == pytest.approx(log.rewards.mean(), abs=0.01)
    se = log.rewards.std(ddof=1) / 3000**0.5
    assert verdict.ips.se == pytest.approx(se)
    assert verdict.snips.se == pytest.approx(se)


def test_an_interval_is_student_s_at_what_the_log_is_worth() -> None:
    log, _, _ = world(3)
    few = Log(log.contexts[:200], log.arms[:200], log.propensities[:200], log.rewards[:200])
    one = assessed(few, few.propensities).ips
    assert (one.high - one.value) / one.se == pytest.approx(1.972, abs=0.001)
    assert one.value - one.low == pytest.approx(one.high - one.value)
    wide = assessed(few, few.propensities, level=0.99).ips
    assert (wide.high - wide.value) / wide.se == pytest.approx(2.601, abs=0.002)


def test_dr_is_right_with_a_useless_model_and_with_wrong_propensities() -> None:
    """Either the model or the propensities may fail, not both."""
    blind, informed, plain = [], [], []
    for seed in range(30):
        log, truth, _ = world(seed)
        target = greedy(truth)
        worth = float((target * truth).sum(axis=1).mean())
        nothing = Log(np.zeros((3000, 1)), log.arms, log.propensities, log.rewards)
        blind.append(assessed(nothing, target).dr.value - worth)
        flat = np.full_like(log.propensities, 1 / ARMS)
        wrong = Log(log.contexts, log.arms, flat, log.rewards)
        informed.append(assessed(wrong, target).dr.value - worth)
        plain.append(assessed(wrong, target).ips.value - worth)
    assert abs(np.mean(blind)) < 0.01
    assert abs(np.mean(informed)) < 0.012
    assert abs(np.mean(plain)) > 0.03


def test_self_normalised_weights_forgive_a_scale_and_clipped_ones_are_bounded() -> None:
    log, truth, _ = world(4)
    target = 0.8 * greedy(truth) + 0.2 / ARMS
    halved = Log(log.contexts, log.arms, log.propensities, log.rewards, np.full(3000, 2.0))
    plain, doubled = assessed(log, target), assessed(halved, target)
    assert doubled.snips.value == pytest.approx(plain.snips.value)
    assert doubled.snips.se == pytest.approx(plain.snips.se)
    assert doubled.ips.value == pytest.approx(2 * plain.ips.value)
    assert assessed(log, target, clip=1e9).clipped == plain.dr
    model_alone = assessed(log, target, clip=0.0).clipped
    assert model_alone.value != plain.dr.value
    assert model_alone.value == pytest.approx(plain.dr.value, abs=0.05)


def test_refuses_a_target_beyond_what_was_logged() -> None:
    """Over 5 % of choices that could never have been logged: no number."""
    log, _, _ = world(1)
    chances = log.propensities.copy()
    chances[:, 0] = 0
    chances /= chances.sum(axis=1, keepdims=True)
    kept = log.arms != 0
    rest = Log(log.contexts[kept], log.arms[kept], chances[kept], log.rewards[kept])

    def target(share: float) -> Matrix:
        return (1 - share) * rest.propensities + share * np.eye(ARMS)[[0] * len(rest.arms)]

    verdict = assess(rest, target(0.06))
    assert isinstance(verdict, Refused)
    assert "6.0%" in verdict.reason
    assert isinstance(assess(rest, target(0.05)), Assessment)


def test_refuses_a_log_that_is_worth_less_than_200_decisions() -> None:
    log, _, belief = world(1, sharpness=40)
    worst = np.eye(ARMS)[belief.argmin(axis=1)]
    verdict = assess(log, worst)
    assert isinstance(verdict, Refused)
    assert "200 are needed" in verdict.reason
    assert verdict.support.ess < 200
    few = 199
    short = Log(log.contexts[:few], log.arms[:few], log.propensities[:few], log.rewards[:few])
    assert isinstance(assess(short, short.propensities), Refused)
    more = Log(log.contexts[:200], log.arms[:200], log.propensities[:200], log.rewards[:200])
    assert isinstance(assess(more, more.propensities), Assessment)


def test_a_heavy_weight_that_chance_spared_still_counts_against_the_log() -> None:
    """Drawn weights look calm while the rare arm has not been drawn; the chances know."""
    count = 1000
    chances = np.tile([0.9999, 0.0001], (count, 1))
    log = Log(np.zeros((count, 1)), np.zeros(count, dtype=int), chances, np.ones(count))
    verdict = assess(log, np.tile([0.5, 0.5], (count, 1)))
    assert isinstance(verdict, Refused)
    assert verdict.support.ess < 10


def test_an_empty_log_is_refused() -> None:
    nothing = Log(np.zeros((0, 1)), np.zeros(0, dtype=int), np.zeros((0, 2)), np.zeros(0))
    assert isinstance(assess(nothing, np.zeros((0, 2))), Refused)


def test_unheard_decisions_only_lower_the_worth_of_a_log() -> None:
    log, _, _ = world(2)
    rewards = log.rewards.copy()
    rewards[::2] = np.nan
    half = Log(log.contexts, log.arms, log.propensities, rewards)
    ground = support(half, log.propensities)
    assert ground.ess == pytest.approx(1500)
    assert (ground.decisions, ground.scored) == (3000, 1500)
    silent = Log(log.contexts, log.arms, log.propensities, np.full(3000, np.nan))
    assert refusal(support(silent, log.propensities)) is not None


def test_a_comparison_is_paired_and_narrower_than_two_apart() -> None:
    log, truth, _ = world(5)
    better = 0.5 * greedy(truth) + 0.5 * log.propensities
    told = compare(log, better, log.propensities)
    assert isinstance(told, Comparison)
    gain = told.difference
    assert gain.value == pytest.approx(told.challenger.value - told.incumbent.value, abs=1e-9)
    worth = float(((better - log.propensities) * truth).sum(axis=1).mean())
    assert gain.low <= worth <= gain.high
    assert gain.se < (told.challenger.se**2 + told.incumbent.se**2) ** 0.5
    swapped = compare(log, log.propensities, better)
    assert isinstance(swapped, Comparison)
    assert swapped.difference.value == pytest.approx(-gain.value, abs=1e-9)
    same = compare(log, better, better)
    assert isinstance(same, Comparison)
    assert same.difference.value == 0


def test_a_comparison_needs_both_sides_supported() -> None:
    log, _, belief = world(1, sharpness=40)
    worst = np.eye(ARMS)[belief.argmin(axis=1)]
    assert isinstance(compare(log, log.propensities, worst), Refused)
    assert isinstance(compare(log, worst, log.propensities), Refused)


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("arms", np.array([0, 2]), "not among"),
        ("propensities", np.array([[0.5, 0.4], [1.0, 0.0]]), "sum to 1"),
        ("propensities", np.array([[1.5, -0.5], [1.0, 0.0]]), ">= 0"),
        ("propensities", np.array([[0.0, 1.0], [1.0, 0.0]]), "no chance"),
        ("rewards", np.zeros(3), "one row per decision"),
        ("inverse", np.zeros(3), "one row per decision"),
    ],
)
def test_a_wrong_log_is_refused_at_once(column: str, value: Matrix, problem: str) -> None:
    columns = {
        "contexts": np.zeros((2, 1)),
        "arms": np.array([0, 0]),
        "propensities": np.array([[0.5, 0.5], [1.0, 0.0]]),
        "rewards": np.zeros(2),
    }
    with pytest.raises(ValueError, match=problem):
        Log(**{**columns, column: value})


def test_a_target_must_be_a_distribution() -> None:
    log, _, _ = world(1, 300)
    with pytest.raises(ValueError, match="sum to 1"):
        assess(log, log.propensities * 0.5)
    with pytest.raises(ValueError, match="per decision and arm"):
        assess(log, log.propensities[:, :2])


@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_the_effective_sample_is_never_more_than_what_was_scored(seed: int, mix: float) -> None:
    log, truth, _ = world(seed, 300)
    ground = support(log, mix * greedy(truth) + (1 - mix) * log.propensities)
    assert 0 < ground.ess <= ground.scored + 1e-6


def test_the_same_seed_gives_the_same_number() -> None:
    log, truth, _ = world(8)
    target = 0.5 * greedy(truth) + 0.5 * log.propensities
    assert assess(log, target, seed=1) == assess(log, target, seed=1)
    assert assess(log, target, seed=1) != assess(log, target, seed=2)


def talkative(seed: int) -> tuple[Log, Log, Log, float]:
    """People speak up about what failed and about one arm; asking makes them speak evenly."""
    rng = np.random.default_rng(seed)
    log, truth, _ = world(seed, 8000)
    asked = rng.random(8000) < 0.15
    unasked = 1 / (1 + np.exp(2.2 + 1.2 * log.contexts[:, 0] - 1.0 * (log.arms == 1)))
    chance = np.where(asked, 0.95, unasked)
    spoke = rng.random(8000) < chance
    rewards = np.where(spoke, log.rewards, np.nan)
    inverse = inverse_chances(log.contexts, log.arms, asked, spoke)
    columns = log.contexts, log.arms, log.propensities
    random_few = np.where(asked, rewards, np.nan)
    return (
        Log(*columns, rewards),
        Log(*columns, rewards, inverse),
        Log(*columns, random_few, asked_only(asked, spoke)),
        float((log.propensities * truth).sum(axis=1).mean()),
    )


def test_silence_is_weighed_by_who_tends_to_speak() -> None:
    """Ignoring that hard requests are talked about more makes everything look worse than it is."""
    errors = np.array(
        [
            [assessed(log, log.propensities).snips.value - truth for log in logs]
            for *logs, truth in (talkative(seed) for seed in range(12))
        ]
    )
    ignored, weighed, asked = errors.mean(axis=0)
    assert ignored < -0.025
    assert abs(weighed) < 0.006
    assert abs(asked) < 0.012


def test_no_score_counts_for_more_than_fifty_decisions() -> None:
    rng = np.random.default_rng(0)
    contexts = rng.normal(size=(4000, 1))
    spoke = rng.random(4000) < 1 / (1 + np.exp(6 - contexts[:, 0]))
    nobody = np.zeros(4000, dtype=bool)
    inverse = inverse_chances(contexts, np.zeros(4000, dtype=int), nobody, spoke)
    assert inverse.max() == 50
    assert inverse.min() >= 1
    assert inverse_chances(contexts, np.zeros(4000, dtype=int), nobody, spoke, least=0.1).max() == 10


def test_those_who_were_never_asked_weigh_nothing() -> None:
    nobody = np.zeros(5, dtype=bool)
    assert asked_only(nobody, ~nobody).sum() == 0
    asked = np.array([True, True, True, True, False])
    spoke = np.array([True, True, True, False, True])
    assert asked_only(asked, spoke).sum() == pytest.approx(5)


def test_what_arms_cost_is_taken_off_exactly() -> None:
    rng = np.random.default_rng(2)
    arms, count = rng.integers(0, 2, 3000), 3000
    log = Log(np.zeros((count, 1)), arms, np.full((count, 2), 0.5), (rng.random(count) < 0.6).astype(float))
    ours, theirs = np.tile([0.9, 0.1], (count, 1)), np.tile([0.2, 0.8], (count, 1))
    plain = compare(log, ours, theirs)
    priced = compare(log, ours, theirs, prices=np.tile([0.3, 0.1], (count, 1)))
    assert isinstance(plain, Comparison) and isinstance(priced, Comparison)
    assert plain.difference.value - priced.difference.value == pytest.approx(0.7 * 0.2)
    assert plain.difference.se == pytest.approx(priced.difference.se)
