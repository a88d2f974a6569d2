"""Logged decisions as a bandit log, and the choice probabilities of other policies on them."""

import math
from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from sophia.learning.evaluation.logged import LoggedDecision, LoggedFeedback
from sophia.learning.evaluation.nonresponse import FeedbackColumns, fit_response_weights
from sophia.learning.evaluation.support import BanditLog
from sophia.routing.bandit.arms import strip_call_mode
from sophia.routing.bandit.choose import QUALITY_BIAS_PRESETS, ChoiceSet, choose_arm, cost_weight
from sophia.routing.bandit.policy import ArmRatings, Matrix, Vector
from sophia.routing.heuristic import choose_model_role, order_quotes
from sophia.routing.pool import UNKNOWN_QUALITY, ModelPool
from sophia.routing.quotes import Quote, order_by_tradeoff
from sophia.routing.rank import FAST_LATENESS_PENALTY


def build_bandit_log(decisions: Sequence[LoggedDecision]) -> tuple[BanditLog, tuple[str, ...]]:
    """Return decisions as a log over the arms that were a candidate in any, and these arms."""
    arms = tuple(sorted({arm for decision in decisions for arm in decision.arms}))
    chosen = [arms.index(decision.arms[decision.chosen]) for decision in decisions]
    propensities = [decision.propensities for decision in decisions]
    table = build_feedback_columns(
        np.array([decision.context.task_probabilities for decision in decisions]),
        np.array(chosen, dtype=np.intp),
        [decision.judge_sampled for decision in decisions],
        [decision.feedback for decision in decisions],
    )
    weights, _ = fit_response_weights(table)
    log = BanditLog(
        contexts=table.contexts,
        arms=table.arms,
        propensities=align_to_arms(decisions, arms, propensities),
        rewards=np.nan_to_num(table.scores),
        response_weights=weights,
    )
    return log, arms


def build_feedback_columns(
    contexts: Matrix,
    arms: NDArray[np.intp],
    judge_sampled: Sequence[bool],
    feedback: Sequence[LoggedFeedback | None],
) -> FeedbackColumns:
    """Return decisions, one per row, with their feedback; see `FeedbackColumns` for the columns."""
    sampled = np.array(judge_sampled, dtype=np.bool_)
    scores = [math.nan if row is None else row.score for row in feedback]
    judge_scores = [
        math.nan if row is None or row.judge_score is None else row.judge_score for row in feedback
    ]
    return FeedbackColumns(
        contexts=contexts,
        arms=arms,
        judge_sampled=sampled,
        scores=np.array(scores),
        # On an answer that was not sampled, a judge's score is voluntary feedback.
        judge_scores=np.where(sampled, np.array(judge_scores), np.nan),
    )


def align_to_arms(
    decisions: Sequence[LoggedDecision], arms: tuple[str, ...], values: Sequence[Vector]
) -> Matrix:
    """Return each decision's values in the columns of all arms, (N, A); zeros elsewhere."""
    column = {arm: index for index, arm in enumerate(arms)}
    aligned = np.zeros((len(decisions), len(arms)))
    for row, (decision, numbers) in enumerate(zip(decisions, values, strict=True)):
        aligned[row, [column[arm] for arm in decision.arms]] = numbers
    return aligned


def fixed_model_propensities(decision: LoggedDecision, model: str) -> Vector:
    """Return probability 1 for one model, (A,); the logged ones where it was no candidate."""
    models = [strip_call_mode(arm) for arm in decision.arms]
    if model not in models:
        return decision.propensities
    return _one_hot(len(models), models.index(model))


def rating_propensities(
    decision: LoggedDecision,
    ratings: ArmRatings,
    cost: float | None = None,
    models: frozenset[str] = frozenset(),
) -> Vector:
    """Return the probabilities by other ratings, (A,), with the logged exploration.

    `cost` replaces the logged weight of cost; only `models`, if any, may be chosen. The logged
    probabilities stand where none of `models` was a candidate.
    """
    positions = [
        at for at, arm in enumerate(decision.arms) if not models or strip_call_mode(arm) in models
    ]
    if not positions:
        return decision.propensities
    weights = decision.utility_weights
    if cost is not None:
        weights = replace(weights, cost=cost)
    options = _select_options(replace(decision.options, ratings=ratings), positions)
    propensities: Vector = np.zeros(len(decision.arms))
    propensities[positions] = choose_arm(options, weights, decision.exploration, 0.0).propensities
    return propensities


def heuristic_propensities(decision: LoggedDecision, pool: ModelPool) -> Vector:
    """Return probability 1 for the model that the heuristic chooses, (A,).

    The caller's preference (cheap, fast, best) is inferred from the logged utility weights. The
    logged probabilities stand where no model of `pool` was a candidate.
    """
    models = [strip_call_mode(arm) for arm in decision.arms]
    if not set(models) & pool.by_id.keys():
        return decision.propensities
    task = decision.features.task_type
    quotes = {
        model: Quote(
            pool_model=pool.by_id[model],
            quality=pool.by_id[model].quality.get(task, UNKNOWN_QUALITY),
            expected_nano=int(cost),
            held_nano=int(cost),
        )
        for model, cost in zip(models, decision.list_costs.tolist(), strict=True)
        if model in pool.by_id
    }

    def find_by_role(role: str) -> Quote | None:
        pool_model = pool.by_role.get(role)
        return None if pool_model is None else quotes.get(pool_model.id)

    ranked = [quotes[model.id] for model in pool.by_quality[task] if model.id in quotes]
    affordable = order_quotes(choose_model_role(decision.features)[0], find_by_role, ranked)
    ordered, _ = order_by_tradeoff(affordable, _infer_tradeoff(decision), None)
    return _one_hot(len(models), models.index(ordered[0].pool_model.id))


def _infer_tradeoff(decision: LoggedDecision) -> str:
    weights = decision.utility_weights
    if weights.lateness >= FAST_LATENESS_PENALTY:
        return "fast"
    if weights.cost >= cost_weight(QUALITY_BIAS_PRESETS["cheap"]):
        return "cheap"
    return "best" if weights.cost <= cost_weight(QUALITY_BIAS_PRESETS["best"]) else ""


def _select_options(options: ChoiceSet, positions: list[int]) -> ChoiceSet:
    """Return the options at these positions alone."""
    position = {at: number for number, at in enumerate(positions)}
    current, trial = options.current_arm, options.trial
    return ChoiceSet(
        ratings=ArmRatings(options.ratings.quality[positions], options.ratings.sd[positions]),
        cost=options.cost[positions],
        explorable=options.explorable[positions],
        late_probability=options.late_probability[positions],
        current_arm=None if current is None else position.get(current),
        trial=(position[trial[0]], trial[1]) if trial and trial[0] in position else None,
        failure_probability=options.failure_probability[positions],
    )


def _one_hot(count: int, at: int) -> Vector:
    propensities: Vector = np.zeros(count)
    propensities[at] = 1.0
    return propensities
