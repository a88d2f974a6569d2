"""What is learned of how arms answer, and what to expect of them for a request."""

import numpy as np
from msgspec import Struct

from sophia.routing.normal import signed_normal
from sophia.routing.policies.policy import Vector


class Answer(Struct, frozen=True):
    """One answer that came whole.

    Attributes:
        arm: who gave it.
        tasks: shape (T,), the request's posterior over the tasks; None when nobody looked.
        expected: completion tokens that were expected of anybody.
        tokens: completion tokens that came.
        total_ms: from dispatch to the end.
        first_ms: from dispatch to the first content of a stream; None for a whole answer.
        cut: it ended at a limit, so that it might have become longer.
    """

    arm: str
    tasks: Vector | None
    expected: int
    tokens: int
    total_ms: float
    first_ms: float | None = None
    cut: bool = False


class Asked(Struct, frozen=True):
    """What a forecast is of.

    Attributes:
        tasks: shape (T,), the request's posterior over the tasks.
        tokens: shape (A,), completion tokens that are expected of anybody, within each arm's limit.
        stream: the time of a stream is that to its first content, of another answer to its end.
    """

    tasks: Vector
    tokens: Vector
    stream: bool = False


class Forecast(Struct, frozen=True):
    """What to expect of arms, (A,) each.

    Attributes:
        length: mean completion tokens over the tokens expected of anybody.
        unsure: variance of the logarithm of that, by what is not known.
        time: logarithm of the median time in milliseconds.
        vague: variance of that logarithm, by what is not known.
        spread: standard deviation of a single answer's logarithm, what is not known included.
        fails: attempts that failed, as far as they count, the prior's included.
        tries: all attempts, likewise.
    """

    length: Vector
    unsure: Vector
    time: Vector
    vague: Vector
    spread: Vector
    fails: Vector
    tries: Vector

    def late(self, limit_ms: Vector | float) -> Vector:
        """Return the chance that no answer is there by `limit_ms`: late or failed, (A,)."""
        z = (np.log(limit_ms) - self.time) / self.spread
        in_time = 0.5 + 0.5 * signed_normal(z)
        late: Vector = 1.0 - (1.0 - self.fails / self.tries) * in_time
        return late
