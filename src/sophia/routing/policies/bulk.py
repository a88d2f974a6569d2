"""Lessons gathered arm by arm, with each request's design made once."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sophia.routing.policies.joint import Joint, Matrix
from sophia.routing.policies.policy import Lesson, Sight, Vector
from sophia.routing.policies.widths import Outcomes, Settings


class Bulk:
    """Many lessons as arrays; what they are expected to be is told again as it gets clearer."""

    def __init__(
        self,
        lessons: Sequence[Lesson],
        rows: Mapping[str, int],
        expected: Matrix,
        design: Callable[[Sight], Vector],
    ) -> None:
        """Gather `lessons` of the arms in `rows`, whose priors expect `expected`, (A, T)."""
        places: dict[int, int] = {}
        sights: list[Sight] = []
        by_arm: list[list[tuple[int, float, float]]] = [[] for _ in rows]
        for lesson in lessons:
            place = places.setdefault(id(lesson.sight), len(sights))
            if place == len(sights):
                sights.append(lesson.sight)
            by_arm[rows[lesson.arm]].append((place, lesson.quality, lesson.weight))
        self._designs = np.stack([design(sight) for sight in sights])
        tasks = np.stack([sight.tasks for sight in sights])
        self._rows = [np.array([at for at, _, _ in some], dtype=np.intp) for some in by_arm]
        self._scores = [np.array([score for _, score, _ in some]) for some in by_arm]
        self._weights = [np.array([weight for _, _, weight in some]) for some in by_arm]
        self._priors = [
            tasks[picked] @ expected[arm] for arm, picked in enumerate(self._rows)
        ]

    def guess(self) -> list[Vector]:
        """Return the overall mean as the expectation of every lesson."""
        mean = float(np.concatenate(self._scores).mean())
        return [np.full(len(rows), mean) for rows in self._rows]

    def expected(self, joint: Joint) -> list[Vector]:
        """Return what `joint` expects of every lesson, arm by arm."""
        own = joint.offset.shape[1]
        found = []
        for arm, picked in enumerate(self._rows):
            mean, _ = joint.deviation(arm)
            design = self._designs[picked]
            found.append(self._priors[arm] + design @ joint.mean + design[:, :own] @ mean)
        return found

    def outcomes(self, expected: Sequence[Vector], noise: float, calm: float) -> Outcomes:
        """Return the outcomes, each with the variance that `expected` and `noise` give it."""
        return Outcomes(
            self._designs,
            self._rows,
            [score - prior for score, prior in zip(self._scores, self._priors, strict=True)],
            [
                noise * _chance(mean, calm) / weight
                for mean, weight in zip(expected, self._weights, strict=True)
            ],
        )

    def noise(self, expected: Sequence[Vector], settings: Settings) -> tuple[float, float]:
        """Return the squared errors in units of their chance, and the weight they were counted for.

        The beliefs of `settings` are counted in.
        """
        errors = settings.noise * settings.noise_weight
        count = settings.noise_weight
        for score, mean, weight in zip(self._scores, expected, self._weights, strict=True):
            errors += float(((score - mean) ** 2 / _chance(mean, settings.calm) * weight).sum())
            count += float(weight.sum())
        return errors, count


def _chance(mean: Vector, calm: float) -> Vector:
    return np.maximum(mean * (1.0 - mean), calm)
