"""Expected cost and score of other policies on the ledger's latest decisions.

Costs are those expected of each model at the time, scores are doubly robust estimates on the
decisions with logged propensities. No policy is evaluated on decisions that it was trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from msgspec import Struct

from sophia.core.money import nano_to_usd
from sophia.learning.evaluation.logged import LoggedDecision
from sophia.learning.evaluation.nonresponse import BoolVector
from sophia.learning.evaluation.off_policy import (
    InsufficientData,
    OffPolicyEstimate,
    PolicyComparison,
    estimate_difference,
    estimate_value,
    predict_rewards,
)
from sophia.learning.evaluation.outcome_model import FOLDS
from sophia.learning.evaluation.targets import align_to_arms, build_bandit_log
from sophia.routing.bandit.policy import ArmRatings, Lesson, Matrix, PolicyContext, Vector

ACTUAL_POLICY = "as it was"

RateArms = Callable[[PolicyContext, Sequence[str]], ArmRatings]


class NothingLogged(ValueError):
    """The ledger has no scored decisions with logged propensities."""


class CounterfactualPolicy(Struct, frozen=True):
    """A policy's probabilities of each decision's arms, (A,).

    It may be evaluated on the decisions after `since_ms`; `note` gives the reason.
    """

    policy: str
    propensities: Sequence[Vector]
    since_ms: int = -1
    note: str = ""


class DecisionSlice(Struct, frozen=True, kw_only=True):
    """A policy's expected cost and score on the decisions of a day (UTC), of a task, or on all.

    `actual_usd` is the expected cost of the logged choices.
    """

    name: str
    decisions: int
    scored: int
    cost_usd: float
    actual_usd: float
    estimate: OffPolicyEstimate | InsufficientData


class CounterfactualResult(Struct, frozen=True, kw_only=True):
    """One policy on the decisions that it may be evaluated on.

    `gain` is its score less that of the logged choices (None for these themselves), `agreement` its
    mean probability of the model that was chosen.
    """

    policy: str
    overall: DecisionSlice
    gain: PolicyComparison | InsufficientData | None
    agreement: float
    days: tuple[DecisionSlice, ...]
    tasks: tuple[DecisionSlice, ...]
    note: str = ""


class CounterfactualReport(Struct, frozen=True, kw_only=True):
    """Comparison of policies on the decisions with logged propensities.

    Attributes:
        mean_score: plain mean of the scores.
        billed_usd: cost of all attempts for these decisions, without judging.
        deterministic: decisions with a certain model; these are left out.
        policies: results; the first is that of the logged choices.
    """

    evaluated: int
    scored: int
    mean_score: float | None
    billed_usd: float
    deterministic: int
    deterministic_billed_usd: float
    since_ms: int
    until_ms: int
    policies: tuple[CounterfactualResult, ...]


def build_counterfactual_report(
    decisions: Sequence[LoggedDecision],
    others: Sequence[int],
    policies: Sequence[CounterfactualPolicy],
    bills: Mapping[int, int],
    task_names: Sequence[str],
) -> CounterfactualReport:
    """Return the comparison of `policies` with the logged choices.

    `others` are the ids of decisions with a certain model, `bills` the costs in nano-dollars by id.

    Raises NothingLogged when no decision has both logged propensities and a score.
    """
    scores = [decision.feedback.score for decision in decisions if decision.feedback is not None]
    if not scores:
        raise NothingLogged(
            f"{len(decisions):,} decisions of these days have logged propensities, none of them "
            f"with a score; {len(others):,} were made by the heuristic, by a rule or by name, and "
            "show nothing of the score that another model would have had."
        )
    evaluator = _Evaluator(decisions, task_names)
    logged = CounterfactualPolicy(ACTUAL_POLICY, [decision.propensities for decision in decisions])
    return CounterfactualReport(
        evaluated=len(decisions),
        scored=len(scores),
        mean_score=float(np.mean(scores)),
        billed_usd=_sum_bills([decision.id for decision in decisions], bills),
        deterministic=len(others),
        deterministic_billed_usd=_sum_bills(others, bills),
        since_ms=decisions[0].at_ms,
        until_ms=decisions[-1].at_ms,
        policies=tuple(evaluator.evaluate(policy) for policy in (logged, *policies)),
    )


class _Evaluator:
    """Evaluate policies on the same decisions."""

    def __init__(self, decisions: Sequence[LoggedDecision], task_names: Sequence[str]) -> None:
        self._decisions = decisions
        self._log, self._arms = build_bandit_log(decisions)
        self._predicted = predict_rewards(self._log)
        costs = [decision.options.cost for decision in decisions]
        self._cost = align_to_arms(decisions, self._arms, costs)
        self._at_ms = np.array([decision.at_ms for decision in decisions])
        days = [f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d}" for at in self._at_ms]
        self._days = {day: np.array(days) == day for day in sorted(set(days))}
        tasks = [int(decision.context.task_probabilities.argmax()) for decision in decisions]
        names = [task_names[at] if at < len(task_names) else f"task {at}" for at in tasks]
        by_size = sorted(set(names), key=lambda name: (-names.count(name), name))
        self._tasks = {name: np.array(names) == name for name in by_size}

    def evaluate(self, policy: CounterfactualPolicy) -> CounterfactualResult:
        """Return one policy's cost and score, overall and by part."""
        target = align_to_arms(self._decisions, self._arms, policy.propensities)
        rows = self._at_ms > policy.since_ms
        gain = None
        if policy.policy != ACTUAL_POLICY:
            gain = estimate_difference(self._log.select(rows), target[rows], self._predicted[rows])
        chosen = target[np.arange(len(target)), self._log.arms]
        return CounterfactualResult(
            policy=policy.policy,
            overall=self._build_slice("all", target, rows),
            gain=gain,
            agreement=float(chosen[rows].mean()) if rows.any() else 0.0,
            days=self._build_slices(self._days, target, rows),
            tasks=self._build_slices(self._tasks, target, rows),
            note=policy.note,
        )

    def _build_slices(
        self, groups: Mapping[str, BoolVector], target: Matrix, rows: BoolVector
    ) -> tuple[DecisionSlice, ...]:
        return tuple(
            self._build_slice(name, target, rows & group)
            for name, group in groups.items()
            if np.any(rows & group)
        )

    def _build_slice(self, name: str, target: Matrix, rows: BoolVector) -> DecisionSlice:
        log = self._log.select(rows)
        cost, actual = (
            nano_to_usd(round(float((propensities * self._cost)[rows].sum())))
            for propensities in (target, self._log.propensities)
        )
        return DecisionSlice(
            name=name,
            decisions=int(rows.sum()),
            scored=int(np.count_nonzero(log.response_weights)),
            cost_usd=cost,
            actual_usd=actual,
            estimate=estimate_value(log, target[rows], self._predicted[rows]),
        )


def cross_fit_ratings(
    train: Callable[[Sequence[Lesson]], RateArms], decisions: Sequence[LoggedDecision]
) -> list[ArmRatings]:
    """Return the ratings of each decision's arms by models trained on the other folds."""
    fold = np.random.default_rng(0).permutation(len(decisions)) % FOLDS
    ratings: dict[int, ArmRatings] = {}
    for part in range(FOLDS):
        lessons = [
            Lesson(decision.context, feedback.arm, feedback.score, feedback.weight)
            for at, decision in enumerate(decisions)
            if fold[at] != part and (feedback := decision.feedback) is not None
        ]
        rate = train(lessons)
        for at in np.flatnonzero(fold == part).tolist():
            ratings[at] = rate(decisions[at].context, decisions[at].arms)
    return [ratings[at] for at in range(len(decisions))]


def _sum_bills(ids: Sequence[int], bills: Mapping[int, int]) -> float:
    return nano_to_usd(sum(bills.get(id, 0) for id in ids))
