"""The usual contextual bandit for comparison: one ridge regression per arm, nothing shared."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from msgspec import Struct, msgpack

from sophia.routing.policies.hierarchical import Projection
from sophia.routing.policies.joint import Frozen, Matrix, freeze, thaw
from sophia.routing.policies.policy import Lesson, Prior, Ratings, Sight, Vector


class Ridge(Struct, frozen=True):
    """`ridge` is the penalty, in outcomes; `noise` the sd of one outcome around its expectation."""

    ridge: float = 1.0
    noise: float = 0.4
    flat: float = 0.6


class _State(Struct, frozen=True, array_like=True):
    settings: Ridge
    arms: list[str]
    arrays: list[Frozen]


class LinUcb:
    """Quality of each arm = prior + weights · [1, components]; the sd is the ridge's own.

    The components are those of the projected embedding. An arm's prior is its mean over the tasks.
    """

    name = "linucb"

    def __init__(
        self,
        projection: Projection,
        settings: Ridge | None = None,
        priors: Mapping[str, Prior] | None = None,
    ) -> None:
        self._projection = projection
        self._settings = settings or Ridge()
        self._terms = 1 + projection.matrix.shape[1]
        self._priors = {arm: float(prior.mean.mean()) for arm, prior in (priors or {}).items()}
        self._forget()

    def rate(self, sight: Sight, arms: Sequence[str]) -> Ratings:
        """Return what to expect of `arms`; unknown ones are rated by the flat prior."""
        design = self._design(sight)
        pulled = (self._inverse.reshape(-1, self._terms) @ design).reshape(-1, self._terms)
        settings = self._settings
        quality = np.append(self._base + (pulled * self._pull).sum(axis=1), settings.flat)
        variance = np.append(pulled @ design, (design @ design) / settings.ridge)
        rows = [self._rows.get(arm, -1) for arm in arms]
        return Ratings(
            np.clip(quality[rows], 0.0, 1.0),
            settings.noise * np.sqrt(np.maximum(variance[rows], 0.0)),
        )

    def learn_one(self, lesson: Lesson) -> None:
        """Take in one outcome; an arm that is not known yet is added."""
        row = self._rows.get(lesson.arm)
        if row is None:
            row = self._add(lesson.arm, self._settings.flat)
        design = self._design(lesson.sight)
        pulled = self._inverse[row] @ design
        scale = lesson.weight / (1.0 + lesson.weight * float(design @ pulled))
        self._inverse[row] -= np.outer(pulled, pulled * scale)
        self._pull[row] += design * (lesson.weight * (lesson.quality - self._base[row]))

    def fit(self, lessons: Sequence[Lesson]) -> None:
        """Forget what was learned and learn from `lessons` alone; priors stay."""
        self._forget()
        for lesson in lessons:
            self.learn_one(lesson)

    def snapshot(self) -> bytes:
        """Return the whole state; the same state always gives the same bytes."""
        arrays: list[Matrix] = [
            self._projection.matrix,
            self._projection.centre,
            self._inverse,
            self._pull,
            self._base,
            np.array(list(self._priors.values())),
        ]
        names = [*self._rows, *self._priors]
        return msgpack.encode(
            (len(self._rows), _State(self._settings, names, [freeze(one) for one in arrays]))
        )

    @classmethod
    def restore(cls, snapshot: bytes) -> Self:
        """Return the policy that `snapshot` was taken of.

        Raises:
            msgspec.DecodeError: the bytes are not a snapshot of this policy.
        """
        known, state = msgpack.decode(snapshot, type=tuple[int, _State])
        matrix, centre, inverse, pull, base, priors = (thaw(frozen) for frozen in state.arrays)
        policy = cls(Projection(matrix, centre), state.settings)
        policy._rows = {arm: row for row, arm in enumerate(state.arms[:known])}
        policy._priors = dict(zip(state.arms[known:], priors.tolist(), strict=True))
        policy._inverse, policy._pull, policy._base = inverse, pull, base
        return policy

    def _forget(self) -> None:
        self._rows: dict[str, int] = {}
        self._inverse: Matrix = np.zeros((0, self._terms, self._terms))
        self._pull: Matrix = np.zeros((0, self._terms))
        self._base: Vector = np.zeros(0)
        for arm, mean in self._priors.items():
            self._add(arm, mean)

    def _add(self, arm: str, mean: float) -> int:
        self._rows[arm] = len(self._rows)
        fresh = np.eye(self._terms) / self._settings.ridge
        self._inverse = np.concatenate([self._inverse, fresh[None]])
        self._pull = np.concatenate([self._pull, np.zeros((1, self._terms))])
        self._base = np.append(self._base, mean)
        return self._rows[arm]

    def _design(self, sight: Sight) -> Vector:
        components = sight.embedding @ self._projection.matrix - self._projection.centre
        return np.concatenate([np.ones(1), components])
