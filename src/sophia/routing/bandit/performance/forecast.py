"""Measurements of answers, and forecasts of them for a request."""

import numpy as np
from msgspec import Struct

from sophia.routing.bandit.normal import approximate_scaled_erf
from sophia.routing.bandit.policy import Vector


class AnswerMeasurement(Struct, frozen=True, kw_only=True):
    """One complete answer.

    Attributes:
        arm: the arm that answered.
        task_probabilities: shape (T,), the request's posterior over the tasks, if there is one.
        expected_tokens: completion tokens expected of any arm.
        completion_tokens: completion tokens received.
        total_ms: from dispatch to the end.
        first_content_ms: from dispatch to the first content of a stream; None for a whole answer.
        truncated: it ended at a limit, so that it might have become longer.
    """

    arm: str
    task_probabilities: Vector | None
    expected_tokens: int
    completion_tokens: int
    total_ms: float
    first_content_ms: float | None = None
    truncated: bool = False


class Forecast(Struct, frozen=True, kw_only=True):
    """Expected length, time and failures of arms, (A,) each.

    Attributes:
        length_ratio: mean completion tokens over the tokens expected of any arm.
        log_length_variance: variance of the logarithm of that ratio, from uncertainty.
        log_time: logarithm of the median time in milliseconds.
        log_time_variance: variance of that logarithm, from uncertainty.
        log_time_sd: standard deviation of a single answer's logarithm, uncertainty included.
        failures: attempts that failed, decayed, the prior's included.
        attempts: all attempts, likewise.
    """

    length_ratio: Vector
    log_length_variance: Vector
    log_time: Vector
    log_time_variance: Vector
    log_time_sd: Vector
    failures: Vector
    attempts: Vector

    def late_probability(self, limit_ms: Vector | float) -> Vector:
        """Return the probability that no answer is there by `limit_ms`: late or failed, (A,)."""
        z = (np.log(limit_ms) - self.log_time) / self.log_time_sd
        in_time = 0.5 + 0.5 * approximate_scaled_erf(z)
        late: Vector = 1.0 - (1.0 - self.failures / self.attempts) * in_time
        return late
