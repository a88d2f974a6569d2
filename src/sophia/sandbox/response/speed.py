"""Simulated speed of each model by name pattern: first token and tokens per second."""

from dataclasses import dataclass
from fnmatch import fnmatch


@dataclass(frozen=True, slots=True)
class SimulatedSpeed:
    """Seconds until the first token, and tokens per second after it; 0 never waits."""

    first_token_s: float
    tokens_per_second: float

    def scaled(self, factor: float) -> "SimulatedSpeed":
        """Return this speed times `factor`; a factor of 0 never waits."""
        if factor <= 0:
            return NO_WAIT
        return SimulatedSpeed(self.first_token_s / factor, self.tokens_per_second * factor)

    @property
    def seconds_per_token(self) -> float:
        """Seconds between two tokens."""
        return 1 / self.tokens_per_second if self.tokens_per_second else 0.0


NO_WAIT = SimulatedSpeed(0.0, 0.0)
DEFAULT_SPEED = SimulatedSpeed(0.8, 60)

# The first pattern that fits wins, so small and fast family members stand before their family.
MODEL_SPEEDS: tuple[tuple[str, SimulatedSpeed], ...] = (
    ("*flash-lite*", SimulatedSpeed(0.35, 180)),
    ("google/*flash*", SimulatedSpeed(0.45, 150)),
    ("*-nano*", SimulatedSpeed(0.4, 140)),
    ("*-mini*", SimulatedSpeed(0.5, 100)),
    ("*haiku*", SimulatedSpeed(0.5, 120)),
    ("*luna*", SimulatedSpeed(0.5, 120)),
    ("*-opus*", SimulatedSpeed(1.6, 40)),
    ("anthropic/*", SimulatedSpeed(1.1, 65)),
    ("openai/o*", SimulatedSpeed(3.0, 70)),
    ("openai/*", SimulatedSpeed(0.9, 75)),
    ("google/*pro*", SimulatedSpeed(2.0, 80)),
    ("deepseek/*flash*", SimulatedSpeed(0.7, 90)),
    ("deepseek/*", SimulatedSpeed(1.4, 35)),
    ("qwen/*", SimulatedSpeed(0.8, 60)),
    ("moonshotai/*", SimulatedSpeed(1.0, 45)),
    ("x-ai/*", SimulatedSpeed(0.9, 70)),
    ("mistralai/*", SimulatedSpeed(0.45, 95)),
    ("*:free", SimulatedSpeed(1.5, 30)),
)


def find_simulated_speed(model_id: str) -> SimulatedSpeed:
    """Return the speed of `model_id`."""
    speeds = (speed for pattern, speed in MODEL_SPEEDS if fnmatch(model_id, pattern))
    return next(speeds, DEFAULT_SPEED)
