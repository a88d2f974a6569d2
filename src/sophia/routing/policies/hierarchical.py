"""The learned policy: a difficulty that all arms share, and a small deviation of each arm."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from msgspec import Struct, msgpack
from msgspec.structs import replace

from sophia.routing.policies.bulk import Bulk
from sophia.routing.policies.joint import EVERY, Frozen, Joint, Matrix, freeze, thaw
from sophia.routing.policies.kin import nearest, particulars, places, split_doubt, together
from sophia.routing.policies.noise import Noise
from sophia.routing.policies.policy import Lesson, Prior, Ratings, Sight, Vector
from sophia.routing.policies.tenancy import Basis, Rated, Tenancy
from sophia.routing.policies.widths import Settings, arm_variances, line_variance, posterior, tune

FEATURE_CAP = 3.0


class Shape(Struct, frozen=True):
    """How long a Sight's vectors are, and how many components the projected embedding has."""

    tasks: int
    embedding: int
    features: int


class Projection(Struct, frozen=True):
    """Turns an embedding, (D,), into few components of about unit variance: e @ matrix - centre.

    Attributes:
        matrix: shape (D, K).
        centre: shape (K,).
    """

    matrix: Matrix
    centre: Vector


class _State(Struct, frozen=True, array_like=True):
    """What a snapshot holds; arrays are bytes with their shapes."""

    shape: Shape
    settings: Settings
    arms: list[str]
    arrays: list[Frozen]
    projected: bool
    counts: tuple[float, float]
    tenancy: bytes


