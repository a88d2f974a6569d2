"""Policy comparison: near the truth of a rows-up world, by day and task, or refused."""

from collections.abc import Sequence

import numpy as np
import pytest
from msgspec.structs import replace

from logged_decisions import ARMS, COSTS, TASKS, TRUTH
from sophia.learning.evaluation.compare import (
    ACTUAL_POLICY,
    CounterfactualPolicy,
    CounterfactualReport,
    NothingLogged,
    RateArms,
    build_counterfactual_report,
    cross_fit_ratings,
)
from sophia.learning.evaluation.logged import LoggedDecision, LoggedFeedback
from sophia.learning.evaluation.off_policy import (
    InsufficientData,
    OffPolicyEstimate,
    PolicyComparison,
)
from sophia.learning.evaluation.targets import fixed_model_propensities, rating_propensities
from sophia.routing.bandit.choose import ChoiceSet, cost_weight
from sophia.routing.bandit.policy import ArmRatings, Lesson, PolicyContext, Vector
from sophia.routing.features.extract import build_default_features
from sophia.routing.types import Exploration, Prompt, UtilityWeights

DAY_MS = 86_400_000
CHANCES = np.array([0.45, 0.40, 0.15])
NAMES = ("sums", "verse")
BILL = 7_000


def decisions(count: int = 2400, seed: int = 0, days: int = 3) -> tuple[LoggedDecision, ...]:
    """Decisions that do not depend on the task, spread over some days."""
    rng = np.random.default_rng(seed)
    options = ChoiceSet(
        ratings=ArmRatings(np.full(3, 0.6), np.zeros(3)),
        cost=COSTS,
        explorable=np.ones(3, bool),
        late_probability=np.zeros(3),
        failure_probability=np.zeros(3),
    )
    rows = []
    for number in range(count):
        task, arm = int(rng.integers(2)), int(rng.choice(3, p=CHANCES))
        score = float(rng.random() < TRUTH[task, arm])
        feedback = LoggedFeedback(score, 1.0, ARMS[arm]) if rng.random() < 0.7 else None
        rows.append(
            LoggedDecision(
                at_ms=number * days * DAY_MS // count,
                context=PolicyContext(TASKS[task]),
                arms=ARMS,
                options=options,
                utility_weights=UtilityWeights(0.05, 3e6),
                exploration=Exploration("off"),
                propensities=CHANCES,
                chosen=arm,
                feedback=feedback,
                id=number * 16,
                key_id="k",
                features=build_default_features(Prompt(text="", chars=1, utf8_bytes=1)),
                list_costs=COSTS,
                judge_sampled=False,
            )
        )
    return tuple(rows)


def oracle_propensities(decision: LoggedDecision) -> Vector:
    """The best arm of the likeliest task."""
    task = int(decision.context.task_probabilities.argmax())
    return fixed_model_propensities(decision, ARMS[int(TRUTH[task].argmax())])


@pytest.fixture(scope="module")
def report() -> CounterfactualReport:
    rows = decisions()
    bills = {row.id: BILL for row in rows} | {-16: 11}
    policies = [
        CounterfactualPolicy("oracle", [oracle_propensities(row) for row in rows]),
        CounterfactualPolicy("cheap", [fixed_model_propensities(row, "a/cheap") for row in rows]),
    ]
    return build_counterfactual_report(rows, (-16,), policies, bills, NAMES)


def test_the_truth_lies_within_the_intervals(report: CounterfactualReport) -> None:
    truth = {ACTUAL_POLICY: CHANCES @ TRUTH.mean(axis=0), "oracle": 0.9, "cheap": 0.75}
    for result in report.policies:
        if result.policy in truth:
            estimate = result.overall.estimate
            assert isinstance(estimate, OffPolicyEstimate)
            assert estimate.dr.low <= truth[result.policy] <= estimate.dr.high
    gain = report.policies[1].gain
    assert isinstance(gain, PolicyComparison) and gain.difference.low > 0.1


def test_costs_are_sums_of_expectations_and_of_bills(report: CounterfactualReport) -> None:
    rows = decisions()
    assert report.billed_usd == pytest.approx(len(rows) * BILL / 1e9)
    assert (report.deterministic, report.deterministic_billed_usd) == (1, 11 / 1e9)
    cheap = report.policies[2]
    assert cheap.overall.cost_usd == pytest.approx(len(rows) * COSTS[0] / 1e9)
    assert cheap.overall.actual_usd == pytest.approx(len(rows) * float(CHANCES @ COSTS) / 1e9)
    assert cheap.agreement == pytest.approx(CHANCES[0], abs=0.03)
    scores = [row.feedback.score for row in rows if row.feedback is not None]
    assert report.mean_score == pytest.approx(float(np.mean(scores)))


def test_the_parts_add_up_to_the_whole(report: CounterfactualReport) -> None:
    for result in report.policies:
        assert [part.name for part in result.days] == ["1970-01-01", "1970-01-02", "1970-01-03"]
        assert {part.name for part in result.tasks} == set(NAMES)
        for parts in (result.days, result.tasks):
            assert (
                sum(part.decisions for part in parts)
                == result.overall.decisions
                == report.evaluated
            )
            assert sum(part.scored for part in parts) == result.overall.scored == report.scored
            assert sum(part.cost_usd for part in parts) == pytest.approx(result.overall.cost_usd)
    by_task = {part.name: part for part in report.policies[2].tasks}
    for name, truth in zip(NAMES, TRUTH[:, 0], strict=True):
        estimate = by_task[name].estimate
        assert isinstance(estimate, OffPolicyEstimate)
        assert estimate.dr.value == pytest.approx(float(truth), abs=0.08)


