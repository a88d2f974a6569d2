"""The noise of single scores around their expectation, learned from the scores."""

from msgspec import Struct

from sophia.routing.bandit.policy import Lesson

DISPERSION, DISPERSION_WEIGHT = 0.9, 100.0
"""The dispersion before any outcome, and how many outcomes it counts for."""
MIN_VARIANCE = 0.15
"""The least that q(1-q) counts for, where q is the expected score."""


class ScoreNoise(Struct):
    """The noise of scores as a multiple of q(1-q), where q is the expected score.

    Attributes:
        squared_errors: the sum of squared errors, each over q(1-q), less the uncertainty of q.
        weight: the total weight of the outcomes.
    """

    squared_errors: float = DISPERSION_WEIGHT * DISPERSION
    weight: float = DISPERSION_WEIGHT

    @property
    def dispersion(self) -> float:
        """The variance of a score over q(1-q)."""
        return self.squared_errors / self.weight

    def variance_at(self, expected: float) -> float:
        """Return the variance of one score around `expected`."""
        return self.dispersion * max(expected * (1.0 - expected), MIN_VARIANCE)

    def update(self, lesson: Lesson, expected: float, variance: float) -> None:
        """Update by an outcome that was expected with the variance `variance`."""
        # An error is noise plus the uncertainty of the expectation, so the latter is subtracted.
        excess = (lesson.quality - expected) ** 2 - variance
        least = 0.01 * self.weight
        chance = max(expected * (1.0 - expected), MIN_VARIANCE)
        self.squared_errors = max(self.squared_errors + lesson.weight * excess / chance, least)
        self.weight += lesson.weight