class Hierarchical:
    """y = s(x) + d_arm(x): a Bayesian line s of all arms, and small deviations around priors.

    Everything is closed form, and exact given the widths: an outcome of one arm teaches the line,
    and by it how hard a request is for the others. `fit` also re-estimates the widths.
    """

    name = "hierarchical"

    def __init__(
        self,
        shape: Shape,
        settings: Settings | None = None,
        priors: Mapping[str, Prior] | None = None,
        projection: Projection | None = None,
    ) -> None:
        """Know the arms of `priors`; without `projection` the embedding is not looked at.

        Raises:
            ValueError: the projection does not fit the shape.
        """
        if projection is not None and projection.matrix.shape[0] != shape.embedding:
            raise ValueError("the projection has another dimension than the embedding")
        self._shape = shape
        self._settings = settings or Settings()
        self._projection = projection
        width = projection.matrix.shape[1] if projection is not None else 0
        tasks = 1 + shape.tasks
        self._own = tasks + width
        self._terms = self._own + shape.features
        self._groups = (
            slice(0, 1),
            slice(1, tasks),
            slice(tasks, self._own),
            slice(self._own, self._terms),
        )
        self._factors = np.ones((2, 4))
        self._rows: dict[str, int] = {}
        self._expected = np.zeros((0, shape.tasks))
        self._doubts = np.zeros((0, shape.tasks))
        self._joint = Joint(self._line_variance(), self._own)
        self._tenancy = Tenancy(shape.tasks, self._settings)
        self._noise = Noise.of(self._settings)
        for arm, prior in (priors or {}).items():
            self.add(arm, prior)

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that are known."""
        return tuple(self._rows)

    @property
    def tasks(self) -> int:
        """How many tasks a sight tells apart."""
        return self._shape.tasks

    def add(self, arm: str, prior: Prior | None = None) -> None:
        """Get to know an arm; one that is known already stays as it is.

        Without a prior it is expected to be as good as the others are on average.
        """
        if arm in self._rows:
            return
        prior = prior or self._stranger()
        self._rows[arm] = len(self._rows)
        self._expected = np.concatenate([self._expected, prior.mean[None]])
        self._doubts = np.concatenate([self._doubts, prior.sd[None]])
        self._joint.add(self._arm_variances()[-1])

    def is_taught(self, arm: str) -> bool:
        """Say whether anybody's outcomes were learned of an arm."""
        row = self._rows.get(arm)
        return row is not None and (self._joint.is_taught(row) or self._tenancy.knows(arm))

    def believe(self, arm: str, prior: Prior) -> None:
        """Believe something else of a known arm. Raises ValueError when it has outcomes already."""
        if self.is_taught(arm):
            raise ValueError(f"outcomes of {arm} were learned already")
        row = self._rows[arm]
        self._expected[row], self._doubts[row] = prior.mean, prior.sd
        self._joint.doubt(row, self._arm_variances()[row])

    def remove(self, arm: str) -> None:
        """Forget an arm, if it is known; what it taught about requests stays."""
        row = self._rows.pop(arm, None)
        if row is None:
            return
        self._rows = {name: at - (at > row) for name, at in self._rows.items()}
        self._expected = np.delete(self._expected, row, axis=0)
        self._doubts = np.delete(self._doubts, row, axis=0)
        self._joint.remove(row)
        self._tenancy.remove(arm)

    def widen(self, arm: str, task: int | None, factor: float, tenant: str = "") -> None:
        """Doubt an arm as if `factor` times its prior variance were new: its past counts less.

        With a `task` only that task's effect is doubted, else the arm as a whole; with a `tenant`
        only what that tenant knows.
        """
        row = self._rows.get(arm)
        if row is None:
            return
        if tenant:
            self._tenancy.widen(arm, task, factor, tenant)
            return
        variance = self._arm_variances()[row] * factor
        if task is not None:
            only = np.zeros_like(variance)
            only[1 + task] = variance[0] + variance[1 + task]
            variance = only
        self._joint.widen(row, variance)
        self._tenancy.widen(arm, task, factor)

    def rate(self, sight: Sight, arms: Sequence[str]) -> Ratings:
        """Return what to expect of `arms`; unknown ones are rated like the average, widely."""
        rated = self._tenancy.departures(sight, arms)
        if rated is None:
            rated = self._tenancy.shift(sight, arms, self._expect(sight, arms))
            quality = rated.quality
        else:
            # The tenant's own doubts replace the common ones, which need not be worked out.
            quality = rated.quality + self._means(sight, arms)
        variance = rated.own
        if len(arms) > 1:
            loading = rated.loading - rated.loading.sum(axis=0) / len(arms)
            variance = variance + np.einsum("as,as->a", loading @ rated.cov, loading)
        quality = np.minimum(np.maximum(quality, 0.0), 1.0)
        return Ratings(quality, np.sqrt(np.maximum(variance, 0.0)))

    def learn_one(self, lesson: Lesson) -> None:
        """Take in one outcome; an arm that is not known yet is added or split off a relative."""
        lesson = self._placed(lesson)
        row = self._rows[lesson.arm]
        sight = lesson.sight
        phi = self._design(sight)
        prior = float(self._expected[row] @ sight.tasks)
        mean, variance = self._joint.at(row, phi, phi[: self._own])
        expected = prior + mean + self._tenancy.expect(sight, lesson.arm)
        if lesson.weight <= 0.0:
            return
        calm = self._settings.calm
        own = self._tenancy.variance(lesson, self._joint.spread[row])
        scores = self._tenancy.noise(sight.tenant) or self._noise
        noise = scores.at(expected, calm)
        # A tenant's scores tell of its own noise alone, from its second outcome on.
        if own is not None or not sight.tenant:
            scores.note(lesson, expected, variance if own is None else own, calm)
        heard = self._tenancy.heard(lesson)
        basis = Basis(self._joint, row, prior + mean, noise)
        if heard > 0.0:
            self._joint.learn(
                row, phi, phi[: self._own], lesson.quality - prior, noise / (lesson.weight * heard)
            )
        if sight.tenant:
            self._tenancy.learn(lesson, basis, 1.0 - heard)

    def fit(self, lessons: Sequence[Lesson]) -> None:
        """Forget what was learned and learn from `lessons` alone; the widths are re-estimated.

        Arms and their priors stay known. Tenants' lessons go to their own levels, in order.
        """
        self._tenancy = Tenancy(self._shape.tasks, self._settings)
        self._noise = Noise.of(self._settings)
        self._factors = np.ones((2, 4))
        lessons = [self._placed(lesson) for lesson in lessons]
        common = [lesson for lesson in lessons if not lesson.sight.tenant and lesson.weight > 0.0]
        self._joint = Joint(self._line_variance(), self._own)
        for variance in self._arm_variances():
            self._joint.add(variance)
        if common:
            self._fit_common(common)
        for lesson in lessons:
            if lesson.sight.tenant:
                self.learn_one(lesson)

    def snapshot(self) -> bytes:
        """Return the whole state; the same state always gives the same bytes."""
        arrays = [self._expected, self._doubts, self._factors, *self._joint.arrays]
        projection = self._projection
        if projection is not None:
            arrays += [projection.matrix, projection.centre]
        return msgpack.encode(
            _State(
                self._shape,
                self._settings,
                list(self._rows),
                [freeze(array) for array in arrays],
                projection is not None,
                (self._noise.errors, self._noise.chance),
                self._tenancy.snapshot(),
            )
        )

    @classmethod
    def restore(cls, snapshot: bytes) -> Self:
        """Return the policy that `snapshot` was taken of.

        Raises:
            msgspec.DecodeError: the bytes are not a snapshot of this policy.
        """
        state = msgpack.decode(snapshot, type=_State)
        arrays = [thaw(frozen) for frozen in state.arrays]
        projection = Projection(arrays[-2], arrays[-1]) if state.projected else None
        policy = cls(state.shape, state.settings, None, projection)
        policy._rows = {arm: row for row, arm in enumerate(state.arms)}
        policy._expected, policy._doubts, policy._factors = arrays[:3]
        policy._joint = Joint.of(arrays[3:8])
        policy._noise = Noise(*state.counts)
        policy._tenancy = Tenancy.restore(state.shape.tasks, state.settings, state.tenancy)
        return policy

    def _design(self, sight: Sight) -> Vector:
        """Return what the line sees, (S,); its beginning is what an arm's deviation sees."""
        phi = np.empty(self._terms)
        phi[0] = 1.0
        phi[self._groups[1]] = sight.tasks
        if self._projection is not None:
            components = sight.embedding @ self._projection.matrix - self._projection.centre
            phi[self._groups[2]] = components * (1.0 - sight.novelty)
        if self._shape.features:
            phi[self._groups[3]] = np.clip(sight.features, -FEATURE_CAP, FEATURE_CAP)
        return phi

    def _expect(self, sight: Sight, arms: Sequence[str]) -> Rated:
        """Return what to expect of `arms` by what all tenants share."""
        phi = self._design(sight)
        rows, added = places(self._rows, arms, self._settings.variant_sd)
        some = together(rows)
        means = self._joint.expect(phi, phi[: self._own], some)
        quality = means.mean + self._expected[some] @ sight.tasks
        own, loading = means.own, means.loading
        if some is not EVERY:
            rows = list(range(len(rows)))
        elif -1 in rows:
            stranger = self._stranger()
            quality = np.append(quality, stranger.mean @ sight.tasks + phi @ self._joint.mean)
            own = np.append(own, (stranger.sd @ sight.tasks) ** 2)
            loading = np.concatenate([loading, phi[None]])
        if rows != list(range(len(quality))):
            quality, own, loading = quality[rows], own[rows], loading[rows]
        own = own + (added + (sight.novelty * self._settings.novelty_sd) ** 2)
        return Rated(quality, own, loading, self._joint.cov)

    def _means(self, sight: Sight, arms: Sequence[str]) -> Vector:
        """Return the scores to expect of `arms`, all known, by what all tenants share."""
        phi = self._design(sight)
        rows, _ = places(self._rows, arms, 0.0)
        some = together(rows)
        means = self._joint.means(phi, phi[: self._own], some) + self._expected[some] @ sight.tasks
        return means if some is not EVERY else means[rows]

    def _placed(self, lesson: Lesson) -> Lesson:
        """Return the lesson about an arm that has a row; it gets one unless there are many."""
        arm = nearest(self._rows, lesson.arm)
        if arm is None:
            self.add(lesson.arm)
        elif arm != lesson.arm:
            if particulars(self._rows) >= self._settings.variants:
                return replace(lesson, arm=arm)
            self._split(self._rows[arm], lesson.arm)
        return lesson

    def _split(self, row: int, arm: str) -> None:
        self._rows[arm] = len(self._rows)
        self._expected = np.concatenate([self._expected, self._expected[row][None]])
        self._doubts = np.concatenate([self._doubts, self._doubts[row][None]])
        self._joint.split(row, split_doubt(self._own, self._settings.variant_sd))

    def _stranger(self) -> Prior:
        """Return what is believed of an arm of which nothing is known."""
        tasks = self._shape.tasks
        mean = self._expected.mean(axis=0) if self._rows else np.full(tasks, self._settings.flat)
        return Prior(mean, np.full(tasks, self._settings.unknown_sd))

    def _line_variance(self) -> Vector:
        return line_variance(self._settings, self._groups, self._factors[0])

    def _arm_variances(self) -> Matrix:
        return arm_variances(self._settings, self._groups, self._factors[1], self._doubts)

    def _fit_common(self, lessons: Sequence[Lesson]) -> None:
        settings = self._settings
        bulk = Bulk(lessons, self._rows, self._expected, self._design)
        expected = bulk.guess()
        line, own = self._line_variance(), self._arm_variances()
        for _ in range(2):
            outcomes = bulk.outcomes(expected, self._noise.level, settings.calm)
            self._factors = tune(outcomes, line, own, self._groups, settings.steadiness)
            self._joint = posterior(outcomes, self._line_variance(), self._arm_variances())
            expected = bulk.expected(self._joint)
            self._noise = Noise(*bulk.noise(expected, settings))
