"""How much single scores vary around what was expected of them, learned from the scores."""

from typing import Self

from sophia.routing.policies.policy import Lesson
from sophia.routing.policies.widths import Settings


class Noise:
    """The noise of scores as a multiple of q(1-q), where q is what was expected.

    Args:
        errors: the sum of squared errors, over q(1-q) each; what was not known taken out.
        chance: the weight of the outcomes that they come from.
    """

    __slots__ = ("chance", "errors")

    def __init__(self, errors: float, chance: float) -> None:
        self.errors = errors
        self.chance = chance

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return what is believed before any outcome."""
        return cls(settings.noise_weight * settings.noise, settings.noise_weight)

    @property
    def level(self) -> float:
        """The variance of a score over q(1-q)."""
        return self.errors / self.chance

    def at(self, expected: float, calm: float) -> float:
        """Return the variance of one score around `expected`; q(1-q) counts as `calm` at least."""
        return self.level * max(expected * (1.0 - expected), calm)

    def note(self, lesson: Lesson, expected: float, variance: float, calm: float) -> None:
        """Take in an outcome that was expected with `variance`."""
        # An error is noise plus what is not known yet, so the latter is taken out.
        excess = (lesson.quality - expected) ** 2 - variance
        least = 0.01 * self.chance
        chance = max(expected * (1.0 - expected), calm)
        self.errors = max(self.errors + lesson.weight * excess / chance, least)
        self.chance += lesson.weight