def test_a_part_with_too_little_evidence_is_refused_and_the_whole_is_not() -> None:
    rows = decisions(1500, days=6)
    names = ("a/cheap", "c/weak")
    policies = [
        CounterfactualPolicy(name, [fixed_model_propensities(row, name) for row in rows])
        for name in names
    ]
    _, cheap, weak = build_counterfactual_report(rows, (), policies, {}, NAMES).policies
    assert isinstance(cheap.overall.estimate, OffPolicyEstimate)
    for part in cheap.days:
        assert (
            isinstance(part.estimate, InsufficientData) and "200 are needed" in part.estimate.reason
        )
    assert isinstance(weak.overall.estimate, InsufficientData) and isinstance(
        weak.gain, InsufficientData
    )
    assert weak.overall.cost_usd > 0


def test_a_policy_is_evaluated_on_its_eligible_decisions_alone() -> None:
    """Decisions that a snapshot may have learned from count neither for its score nor its cost."""
    rows = decisions(1600)
    late = np.array([row.at_ms >= DAY_MS for row in rows])
    spoiled = [
        row
        if eligible or row.feedback is None
        else replace(row, feedback=replace(row.feedback, score=0.0))
        for row, eligible in zip(rows, late, strict=True)
    ]
    policy = CounterfactualPolicy(
        policy="cheap",
        propensities=[fixed_model_propensities(row, "a/cheap") for row in spoiled],
        since_ms=DAY_MS - 1,
        note="left out",
    )
    report = build_counterfactual_report(spoiled, (), [policy], {}, NAMES)
    cheap = report.policies[1]
    assert cheap.overall.decisions == int(late.sum()) and cheap.note == "left out"
    assert [part.name for part in cheap.days] == ["1970-01-02", "1970-01-03"]
    assert isinstance(cheap.overall.estimate, OffPolicyEstimate)
    assert cheap.overall.estimate.dr.value == pytest.approx(0.75, abs=0.05)


def test_no_policy_rates_decisions_that_it_was_trained_on() -> None:
    """Each decision is rated by a policy trained on all other folds, and only on them."""
    rows = decisions(300)
    counts: list[int] = []

    def learn(lessons: Sequence[Lesson]) -> RateArms:
        counts.append(len(lessons))

        def rate(context: PolicyContext, arms: Sequence[str]) -> ArmRatings:
            assert not any(lesson.context is context for lesson in lessons), "trained on it"
            return ArmRatings(np.full(len(arms), len(lessons) / 1e6), np.zeros(len(arms)))

        return rate

    assert len(cross_fit_ratings(learn, rows)) == len(rows)
    scored = sum(row.feedback is not None for row in rows)
    assert len(counts) == 5 and sum(counts) == 4 * scored


def test_a_cross_fitted_policy_finds_nothing_in_noise() -> None:
    """Where all arms are alike, a policy trained on other decisions does not look better."""
    rng = np.random.default_rng(5)
    rows = [
        replace(row, feedback=LoggedFeedback(float(rng.random() < 0.5), 1.0, row.arms[row.chosen]))
        for row in decisions(1500)
    ]

    def learn(lessons: Sequence[Lesson]) -> RateArms:
        mean = {
            arm: np.mean([lesson.quality for lesson in lessons if lesson.arm == arm])
            for arm in ARMS
        }
        return lambda _, arms: ArmRatings(
            np.array([mean[arm] for arm in arms]), np.zeros(len(arms))
        )

    ratings = cross_fit_ratings(learn, rows)
    policy = CounterfactualPolicy(
        "best", [rating_propensities(*pair) for pair in zip(rows, ratings, strict=True)]
    )
    estimate = (
        build_counterfactual_report(rows, (), [policy], {}, NAMES).policies[1].overall.estimate
    )
    assert isinstance(estimate, OffPolicyEstimate)
    assert estimate.dr.low <= 0.5 <= estimate.dr.high


def test_a_quality_bias_and_a_choice_of_models_change_the_choice() -> None:
    decision = decisions(1)[0]
    ratings = ArmRatings(np.array([0.7, 0.75, 0.2]), np.zeros(3))
    assert rating_propensities(decision, ratings, cost_weight(0.0)).argmax() == 0
    assert rating_propensities(decision, ratings, cost_weight(10.0)).argmax() == 1
    assert rating_propensities(
        decision, ratings, cost_weight(0.0), frozenset({"b/dear"})
    ).tolist() == [0, 1, 0]
    unchanged = rating_propensities(decision, ratings, None, frozenset({"x/none"}))
    assert unchanged.tolist() == CHANCES.tolist()


def test_an_arm_on_trial_or_in_use_stays_so_among_fewer_models() -> None:
    decision = decisions(1)[0]
    ratings = ArmRatings(np.array([0.7, 0.71, 0.2]), np.zeros(3))
    options = replace(decision.options, trial=(2, 0.25), current_arm=1)
    busy = replace(
        decision, options=options, utility_weights=replace(decision.utility_weights, switching=0.5)
    )
    chances = rating_propensities(busy, ratings, None, frozenset({"b/dear", "c/weak"}))
    assert chances == pytest.approx([0.0, 0.75, 0.25])
    without = rating_propensities(busy, ratings, None, frozenset({"a/cheap", "b/dear"}))
    assert without == pytest.approx([0.0, 1.0, 0.0])
    assert rating_propensities(busy, ratings, None, frozenset({"a/cheap"})) == pytest.approx(
        [1.0, 0.0, 0.0]
    )


def test_without_feedback_there_is_no_comparison() -> None:
    silent = tuple(replace(row, feedback=None) for row in decisions(20))
    with pytest.raises(NothingLogged, match=r"20 decisions .* 3 were made"):
        build_counterfactual_report(silent, (1, 2, 3), [], {}, NAMES)
