"""The learned policy at work: it learns lesson by lesson, and steps back when it does worse.

First the priors decide and their outcomes are learned from. After enough lessons the outcomes
decide, while the priors keep a share of the traffic for comparison; outcomes shown to lead to worse
choices are set aside. Its state follows from a snapshot and the lessons since, in their order, so
that every earlier state can be rebuilt.
"""

import logging
from collections.abc import Callable, Collection

import numpy as np
from msgspec import Struct, msgpack
from msgspec.structs import replace

from sophia.core.bounded import BoundedDict
from sophia.learning.feedback.source_reliability import PRIOR_RELIABILITY, SourceReliability
from sophia.learning.online.drift_detectors import MAX_TENANTS, DriftDetectors, DriftSum
from sophia.learning.online.tenant_status import LoggedLesson, TenantStatus, update_status
from sophia.learning.rollout import compute_learned_share
from sophia.routing.bandit.arms import (
    CALL_KINDS,
    format_arm,
    list_less_specific_arms,
    strip_call_mode,
    strip_effort,
)
from sophia.routing.bandit.drift import WIDEN_FACTOR, log_likelihood_ratio
from sophia.routing.bandit.performance.forecast import AnswerMeasurement
from sophia.routing.bandit.performance.latency import DEFAULT_SPEED, SpeedPrior
from sophia.routing.bandit.performance.model import (
    PerformanceModel,
    PerformanceState,
    merge_performance_states,
)
from sophia.routing.bandit.policy import Lesson, Prior, Vector
from sophia.routing.bandit.quality.hierarchical import HierarchicalPolicy
from sophia.routing.bandit.trials import (
    ArmTrial,
    build_arm_trial,
    compute_trial_share,
    count_trial_answer,
    is_trial_over,
)
from sophia.routing.rank import LearnedPolicy
from sophia.routing.types import DecisionTrace, Exploration

log = logging.getLogger("sophia.learning")

_PriorLists = tuple[list[float], list[float]]


MAX_SHARE_WITHOUT_FEEDBACK = 0.1
"""Most exploration, as a share of the requests, where no feedback has come that it could serve."""


class OnlineSettings(Struct, frozen=True):
    """Lessons of a tenant before its own outcomes count, and how choices are explored."""

    min_lessons: int = 100
    exploration: Exploration = Exploration(
        "thompson", sd_scale=0.25, floor=0.01, max_extra_cost=2.0
    )

    def exploration_after(self, lessons: int) -> Exploration:
        """Return the exploration after a number of lessons: little before the first one."""
        if lessons:
            return self.exploration
        share = min(self.exploration.max_share, MAX_SHARE_WITHOUT_FEEDBACK)
        return replace(self.exploration, max_share=share)


class _State(
    Struct,
    frozen=True,
    kw_only=True,
    rename={
        "drift": "watch",
        "tenants": "stands",
        "task_counts": "tasks",
        "performance": "answers",
        "reliabilities": "credences",
        "probe_priors": "probed",
    },
):
    learner: bytes
    lessons: int
    drift: list[DriftSum]
    tenants: dict[str, TenantStatus]
    trials: list[ArmTrial]
    task_counts: list[float]
    shared: bool = False
    performance: PerformanceState | None = None
    reliabilities: dict[str, SourceReliability] = {}
    probe_priors: dict[str, _PriorLists] = {}


