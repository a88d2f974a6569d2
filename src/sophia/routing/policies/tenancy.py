"""One tenant's departures from what all tenants share: the same model, one level deeper."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from msgspec import Struct, msgpack

from sophia.routing.policies.joint import Frozen, Joint, Matrix, freeze, thaw
from sophia.routing.policies.kin import nearest, places, split_doubt
from sophia.routing.policies.noise import Noise
from sophia.routing.policies.policy import Lesson, Sight, Vector
from sophia.routing.policies.widths import Settings


class _Tenant:
    """A line and deviations over [1, tasks], of the arms that the tenant has outcomes of."""

    __slots__ = ("counts", "joint", "noise", "rows")

    def __init__(
        self, joint: Joint, rows: dict[str, int], counts: dict[str, float], noise: Noise
    ) -> None:
        self.joint = joint
        self.rows = rows
        self.counts = counts
        self.noise = noise


class Basis(Struct, frozen=True):
    """What all tenants' outcomes say of a lesson: a tenant departs from there.

    Attributes:
        joint: what is known of the line and the arms.
        row: the lesson's arm in it.
        expected: the score that is expected.
        noise: the variance of one plain outcome.
    """

    joint: Joint
    row: int
    expected: float
    noise: float


class Rated(Struct, frozen=True):
    """What a request may expect of the arms asked: means, own variances, and shared ones.

    Attributes:
        quality: shape (A,).
        own: shape (A,), the variance when the shared line is known.
        loading: shape (A, S), how far each moves with the line, whose covariance is `cov`, (S, S).
    """

    quality: Vector
    own: Vector
    loading: Matrix
    cov: Matrix


class _Saved(Struct, frozen=True, array_like=True):
    tenant: str
    rows: list[str]
    counts: list[float]
    arrays: list[Frozen]
    noise: tuple[float, float]


class Tenancy:
    """The departures of the tenants who have outcomes; the longest silent ones are forgotten.

    Memory is bounded: `Settings.tenant_blocks` pairs of tenant and arm are kept in all, of about
    2·(1+T)² numbers each.
    """

    def __init__(self, tasks: int, settings: Settings) -> None:
        self._settings = settings
        self._line = np.full(1 + tasks, settings.tenant_shared_sd**2)
        self._own = np.full(1 + tasks, settings.tenant_task_sd**2)
        self._own[0] = settings.tenant_bias_sd**2
        self._tenants: dict[str, _Tenant] = {}
        self._blocks = 0

    @property
    def tenants(self) -> tuple[str, ...]:
        """The tenants that are remembered, the most recently heard last."""
        return tuple(self._tenants)

    def knows(self, arm: str) -> bool:
        """Say whether any tenant has outcomes of an arm."""
        return any(arm in tenant.rows for tenant in self._tenants.values())

    def heard(self, lesson: Lesson) -> float:
        """Return the share of a lesson, 0 to 1, that all tenants learn from.

        It falls as the tenant says more of the same arm, so that all it ever says adds up to
        `voice` at most: nobody moves the others by talking much. Nobody in particular is trusted.
        """
        sight = lesson.sight
        if not sight.tenant:
            return 1.0
        voice = self._settings.voice
        if voice <= 0.0:
            return 0.0
        tenant = self._tenants.get(sight.tenant)
        said = tenant.counts.get(lesson.arm, 0.0) if tenant else 0.0
        return 1.0 / (1.0 + said / voice) ** 2

    def expect(self, sight: Sight, arm: str) -> float:
        """Return what the tenant's outcomes add to the expected score of `arm`."""
        tenant = self._tenants.get(sight.tenant)
        if tenant is None:
            return 0.0
        design = _design(sight)
        near = nearest(tenant.rows, arm)
        if near is None:
            return float(design @ tenant.joint.mean)
        return tenant.joint.at(tenant.rows[near], design, design)[0]

    def variance(self, lesson: Lesson, common: Matrix) -> float | None:
        """Return how unsure a tenant's expectation is, None for a tenant without outcomes.

        `common` is the spread of the arm's deviation that all begin with, (P, P).
        """
        tenant = self._tenants.get(lesson.sight.tenant)
        if tenant is None:
            return None
        design = _design(lesson.sight)
        (row,), added = places(tenant.rows, [lesson.arm], self._settings.variant_sd)
        if row >= 0:
            return tenant.joint.at(row, design, design)[1] + float(added[0])
        terms = len(design)
        own = common[:terms, :terms] + np.diag(self._own)
        return float(design @ (tenant.joint.cov + own) @ design)

    def noise(self, tenant: str) -> Noise | None:
        """Return what a tenant's scores have shown of their noise."""
        known = self._tenants.get(tenant)
        return known.noise if known is not None else None

    def departures(self, sight: Sight, arms: Sequence[str]) -> Rated | None:
        """Return what the tenant's outcomes add to `arms`; None unless it has some of each."""
        tenant = self._tenants.get(sight.tenant)
        if tenant is None:
            return None
        rows, added = places(tenant.rows, arms, self._settings.variant_sd)
        if -1 in rows:
            return None
        design = _design(sight)
        means = tenant.joint.expect(design, design)
        own = means.own[rows] + added
        return Rated(means.mean[rows], own, means.loading[rows], tenant.joint.cov)

    def shift(self, sight: Sight, arms: Sequence[str], rated: Rated) -> Rated:
        """Return what the tenant may expect of `arms`, when `rated` is what everybody may."""
        tenant = self._tenants.get(sight.tenant)
        if tenant is None:
            return rated
        design = _design(sight)
        means = tenant.joint.expect(design, design)
        found, added = places(tenant.rows, arms, self._settings.variant_sd)
        rows = np.array(found, dtype=np.intp)
        mean = np.append(means.mean, design @ tenant.joint.mean)[rows]
        own = np.append(means.own, (design * design) @ self._own)[rows]
        # A tenant's own posterior began with the doubts of the common one, so it replaces them.
        own += np.where(rows < 0, rated.own, added)
        loading = np.concatenate([means.loading, design[None]])[rows]
        return Rated(rated.quality + mean, own, loading, tenant.joint.cov)

    def learn(self, lesson: Lesson, basis: Basis, share: float) -> None:
        """Take in what differs from `basis`; `share` is the part of the lesson not `heard` by all.

        Where a tenant has no outcomes yet, it begins with the doubts that all have.
        """
        name, arm = lesson.sight.tenant, lesson.arm
        tenant = self._tenants.pop(name, None)
        if tenant is None:
            doubted = basis.joint.fork(len(self._own), self._line)
            tenant = _Tenant(doubted, {}, {}, Noise.of(self._settings))
        self._tenants[name] = tenant
        if arm not in tenant.rows:
            near = nearest(tenant.rows, arm)
            tenant.rows[arm] = len(tenant.rows)
            if near is None:
                tenant.joint.adopt(basis.joint, basis.row, self._own)
            else:
                doubt = split_doubt(len(self._own), self._settings.variant_sd)
                tenant.joint.split(tenant.rows[near], doubt)
            self._blocks += 1
            self._forget_silent()
        tenant.counts[arm] = tenant.counts.get(arm, 0.0) + lesson.weight
        weight = lesson.weight * share
        if weight > 0.0:
            design = _design(lesson.sight)
            departure = lesson.quality - basis.expected
            tenant.joint.learn(tenant.rows[arm], design, design, departure, basis.noise / weight)

    def widen(self, arm: str, task: int | None, factor: float, only_tenant: str = "") -> None:
        """Doubt what tenants know of `arm`, as the policy does: one of them, or every one."""
        variance = self._own * factor
        if task is not None:
            only = np.zeros_like(variance)
            only[1 + task] = variance[0] + variance[1 + task]
            variance = only
        for name, tenant in self._tenants.items():
            if arm in tenant.rows and only_tenant in ("", name):
                tenant.joint.widen(tenant.rows[arm], variance)

    def remove(self, arm: str) -> None:
        """Forget `arm` for every tenant."""
        for tenant in self._tenants.values():
            row = tenant.rows.pop(arm, None)
            if row is not None:
                tenant.counts.pop(arm)
                tenant.rows = {name: at - (at > row) for name, at in tenant.rows.items()}
                tenant.joint.remove(row)
                self._blocks -= 1

    def snapshot(self) -> bytes:
        """Return the whole state."""
        return msgpack.encode(
            [
                _Saved(
                    name,
                    list(tenant.rows),
                    [tenant.counts[arm] for arm in tenant.rows],
                    [freeze(array) for array in tenant.joint.arrays],
                    (tenant.noise.errors, tenant.noise.chance),
                )
                for name, tenant in self._tenants.items()
            ]
        )

    @classmethod
    def restore(cls, tasks: int, settings: Settings, snapshot: bytes) -> Self:
        """Return the level that `snapshot` was taken of."""
        tenancy = cls(tasks, settings)
        for saved in msgpack.decode(snapshot, type=list[_Saved]):
            arrays = [thaw(frozen) for frozen in saved.arrays]
            tenancy._tenants[saved.tenant] = _Tenant(
                Joint.of(arrays),
                {arm: row for row, arm in enumerate(saved.rows)},
                dict(zip(saved.rows, saved.counts, strict=True)),
                Noise(*saved.noise),
            )
            tenancy._blocks += len(saved.rows)
        return tenancy

    def _forget_silent(self) -> None:
        while self._blocks > self._settings.tenant_blocks and len(self._tenants) > 1:
            silent = next(iter(self._tenants))
            self._blocks -= len(self._tenants.pop(silent).rows)


def _design(sight: Sight) -> Vector:
    return np.concatenate([np.ones(1), sight.tasks])
