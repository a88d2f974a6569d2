"""LinUCB: one ridge regression per arm, nothing shared between arms."""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct

from lab.training.table_contexts import Projection, TableContext
from sophia.routing.bandit.policy import ArmRatings, Lesson, Matrix, Prior, Vector


class RidgeSettings(Struct, frozen=True):
    """`ridge` is the penalty, in outcomes; `noise_sd` the sd of one outcome."""

    ridge: float = 1.0
    noise_sd: float = 0.4
    default_mean: float = 0.6


class LinUcb:
    """Rate an arm by prior + weights · [1, components]; the sd is the ridge posterior's.

    The components are those of the projected embedding. An arm's prior is its mean over the tasks.
    """

    name = "linucb"

    def __init__(
        self,
        projection: Projection,
        settings: RidgeSettings | None = None,
        priors: Mapping[str, Prior] | None = None,
    ) -> None:
        self._projection = projection
        self._settings = settings or RidgeSettings()
        self._terms = 1 + projection.matrix.shape[1]
        self._priors = {arm: float(prior.mean.mean()) for arm, prior in (priors or {}).items()}
        self._reset()

    def rate(self, context: TableContext, arms: Sequence[str]) -> ArmRatings:
        """Return the ratings of `arms`; unknown ones get the flat prior."""
        design = self._design(context)
        pulled = (self._inverse.reshape(-1, self._terms) @ design).reshape(-1, self._terms)
        settings = self._settings
        quality = np.append(
            self._prior_means + (pulled * self._weighted_scores).sum(axis=1), settings.default_mean
        )
        variance = np.append(pulled @ design, (design @ design) / settings.ridge)
        rows = [self._rows.get(arm, -1) for arm in arms]
        return ArmRatings(
            np.clip(quality[rows], 0.0, 1.0),
            settings.noise_sd * np.sqrt(np.maximum(variance[rows], 0.0)),
        )

    def learn_one(self, lesson: Lesson) -> None:
        """Update by one outcome; an unknown arm is added."""
        row = self._rows.get(lesson.arm)
        if row is None:
            row = self._add_arm(lesson.arm, self._settings.default_mean)
        design = self._design(lesson.context)
        pulled = self._inverse[row] @ design
        scale = lesson.weight / (1.0 + lesson.weight * float(design @ pulled))
        self._inverse[row] -= np.outer(pulled, pulled * scale)
        self._weighted_scores[row] += design * (
            lesson.weight * (lesson.quality - self._prior_means[row])
        )

    def fit(self, lessons: Sequence[Lesson]) -> None:
        """Forget all outcomes and learn from `lessons` alone; priors stay."""
        self._reset()
        for lesson in lessons:
            self.learn_one(lesson)

    def _reset(self) -> None:
        self._rows: dict[str, int] = {}
        self._inverse: Matrix = np.zeros((0, self._terms, self._terms))
        self._weighted_scores: Matrix = np.zeros((0, self._terms))
        self._prior_means: Vector = np.zeros(0)
        for arm, mean in self._priors.items():
            self._add_arm(arm, mean)

    def _add_arm(self, arm: str, mean: float) -> int:
        self._rows[arm] = len(self._rows)
        fresh = np.eye(self._terms) / self._settings.ridge
        self._inverse = np.concatenate([self._inverse, fresh[None]])
        self._weighted_scores = np.concatenate([self._weighted_scores, np.zeros((1, self._terms))])
        self._prior_means = np.append(self._prior_means, mean)
        return self._rows[arm]

    def _design(self, context: TableContext) -> Vector:
        components = context.embedding @ self._projection.matrix - self._projection.centre
        return np.concatenate([np.ones(1), components])
