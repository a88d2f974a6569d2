"""One tenant's departures from the shared model: the same model, one level deeper."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from msgspec import Struct, msgpack

from sophia.routing.bandit.policy import Lesson, Matrix, Vector
from sophia.routing.bandit.quality.lookup import lookup_rows, nearest_known_arm
from sophia.routing.bandit.quality.noise import ScoreNoise
from sophia.routing.bandit.quality.posterior import (
    ArmMoments,
    PackedArray,
    QualityPosterior,
    pack_array,
    unpack_array,
)

MAX_TENANT_ARMS = 2048
"""Pairs of tenant and arm that are kept in all, of about 2·(1+T)² numbers each."""
TENANT_SHARED_SD = 0.05
TENANT_BIAS_SD, TENANT_TASK_SD = 0.04, 0.03
"""Standard deviations of a tenant's line from the shared one, and of its arms from the others'."""


class _TenantPosterior(Struct, frozen=True):
    """A line and deviations of the arms that the tenant has outcomes of."""

    posterior: QualityPosterior
    rows: dict[str, int]
    noise: ScoreNoise


class _TenantState(Struct, frozen=True, array_like=True, kw_only=True):
    tenant: str
    arms: list[str]
    # Empty since tenants do not teach each other; older snapshots hold weights here.
    weights: list[float]
    arrays: list[PackedArray]
    noise: tuple[float, float]


class TenantEffects:
    """The departures of the tenants with outcomes; the longest idle are forgotten first."""

    def __init__(self, tasks: int) -> None:
        self._shared_variance = np.full(1 + tasks, TENANT_SHARED_SD**2)
        self._arm_variance = np.full(1 + tasks, TENANT_TASK_SD**2)
        self._arm_variance[0] = TENANT_BIAS_SD**2
        self._tenants: dict[str, _TenantPosterior] = {}
        self._arm_count = 0

    def has_outcomes(self, arm: str) -> bool:
        """Return whether any tenant has outcomes of an arm."""
        return any(arm in tenant.rows for tenant in self._tenants.values())

    def noise(self, name: str) -> ScoreNoise | None:
        """Return the noise of a tenant's scores, None without outcomes."""
        tenant = self._tenants.get(name)
        return tenant.noise if tenant is not None else None

    def predict_arm(self, name: str, design: Vector, arm: str) -> float:
        """Return the tenant's departure from the expected score of `arm`."""
        tenant = self._tenants.get(name)
        if tenant is None:
            return 0.0
        relative = nearest_known_arm(tenant.rows, arm)
        if relative is None:
            return float(design @ tenant.posterior.mean)
        return tenant.posterior.predict_arm(tenant.rows[relative], design)[0]

    def variance(self, name: str, design: Vector, arm: str, shared_cov: Matrix) -> float | None:
        """Return the variance of a tenant's expectation, None without outcomes.

        `shared_cov`, (S, S), is the covariance of the arm's deviation for all tenants.
        """
        tenant = self._tenants.get(name)
        if tenant is None:
            return None
        (row,), added = lookup_rows(tenant.rows, [arm])
        if row >= 0:
            return tenant.posterior.predict_arm(row, design)[1] + float(added[0])
        own = shared_cov + np.diag(self._arm_variance)
        return float(design @ (tenant.posterior.cov + own) @ design)

    def predict(self, name: str, design: Vector, arms: Sequence[str]) -> ArmMoments | None:
        """Return the tenant's departures for `arms`; None unless it has outcomes of each."""
        tenant = self._tenants.get(name)
        if tenant is None:
            return None
        rows, added = lookup_rows(tenant.rows, arms)
        if -1 in rows:
            return None
        moments = tenant.posterior.predict(design)
        own = moments.own_variance[rows] + added
        return ArmMoments(moments.mean[rows], own, moments.loading[rows], tenant.posterior.cov)

    def apply(
        self, name: str, design: Vector, arms: Sequence[str], shared: ArmMoments
    ) -> ArmMoments:
        """Return the tenant's ratings of `arms`, given the shared ratings `shared`."""
        tenant = self._tenants.get(name)
        if tenant is None:
            return shared
        moments = tenant.posterior.predict(design)
        found, added = lookup_rows(tenant.rows, arms)
        rows = np.array(found, dtype=np.intp)
        mean = np.append(moments.mean, design @ tenant.posterior.mean)[rows]
        own = np.append(moments.own_variance, (design * design) @ self._arm_variance)[rows]
        # A tenant's posterior began with the uncertainty of the shared one, so it replaces it.
        own += np.where(rows < 0, shared.own_variance, added)
        loading = np.concatenate([moments.loading, design[None]])[rows]
        return ArmMoments(shared.mean + mean, own, loading, tenant.posterior.cov)

    def add_arm(self, name: str, arm: str, shared: QualityPosterior, row: int) -> None:
        """Add an arm to a tenant unless it is known there, and the tenant unless it is known.

        Both begin with the uncertainty of the `shared` model, in which the arm is at `row`.
        """
        tenant = self._tenants.pop(name, None)
        if tenant is None:
            cov = np.diag(self._shared_variance) + shared.cov
            tenant = _TenantPosterior(QualityPosterior(cov), {}, ScoreNoise())
        self._tenants[name] = tenant
        if arm in tenant.rows:
            return
        relative = nearest_known_arm(tenant.rows, arm)
        tenant.rows[arm] = len(tenant.rows)
        if relative is None:
            tenant.posterior.add_arm_from(shared, row, self._arm_variance)
        else:
            tenant.posterior.add_variant(tenant.rows[relative])
        self._arm_count += 1
        while self._arm_count > MAX_TENANT_ARMS and len(self._tenants) > 1:
            idle = next(iter(self._tenants))
            self._arm_count -= len(self._tenants.pop(idle).rows)

    def update(
        self, lesson: Lesson, design: Vector, expected: float, noise_variance: float
    ) -> None:
        """Update a tenant's arm by the difference of an outcome from the shared expectation.

        `noise_variance` is that of one plain outcome.
        """
        tenant = self._tenants[lesson.context.tenant]
        departure, noise = lesson.quality - expected, noise_variance / lesson.weight
        tenant.posterior.update(tenant.rows[lesson.arm], design, departure, noise)

    def inflate_variance(
        self, arm: str, task: int | None, factor: float, only_tenant: str = ""
    ) -> None:
        """Inflate the variance of `arm` for one tenant or every one; see the policy's method."""
        variance = restrict_variance_to_task(self._arm_variance * factor, task)
        for name, tenant in self._tenants.items():
            if arm in tenant.rows and only_tenant in ("", name):
                tenant.posterior.inflate_variance(tenant.rows[arm], variance)

    def snapshot(self) -> bytes:
        """Return the whole state."""
        return msgpack.encode(
            [
                _TenantState(
                    tenant=name,
                    arms=list(tenant.rows),
                    weights=[],
                    arrays=[pack_array(array) for array in tenant.posterior.arrays],
                    noise=(tenant.noise.squared_errors, tenant.noise.weight),
                )
                for name, tenant in self._tenants.items()
            ]
        )

    @classmethod
    def restore(cls, tasks: int, snapshot: bytes) -> Self:
        """Return the effects that `snapshot` was taken of."""
        effects = cls(tasks)
        for saved in msgpack.decode(snapshot, type=list[_TenantState]):
            effects._tenants[saved.tenant] = _TenantPosterior(
                QualityPosterior.from_arrays([unpack_array(packed) for packed in saved.arrays]),
                {arm: row for row, arm in enumerate(saved.arms)},
                ScoreNoise(*saved.noise),
            )
            effects._arm_count += len(saved.arms)
        return effects


def restrict_variance_to_task(variance: Vector, task: int | None) -> Vector:
    """Return `variance`, (1 + T,), as that of one task's effect alone, if there is a `task`."""
    if task is None:
        return variance
    only = np.zeros_like(variance)
    only[1 + task] = variance[0] + variance[1 + task]
    return only
