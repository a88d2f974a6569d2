"""How rated arms usually answer, as bytes beside a decision: told to people, deciding nothing."""

import math

import numpy as np
from msgspec import Struct

from sophia.routing.forecast import Forecast
from sophia.routing.policies.policy import Vector

_NUMBER = np.dtype("<f4")
_COLUMNS = 7
_Z95 = 1.645
_GRID = np.linspace(-80.0, 10.0, 4096)
_LOG_P, _LOG_Q = -np.logaddexp(0.0, -_GRID), -np.logaddexp(0.0, _GRID)


class Usual(Struct, frozen=True):
    """How an arm usually answers a request like the one at hand.

    Attributes:
        cost_sd_nano: standard deviation of its expected cost, in nano-dollars.
        p50_ms: median time: to the first content of a stream, to the end of another answer.
        p50_range_ms: between which that median lies, with a probability of 0.9.
        p95_ms: the time that 95 answers in a hundred keep.
        failure_rate: expected share of attempts that fail.
        failure_range: between which that share lies, with a probability of 0.9.
    """

    cost_sd_nano: float
    p50_ms: float
    p50_range_ms: tuple[float, float]
    p95_ms: float
    failure_rate: float
    failure_range: tuple[float, float]


def pack_usual(forecast: Forecast, answer: Vector) -> bytes:
    """Return what `usual_of` reads; `answer` is what answers cost in nano-dollars, (A,)."""
    columns = (
        answer,
        forecast.unsure,
        forecast.time,
        forecast.vague,
        forecast.spread,
        forecast.fails,
        forecast.tries,
    )
    return np.array(columns, _NUMBER).tobytes()


def usual_of(kept: bytes) -> tuple[Usual, ...]:
    """Return how each arm usually answers; none for decisions that kept nothing of it."""
    rows = np.frombuffer(kept, _NUMBER).astype(np.float64).reshape(_COLUMNS, -1).T
    return tuple(_usual(*row) for row in rows.tolist())


def beta_range(fails: float, tries: float) -> tuple[float, float]:
    """Return the 5th and 95th percentiles of a Beta posterior, by quadrature over log odds."""
    log_density = fails * _LOG_P + (tries - fails) * _LOG_Q
    below = np.exp(log_density - log_density.max()).cumsum()
    low, high = np.searchsorted(below, np.array([0.05, 0.95]) * below[-1]).tolist()
    return float(np.exp(_LOG_P[low])), float(np.exp(_LOG_P[high]))


def _usual(  # noqa: PLR0913 - one number of each column
    answer: float,
    unsure: float,
    time: float,
    vague: float,
    spread: float,
    fails: float,
    tries: float,
) -> Usual:
    reach = _Z95 * math.sqrt(vague)
    return Usual(
        answer * math.sqrt(unsure),
        math.exp(time),
        (math.exp(time - reach), math.exp(time + reach)),
        math.exp(time + _Z95 * spread),
        fails / tries,
        beta_range(fails, tries),
    )
