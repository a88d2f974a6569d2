"""Retrain the learned policy on all lessons, and activate the result if it predicts better."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from sophia.core.ports import Store
from sophia.learning.evaluation.logged import MAX_DECISIONS, read_feedback
from sophia.learning.evaluation.nonresponse import (
    ScoreEstimates,
    estimate_means,
    fit_response_weights,
)
from sophia.learning.evaluation.targets import build_feedback_columns
from sophia.learning.online.archive import PolicyArchive
from sophia.learning.online.catch_up import load_lessons
from sophia.learning.online.policy import OnlinePolicy
from sophia.learning.online.tenant_status import LoggedLesson
from sophia.learning.snapshots import active_snapshot_id
from sophia.routing.bandit.arms import format_arm, strip_call_mode
from sophia.routing.bandit.policy import Lesson
from sophia.routing.bandit.quality.hierarchical import HierarchicalPolicy
from sophia.routing.explain.trace import unpack_context
from sophia.routing.types import decode_plan

MIN_LESSONS = 50
HELD_OUT_SHARE = 0.2
MAX_WEIGHT = 5.0
"""Upper bound on a weight in training, as a multiple of the mean one: the weights are estimates,
and a single unusual score must not decide."""


class RefitResult(Struct, frozen=True, kw_only=True):
    """Comparison of learning all lessons at once with learning them one by one.

    Attributes:
        held_out_lessons: number of the latest lessons, which both were compared on.
        current_mse: mean squared error of learning lesson by lesson.
        better: whether `refit_mse` is lower by more than its standard error.
        weighted_means: mean scores, corrected for non-response.
    """

    lessons: int
    held_out_lessons: int
    current_mse: float
    refit_mse: float
    better: bool
    weighted_means: ScoreEstimates | None = None


async def retrain_policy(
    archive: PolicyArchive, store: Store, now_ms: int, *, dry_run: bool = False
) -> tuple[RefitResult, str | None]:
    """Return the comparison on held-out lessons, and the new snapshot's id if one was activated.

    With `dry_run` nothing is changed.

    Raises:
        ValueError: there are too few lessons, or keys learn separately.
        SnapshotConflict: another snapshot was put into service meanwhile.
        LookupError: the ledger lacks a decision that a lesson is about.
    """
    if not archive.shared:
        raise ValueError(
            "each key's policy learns online, lesson by lesson; retraining needs "
            "`learning.share_keys: true`"
        )
    id = active_snapshot_id(archive.read_history())
    if id is None:
        raise ValueError("there is no learned policy yet: `sophia serve` creates the first one")
    policy, _ = archive.load(id)
    untrained = archive.new_policy()
    untrained.probe_priors = dict(policy.probe_priors)
    untrained.add_models(dict.fromkeys(map(strip_call_mode, policy.learner.arms)))
    lessons = await load_lessons(store, shared=True)
    by_decision, means = await compute_feedback_weights(store)
    # Implicit feedback does not depend on the user's answering, so it stands for itself alone.
    weights = [
        by_decision.get(row.decision_id, 1.0) if lesson.explicit else 1.0 for row, lesson in lessons
    ]
    result, learner = refit_learner(untrained, [lesson for _, lesson in lessons], weights)
    result = replace(result, weighted_means=means)
    if dry_run or not result.better:
        return result, None
    policy.learner, policy.lesson_count = learner, lessons[-1][0].number
    policy.shared = True
    metrics = {"squared_error": result.refit_mse}
    return result, archive.publish(policy, now_ms, "retrained on all lessons", metrics=metrics)


async def compute_feedback_weights(store: Store) -> tuple[dict[int, float], ScoreEstimates | None]:
    """Return the weights of a ledger's feedback by decision, 1 on average, and the mean scores.

    All decisions that could have got feedback count; the mean scores are None without any.
    """
    feedback = await read_feedback(store)
    ids, contexts, arms, sampled = [], [], [], []
    for row in await store.decisions(0, MAX_DECISIONS):
        plan = decode_plan(row.plan) if row.plan else None
        if plan is None or plan.trace is None or not plan.attempts:
            continue
        ids.append(row.attempt_id)
        contexts.append(unpack_context(plan.trace.context).task_probabilities)
        # Without feedback only the first attempt's arm is known.
        arms.append(format_arm(plan.attempts[0].model, plan.trace.call_mode))
        sampled.append(plan.trace.judge_sampled)
    scored = [at for at, id in enumerate(ids) if id in feedback]
    if not scored:
        return {}, None
    _, indices = np.unique(arms, return_inverse=True)
    rows = [feedback.get(id) for id in ids]
    table = build_feedback_columns(np.array(contexts), indices, sampled, rows)
    response_weights, basis = fit_response_weights(table)
    weights = response_weights[scored]
    bounded = np.minimum(weights / weights.mean(), MAX_WEIGHT)
    bounded /= bounded.mean()
    by_decision = {ids[at]: float(weight) for at, weight in zip(scored, bounded, strict=True)}
    return by_decision, estimate_means(table, response_weights, basis)


def refit_learner(
    untrained: OnlinePolicy, logged: Sequence[LoggedLesson], weights: Sequence[float]
) -> tuple[RefitResult, HierarchicalPolicy]:
    """Return the comparison, and the learner that learned all lessons at once.

    `untrained` has arms and priors, but no lessons; the non-response `weights` are 1 on average.

    Raises ValueError for too few lessons.
    """
    if len(logged) < MIN_LESSONS:
        raise ValueError(
            f"{len(logged)} lessons are too few to retrain on: {MIN_LESSONS} are needed"
        )
    counts = np.array(weights)
    lessons = [row.lesson for row in logged]
    weighted = [
        replace(lesson, weight=lesson.weight * count)
        for lesson, count in zip(lessons, counts.tolist(), strict=True)
    ]
    cut = len(lessons) - max(int(len(lessons) * HELD_OUT_SHARE), 10)
    start = untrained.learner.snapshot()
    stepwise, at_once, final = (HierarchicalPolicy.restore(start) for _ in range(3))
    for lesson in lessons[:cut]:
        stepwise.learn_one(lesson)
    at_once.fit(weighted[:cut])
    errors = np.array(
        [
            [_squared_error(model, lesson) for model in (stepwise, at_once)]
            for lesson in lessons[cut:]
        ]
    )
    share = counts[cut:] / counts[cut:].sum()
    gain = errors[:, 0] - errors[:, 1]
    mean = float(share @ gain)
    se = float(np.sqrt((share**2) @ (gain - mean) ** 2))
    current_mse, refit_mse = (share @ errors).tolist()
    final.fit(weighted)
    result = RefitResult(
        lessons=len(lessons),
        held_out_lessons=len(gain),
        current_mse=current_mse,
        refit_mse=refit_mse,
        better=mean > se,
    )
    return result, final


def _squared_error(learner: HierarchicalPolicy, lesson: Lesson) -> float:
    rated = learner.rate(lesson.context, [lesson.arm])
    return float((rated.quality[0] - lesson.quality) ** 2)
