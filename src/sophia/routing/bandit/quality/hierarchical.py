"""The learned policy: a difficulty that all arms share, and a small deviation of each arm."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from msgspec import Struct, msgpack
from msgspec.structs import replace

from sophia.routing.bandit.arms import is_arm_variant, strip_call_mode
from sophia.routing.bandit.policy import ArmRatings, Lesson, Matrix, PolicyContext, Prior, Vector
from sophia.routing.bandit.quality.batch import LessonBatch
from sophia.routing.bandit.quality.lookup import build_row_slice, lookup_rows, nearest_known_arm
from sophia.routing.bandit.quality.noise import ScoreNoise
from sophia.routing.bandit.quality.posterior import (
    ALL_ROWS,
    ArmMoments,
    PackedArray,
    QualityPosterior,
    build_design_matrix,
    pack_array,
    unpack_array,
)
from sophia.routing.bandit.quality.prior_scales import (
    TERM_GROUPS,
    arm_prior_variances,
    fit_scale_factors,
    shared_prior_variance,
)
from sophia.routing.bandit.quality.tenants import TenantEffects, restrict_variance_to_task

NOVELTY_SD = 0.10
"""Standard deviation that is added on a request unlike any that was learned from."""
DEFAULT_MEAN, DEFAULT_SD = 0.6, 0.15
"""The prior of an arm of which nothing is known; the mean only when there are no other arms."""
MAX_VARIANTS = 64
"""Arms with an effort or a choice of providers that get their own row."""


class _Sizes(Struct, frozen=True):
    tasks: int


class _State(Struct, frozen=True, array_like=True, kw_only=True):
    """The content of a snapshot; arrays are bytes with their shapes.

    `unused_settings` holds the former settings in older snapshots, all at their defaults.
    """

    sizes: _Sizes
    unused_settings: dict[str, float]
    arms: list[str]
    arrays: list[PackedArray]
    unused_projection: bool
    noise: tuple[float, float]
    tenant_effects: bytes


class HierarchicalPolicy:
    """y = s(x) + d_arm(x): a Bayesian line s of all arms, and small deviations around priors.

    Everything is closed form, and exact given the prior scales: an outcome of one arm updates the
    line, and by it the difficulty of a request for the others. `fit` also re-estimates the scales.
    """

    name = "hierarchical"

    def __init__(self, tasks: int, priors: Mapping[str, Prior] | None = None) -> None:
        """Begin with the arms of `priors` and no outcomes; requests have `tasks` probabilities."""
        self.task_count = tasks
        self._scale_factors = np.ones((2, len(TERM_GROUPS)))
        self._rows: dict[str, int] = {}
        self._prior_mean = np.zeros((0, tasks))
        self._prior_sd = np.zeros((0, tasks))
        self._posterior = QualityPosterior(np.diag(self._shared_prior_variance()))
        self._tenant_effects = TenantEffects(tasks)
        self._noise = ScoreNoise()
        for arm, prior in (priors or {}).items():
            self.add_arm(arm, prior)

    @property
    def arms(self) -> tuple[str, ...]:
        """The known arms."""
        return tuple(self._rows)

    def add_arm(self, arm: str, prior: Prior | None = None) -> None:
        """Add an arm unless it is known; the default prior is the average of the others."""
        if arm not in self._rows:
            prior = prior or self.default_prior()
            self._add_row(arm, prior)
            self._posterior.add_arm(self._arm_prior_variances()[-1])

    def has_outcomes(self, arm: str) -> bool:
        """Return whether there were outcomes of an arm, from any tenant."""
        row = self._rows.get(arm)
        return row is not None and (
            self._posterior.has_outcomes(row) or self._tenant_effects.has_outcomes(arm)
        )

    def without_outcomes(self) -> "HierarchicalPolicy":
        """Return a policy with the same arms and priors, and no outcomes."""
        return HierarchicalPolicy(
            self.task_count,
            {
                arm: Prior(self._prior_mean[row], self._prior_sd[row])
                for arm, row in self._rows.items()
            },
        )

    def set_prior(self, arm: str, prior: Prior) -> None:
        """Replace a known arm's prior. Raises ValueError when it has outcomes already."""
        if self.has_outcomes(arm):
            raise ValueError(f"{arm} has outcomes already, so its prior cannot be replaced")
        row = self._rows[arm]
        self._prior_mean[row], self._prior_sd[row] = prior.mean, prior.sd
        self._posterior.reset_arm(row, self._arm_prior_variances()[row])

    def inflate_variance(self, arm: str, task: int | None, factor: float, tenant: str = "") -> None:
        """Add `factor` times an arm's prior variance to its uncertainty: its past counts less.

        With a `task` only that task's effect, else the arm as a whole; with a `tenant` only for it.
        """
        row = self._rows.get(arm)
        if row is None:
            return
        if not tenant:
            variance = restrict_variance_to_task(self._arm_prior_variances()[row] * factor, task)
            self._posterior.inflate_variance(row, variance)
        self._tenant_effects.inflate_variance(arm, task, factor, tenant)

    def rate(self, context: PolicyContext, arms: Sequence[str]) -> ArmRatings:
        """Return the ratings of `arms`; unknown ones get the average and a wide sd."""
        design, tenant = build_design_matrix(context), context.tenant
        rated = self._tenant_effects.predict(tenant, design, arms)
        if rated is None:
            shared = self._shared_ratings(context, design, arms)
            rated = self._tenant_effects.apply(tenant, design, arms, shared)
            quality = rated.mean
        else:
            # The tenant's variances replace the shared ones, which need not be computed.
            quality = rated.mean + self._shared_means(context, design, arms)
        variance = rated.own_variance
        if len(arms) > 1:
            loading = rated.loading - rated.loading.sum(axis=0) / len(arms)
            variance = variance + np.einsum("as,as->a", loading @ rated.cov, loading)
        quality = np.minimum(np.maximum(quality, 0.0), 1.0)
        return ArmRatings(quality, np.sqrt(np.maximum(variance, 0.0)))

    def learn_one(self, lesson: Lesson) -> None:
        """Update by one outcome; an arm that is not known yet is added or split off a relative.

        A tenant's outcomes change its own departures only, so no tenant moves another's ratings.
        """
        lesson = self._resolve_arm(lesson)
        if lesson.weight <= 0.0:
            return
        row, arm = self._rows[lesson.arm], lesson.arm
        context, tenant = lesson.context, lesson.context.tenant
        design = build_design_matrix(context)
        prior = float(self._prior_mean[row] @ context.task_probabilities)
        mean, variance = self._posterior.predict_arm(row, design)
        expected = prior + mean + self._tenant_effects.predict_arm(tenant, design, arm)
        cov = self._posterior.deviation_cov[row]
        own = self._tenant_effects.variance(tenant, design, arm, cov)
        scores = self._tenant_effects.noise(tenant) or self._noise
        noise = scores.variance_at(expected)
        # A tenant's scores update its own noise alone, from its second outcome on.
        if own is not None or not tenant:
            scores.update(lesson, expected, variance if own is None else own)
        if tenant:
            self._tenant_effects.add_arm(tenant, arm, self._posterior, row)
            self._tenant_effects.update(lesson, design, prior + mean, noise)
        else:
            self._posterior.update(row, design, lesson.quality - prior, noise / lesson.weight)

    def fit(self, lessons: Sequence[Lesson]) -> None:
        """Forget all outcomes, learn from `lessons` alone, and re-estimate the prior scales.

        Arms and their priors stay known. Tenants' lessons are learned one by one, in order.
        """
        self._tenant_effects = TenantEffects(self.task_count)
        self._noise = ScoreNoise()
        self._scale_factors = np.ones_like(self._scale_factors)
        lessons = [self._resolve_arm(lesson) for lesson in lessons]
        shared = [lesson for lesson in lessons if not lesson.context.tenant and lesson.weight > 0.0]
        self._posterior = QualityPosterior(np.diag(self._shared_prior_variance()))
        for variance in self._arm_prior_variances():
            self._posterior.add_arm(variance)
        if shared:
            self._fit_shared(shared)
        for lesson in lessons:
            if lesson.context.tenant:
                self.learn_one(lesson)

    def snapshot(self) -> bytes:
        """Return the whole state; the same state always gives the same bytes."""
        arrays = [self._prior_mean, self._prior_sd, self._scale_factors, *self._posterior.arrays]
        return msgpack.encode(
            _State(
                sizes=_Sizes(self.task_count),
                unused_settings={},
                arms=list(self._rows),
                arrays=[pack_array(array) for array in arrays],
                unused_projection=False,
                noise=(self._noise.squared_errors, self._noise.weight),
                tenant_effects=self._tenant_effects.snapshot(),
            )
        )

    @classmethod
    def restore(cls, snapshot: bytes) -> Self:
        """Return the policy that `snapshot` was taken of.

        Raises:
            msgspec.DecodeError: the bytes are not a snapshot of this policy.
        """
        state = msgpack.decode(snapshot, type=_State)
        arrays = [unpack_array(packed) for packed in state.arrays]
        policy = cls(state.sizes.tasks)
        policy._rows = {arm: row for row, arm in enumerate(state.arms)}
        policy._prior_mean, policy._prior_sd, scale_factors = arrays[:3]
        # Older snapshots hold two more groups, which never had terms.
        policy._scale_factors = scale_factors[:, : len(TERM_GROUPS)]
        policy._posterior = QualityPosterior.from_arrays(arrays[3:8])
        policy._noise = ScoreNoise(*state.noise)
        policy._tenant_effects = TenantEffects.restore(policy.task_count, state.tenant_effects)
        return policy

    def _shared_ratings(
        self, context: PolicyContext, design: Vector, arms: Sequence[str]
    ) -> ArmMoments:
        """Return the ratings of `arms` by the shared model."""
        rows, added = lookup_rows(self._rows, arms)
        some = build_row_slice(rows)
        moments = self._posterior.predict(design, some)
        quality = moments.mean + self._prior_mean[some] @ context.task_probabilities
        own, loading = moments.own_variance, moments.loading
        if some is ALL_ROWS:
            if -1 in rows:
                unknown = self.default_prior()
                mean = unknown.mean @ context.task_probabilities + design @ self._posterior.mean
                quality = np.append(quality, mean)
                own = np.append(own, (unknown.sd @ context.task_probabilities) ** 2)
                loading = np.concatenate([loading, design[None]])
            quality, own, loading = quality[rows], own[rows], loading[rows]
        own = own + (added + (context.novelty * NOVELTY_SD) ** 2)
        return ArmMoments(quality, own, loading, self._posterior.cov)

    def _shared_means(self, context: PolicyContext, design: Vector, arms: Sequence[str]) -> Vector:
        """Return the expected scores of `arms`, all known, by the shared model."""
        rows, _ = lookup_rows(self._rows, arms)
        some = build_row_slice(rows)
        means = (
            self._posterior.predict_means(design, some)
            + self._prior_mean[some] @ context.task_probabilities
        )
        return means if some is not ALL_ROWS else means[rows]

    def _resolve_arm(self, lesson: Lesson) -> Lesson:
        """Return the lesson about an arm that has a row, added unless there are too many."""
        relative = nearest_known_arm(self._rows, lesson.arm)
        if relative is None:
            self.add_arm(lesson.arm)
        elif relative != lesson.arm:
            if sum(map(is_arm_variant, self._rows)) >= MAX_VARIANTS:
                return replace(lesson, arm=relative)
            row = self._rows[relative]
            self._add_row(lesson.arm, Prior(self._prior_mean[row], self._prior_sd[row]))
            self._posterior.add_variant(row)
        return lesson

    def _add_row(self, arm: str, prior: Prior) -> None:
        self._rows[arm] = len(self._rows)
        self._prior_mean = np.concatenate([self._prior_mean, prior.mean[None]])
        self._prior_sd = np.concatenate([self._prior_sd, prior.sd[None]])

    def default_prior(self, model: str = "") -> Prior:
        """Return the prior of an arm of which nothing is known: the mean of the other models'."""
        tasks = self.task_count
        others = self._prior_mean
        if model:
            rows = [row for arm, row in self._rows.items() if strip_call_mode(arm) != model]
            others = others[rows]
        mean = others.mean(axis=0) if len(others) else np.full(tasks, DEFAULT_MEAN)
        return Prior(mean, np.full(tasks, DEFAULT_SD))

    def _shared_prior_variance(self) -> Vector:
        return shared_prior_variance(self.task_count, self._scale_factors[0])

    def _arm_prior_variances(self) -> Matrix:
        return arm_prior_variances(self._prior_sd, self._scale_factors[1])

    def _fit_shared(self, lessons: Sequence[Lesson]) -> None:
        batch = LessonBatch(lessons, self._rows, self._prior_mean)
        expected = batch.initial_expectations()
        line, arms = self._shared_prior_variance(), self._arm_prior_variances()
        for _ in range(2):
            statistics = batch.summarize(expected, self._noise.dispersion)
            self._scale_factors = fit_scale_factors(statistics, line, arms)
            self._posterior = statistics.posterior(
                self._shared_prior_variance(), self._arm_prior_variances()
            )
            expected = batch.expectations(self._posterior)
            self._noise = ScoreNoise(*batch.noise_totals(expected))