class OnlinePolicy:
    """A policy that learns while it serves, one lesson at a time.

    `find_prior` returns the prior of an arm, None when nothing is known of it, `speed_prior` that
    of a model's speed; with `shared` all keys learn together.
    """

    def __init__(
        self,
        learner: HierarchicalPolicy,
        find_prior: Callable[[str], Prior | None],
        settings: OnlineSettings | None = None,
        *,
        shared: bool = False,
        speed_prior: Callable[[str], SpeedPrior] = lambda _: DEFAULT_SPEED,
    ) -> None:
        self.learner = learner
        self.snapshot_id = ""
        self._find_prior = find_prior
        self.shared = shared
        self.lesson_count = 0
        self.answer_count = 0
        self.performance = PerformanceModel(learner.task_count)
        self.probe_priors: dict[str, _PriorLists] = {}
        self.reliabilities: dict[str, SourceReliability] = {}
        self._settings = settings or OnlineSettings()
        self._find_speed_prior = speed_prior
        self._speed_priors: dict[str, SpeedPrior] = {}
        self._arms = frozenset(learner.arms)
        self._drift_detectors = DriftDetectors()
        self._statuses: BoundedDict[str, TenantStatus] = BoundedDict(MAX_TENANTS)
        self._trials: dict[str, ArmTrial] = {}
        self._task_counts = np.zeros(0)
        self._priors: HierarchicalPolicy | None = None

    @property
    def version(self) -> str:
        """Name of the learned state: the snapshot, and the number of the last lesson."""
        return f"{self.snapshot_id[:16]}+{self.lesson_count}"

    def reliability(self, key_id: str) -> SourceReliability:
        """Return the reliability of channels and judges for a key's answers."""
        return self.reliabilities.get("" if self.shared else key_id, PRIOR_RELIABILITY)

    def status(self, tenant: str = "") -> TenantStatus:
        """Return the progress of the learned policy for a tenant."""
        return self._statuses.get(tenant) or TenantStatus(self._settings.min_lessons)

    def tenants(self) -> list[str]:
        """Return the tenants with lessons, "" for all together."""
        return list(self._statuses)

    def add_models(self, models: Collection[str]) -> None:
        """Add the arms of the pool; an arm that comes after the first lesson gets a trial.

        A new snapshot is due when any was unknown, since no lesson records it.
        """
        self.set_speed_priors(models)
        new = [(arm, self._find_prior(arm)) for arm in self.unknown_arms(models)]
        # Arms without a prior come last, since theirs is the mean of the others.
        for arm, _ in sorted(new, key=lambda pair: pair[1] is None):
            prior = self.prior(arm)
            self.learner.add_arm(arm, prior)
            if self.lesson_count:
                self._trials[arm] = build_arm_trial(arm, len(prior.mean))
        self._arms = frozenset(self.learner.arms)

    @property
    def priors(self) -> HierarchicalPolicy:
        """The learner's arms and priors, without any outcome."""
        if self._priors is None or self._priors.arms != self.learner.arms:
            self._priors = self.learner.without_outcomes()
        return self._priors

    def prior(self, arm: str) -> Prior:
        """Return an arm's prior: from its probes if it was probed, else the one without them."""
        mean, sd = self.probe_priors.get(arm, ([], []))
        return Prior(np.array(mean), np.array(sd)) if mean else self.unprobed_prior(arm)

    def unprobed_prior(self, arm: str) -> Prior:
        """Return an arm's prior without probes; without any it is the mean of the other models."""
        return self._find_prior(arm) or self.learner.default_prior(strip_call_mode(arm))

    def set_prior(self, arm: str, prior: Prior) -> None:
        """Set an arm's prior. Raises ValueError when it has outcomes."""
        self.learner.set_prior(arm, prior)
        self._priors = None

    def set_probe_prior(self, arm: str, prior: Prior) -> None:
        """Set an arm's prior from its probes. Raises ValueError when it has outcomes."""
        self.set_prior(arm, prior)
        self.probe_priors[arm] = (prior.mean.tolist(), prior.sd.tolist())

    def set_speed_priors(self, models: Collection[str]) -> None:
        """Set the prior speeds of the pool's models; measured speeds stay."""
        by_model = {model: self._find_speed_prior(model) for model in models}
        priors = {
            format_arm(model, kind): prior
            for kind in CALL_KINDS
            for model, prior in by_model.items()
        }
        if priors != self._speed_priors:
            self._speed_priors = priors
            self.performance.set_speed_priors(priors)

    def unknown_arms(self, models: Collection[str]) -> list[str]:
        """Return the arms of these models that are new."""
        # The arms of one call kind stay together, which makes rating them faster.
        arms = (format_arm(model, kind) for kind in CALL_KINDS for model in models)
        return [arm for arm in arms if arm not in self._arms]

    def assign(
        self, assignment: float, tenant: str = "", *, requested: bool = False
    ) -> LearnedPolicy:
        """Return the policy for a tenant's request: with its outcomes, or with the priors alone.

        A team's outcomes count from the first on, a single key's from `min_lessons` on; a share of
        the requests stays with the priors until the outcomes are shown to be no worse.
        `assignment` is a random number in [0, 1); it does not matter when the caller requested the
        learned policy by name.
        """
        status = self.status(tenant)
        if status.rollout is None:
            use_outcomes = self.shared
        else:
            use_outcomes = assignment < compute_learned_share(status.rollout)
        use_outcomes = use_outcomes or requested
        total = float(self._task_counts.sum())
        return LearnedPolicy(
            policy=self.learner if use_outcomes else self.priors,
            outcomes=status.lessons if use_outcomes else None,
            exploration=self._settings.exploration_after(status.lessons),
            performance=self.performance,
            trials=tuple(self._trials.values()),
            task_shares=self._task_counts / total if total else None,
        )

    def record_decision(self, tasks: Vector, arm: str, trace: DecisionTrace) -> None:
        """Count the task probabilities of a decision, (T,), and charge it to the trials."""
        cost = {row.model: row.cost_nano for row in trace.rated_arms}
        best = max(trace.rated_arms, key=lambda row: row.utility).model
        if len(self._task_counts) != len(tasks):
            self._task_counts = np.zeros(len(tasks))
        self._task_counts += tasks
        shares = self._task_counts / self._task_counts.sum()
        chosen = strip_effort(format_arm(arm, trace.call_mode))
        for name, trial in list(self._trials.items()):
            model = strip_call_mode(name)
            if model not in cost or name != strip_effort(format_arm(model, trace.call_mode)):
                continue
            extra = compute_trial_share(trace, model) * max(cost[model] - cost[best], 0.0)
            updated = count_trial_answer(trial, tasks, chosen, cost[arm], extra)
            if is_trial_over(updated, shares):
                del self._trials[name]
            else:
                self._trials[name] = updated

    def record_answer(self, answer: AnswerMeasurement) -> None:
        """Record the length and timing of an answer."""
        self.answer_count += 1
        self.performance.update_answer(answer)

    def learn(self, logged: LoggedLesson) -> None:
        """Learn one lesson: detect drift, update the arm, and update the tenant's rollout.

        A lesson on an arm outside the pool counts but changes nothing, so that requests for many
        models cannot fill the memory.
        """
        self.lesson_count += 1
        lesson = logged.lesson
        if any(arm in self._arms for arm in (lesson.arm, *list_less_specific_arms(lesson.arm))):
            self._detect_drift(lesson)
            self.learner.learn_one(lesson)
            if logged.explicit:
                self._update_status(logged)

    def snapshot(self, learner: bytes | None = None) -> bytes:
        """Return the whole learned state; equal states give equal bytes.

        `learner` is the learner's own snapshot, where it was taken already.
        """
        return msgpack.encode(self.dump_state(learner or self.learner.snapshot()))

    def replace_with(self, other: "OnlinePolicy") -> None:
        """Take over the state of `other`, which must not be used afterwards.

        Measured performance is merged: a rollback does not lose it.
        """
        performance = merge_performance_states(
            self.performance.dump_state(), other.performance.dump_state()
        )
        self._load_state(other.dump_state(b""), other.learner, other.snapshot_id)
        self.performance = PerformanceModel.from_state(performance)

    def restore(self, saved: bytes, snapshot_id: str) -> None:
        """Load the state that `snapshot` wrote. Raises msgspec.DecodeError for other bytes."""
        state = msgpack.decode(saved, type=_State)
        self._load_state(state, HierarchicalPolicy.restore(state.learner), snapshot_id)

    def dump_state(self, learner: bytes) -> _State:
        """Return the state that `snapshot` encodes, with the learner's own snapshot."""
        return _State(
            learner=learner,
            lessons=self.lesson_count,
            drift=self._drift_detectors.to_state(),
            tenants=dict(self._statuses),
            trials=list(self._trials.values()),
            task_counts=self._task_counts.tolist(),
            shared=self.shared,
            performance=self.performance.dump_state(),
            reliabilities=self.reliabilities,
            probe_priors=self.probe_priors,
        )

    def _load_state(self, state: _State, learner: HierarchicalPolicy, snapshot_id: str) -> None:
        self.learner, self._priors = learner, None
        self._arms = frozenset(learner.arms)
        self.snapshot_id = snapshot_id
        self.lesson_count = state.lessons
        self._drift_detectors = DriftDetectors(state.drift)
        self._statuses = BoundedDict(MAX_TENANTS, state.tenants.items())
        self._trials = {trial.arm: trial for trial in state.trials}
        self.performance = PerformanceModel(learner.task_count)
        if state.performance is not None:
            self.performance = PerformanceModel.from_state(state.performance)
        self._speed_priors = {}
        self.probe_priors = dict(state.probe_priors)
        self._task_counts = np.array(state.task_counts)
        self.shared = state.shared
        self.reliabilities = dict(state.reliabilities)

    def _detect_drift(self, lesson: Lesson) -> None:
        tenant = lesson.context.tenant
        rating = self.learner.rate(lesson.context, [lesson.arm])
        quality, sd = float(rating.quality[0]), float(rating.sd[0])
        evidence = log_likelihood_ratio(lesson.quality, quality, sd) * lesson.weight
        task = int(lesson.context.task_probabilities.argmax())
        alarm = self._drift_detectors.update(tenant, lesson.arm, task, evidence)
        if alarm is not None:
            log.info("%s performs worse than before for %s", lesson.arm, tenant or "all keys")
            self.learner.inflate_variance(lesson.arm, alarm.task, WIDEN_FACTOR, tenant)

    def _update_status(self, logged: LoggedLesson) -> None:
        tenant = logged.lesson.context.tenant
        before = self.status(tenant)
        status = self._statuses[tenant] = update_status(before, logged)
        if status.eligible_at > before.eligible_at:
            log.info("the learned policy is retired for %s", tenant or "all keys")
