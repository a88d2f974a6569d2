"""Lessons as arrays by arm, with each request's design built once."""

from collections.abc import Mapping, Sequence

import numpy as np

from sophia.routing.bandit.policy import Lesson, Matrix, PolicyContext, Vector
from sophia.routing.bandit.quality.noise import DISPERSION, DISPERSION_WEIGHT, MIN_VARIANCE
from sophia.routing.bandit.quality.posterior import QualityPosterior, build_design_matrix
from sophia.routing.bandit.quality.prior_scales import OutcomeStatistics


class LessonBatch:
    """Many lessons as arrays; their expectations are passed in anew as the fit improves."""

    def __init__(
        self, lessons: Sequence[Lesson], rows: Mapping[str, int], prior_mean: Matrix
    ) -> None:
        """Collect `lessons` of the arms in `rows`, whose priors' means are `prior_mean`, (A, T)."""
        places: dict[int, int] = {}
        contexts: list[PolicyContext] = []
        by_arm: list[list[tuple[int, float, float]]] = [[] for _ in rows]
        for lesson in lessons:
            place = places.setdefault(id(lesson.context), len(contexts))
            if place == len(contexts):
                contexts.append(lesson.context)
            by_arm[rows[lesson.arm]].append((place, lesson.quality, lesson.weight))
        self._designs = np.stack([build_design_matrix(context) for context in contexts])
        tasks = np.stack([context.task_probabilities for context in contexts])
        self._rows = [np.array([at for at, _, _ in some], dtype=np.intp) for some in by_arm]
        self._scores = [np.array([score for _, score, _ in some]) for some in by_arm]
        self._weights = [np.array([weight for _, _, weight in some]) for some in by_arm]
        self._priors = [tasks[picked] @ prior_mean[arm] for arm, picked in enumerate(self._rows)]

    def initial_expectations(self) -> list[Vector]:
        """Return the overall mean as the expectation of every lesson."""
        mean = float(np.concatenate(self._scores).mean())
        return [np.full(len(rows), mean) for rows in self._rows]

    def expectations(self, posterior: QualityPosterior) -> list[Vector]:
        """Return the expectation of every lesson under `posterior`, arm by arm."""
        expected = []
        for arm, picked in enumerate(self._rows):
            mean, _ = posterior.deviation_moments(arm)
            design = self._designs[picked]
            expected.append(self._priors[arm] + design @ posterior.mean + design @ mean)
        return expected

    def summarize(self, expected: Sequence[Vector], dispersion: float) -> OutcomeStatistics:
        """Return the sums over the outcomes, each with the noise variance at its expectation."""
        return OutcomeStatistics(
            self._designs,
            self._rows,
            [score - prior for score, prior in zip(self._scores, self._priors, strict=True)],
            [
                dispersion * _bernoulli_variance(mean) / weight
                for mean, weight in zip(expected, self._weights, strict=True)
            ],
        )

    def noise_totals(self, expected: Sequence[Vector]) -> tuple[float, float]:
        """Return the squared errors, each over q(1-q), and their weight, the prior's included."""
        errors, total_weight = DISPERSION * DISPERSION_WEIGHT, DISPERSION_WEIGHT
        for score, mean, weight in zip(self._scores, expected, self._weights, strict=True):
            squares = (score - mean) ** 2 / _bernoulli_variance(mean)
            errors += float((squares * weight).sum())
            total_weight += float(weight.sum())
        return errors, total_weight


def _bernoulli_variance(mean: Vector) -> Vector:
    return np.maximum(mean * (1.0 - mean), MIN_VARIANCE)
