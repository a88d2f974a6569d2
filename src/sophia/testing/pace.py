"""How fast each model usually is, by name pattern: first token and tokens per second."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds until the first token, and tokens per second after it, where 0 never waits."""

    first_token: float
    tokens_per_second: float

    def scaled(self, speed: float) -> "Pace":
        """Return this pace `speed` times as fast; a speed of 0 means without any waiting."""
        if speed <= 0:
            return NO_WAIT
        return Pace(self.first_token / speed, self.tokens_per_second * speed)

    @property
    def gap(self) -> float:
        """Seconds between two tokens."""
        return 1 / self.tokens_per_second if self.tokens_per_second else 0.0


NO_WAIT = Pace(0.0, 0.0)
USUAL = Pace(0.8, 60)

# The first pattern that fits wins, so small and fast family members stand before their family.
PACES: tuple[tuple[str, Pace], ...] = (
    ("*flash-lite*", Pace(0.35, 180)),
    ("google/*flash*", Pace(0.45, 150)),
    ("*-nano*", Pace(0.4, 140)),
    ("*-mini*", Pace(0.5, 100)),
    ("*haiku*", Pace(0.5, 120)),
    ("*luna*", Pace(0.5, 120)),
    ("*-opus*", Pace(1.6, 40)),
    ("anthropic/*", Pace(1.1, 65)),
    ("openai/o*", Pace(3.0, 70)),
    ("openai/*", Pace(0.9, 75)),
    ("google/*pro*", Pace(2.0, 80)),
    ("deepseek/*flash*", Pace(0.7, 90)),
    ("deepseek/*", Pace(1.4, 35)),
    ("qwen/*", Pace(0.8, 60)),
    ("moonshotai/*", Pace(1.0, 45)),
    ("x-ai/*", Pace(0.9, 70)),
    ("mistralai/*", Pace(0.45, 95)),
    ("*:free", Pace(1.5, 30)),
)


def pace_of(model_id: str, overrides: Mapping[str, Pace] | None = None) -> Pace:
    """Return the usual pace of `model_id`; `overrides` maps patterns to paces and goes first."""
    for pattern, pace in (*(overrides or {}).items(), *PACES):
        if fnmatch(model_id, pattern):
            return pace
    return USUAL
