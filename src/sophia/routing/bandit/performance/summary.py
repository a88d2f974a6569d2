"""The expected performance of rated arms, stored beside a decision for explanations only."""

import math

import numpy as np
from msgspec import Struct

from sophia.routing.bandit.performance.forecast import Forecast
from sophia.routing.bandit.policy import Vector

_FLOAT32 = np.dtype("<f4")
_COLUMNS = 7
_Z95 = 1.645
_LOG_ODDS_GRID = np.linspace(-80.0, 10.0, 4096)
_LOG_P, _LOG_Q = -np.logaddexp(0.0, -_LOG_ODDS_GRID), -np.logaddexp(0.0, _LOG_ODDS_GRID)


class PerformanceSummary(Struct, frozen=True, kw_only=True):
    """An arm's expected performance on one request.

    Attributes:
        cost_sd_nano: standard deviation of its expected cost, in nano-dollars.
        p50_ms: median time: to the first content of a stream, to the end of another answer.
        p50_range_ms: 90 % interval of that median.
        p95_ms: 95th percentile of the time.
        failure_rate: expected share of attempts that fail.
        failure_range: 90 % interval of that share.
    """

    cost_sd_nano: float
    p50_ms: float
    p50_range_ms: tuple[float, float]
    p95_ms: float
    failure_rate: float
    failure_range: tuple[float, float]


def pack_summaries(forecast: Forecast, completion_cost: Vector) -> bytes:
    """Return the bytes for `unpack_summaries`; `completion_cost`, (A,), is in nano-dollars."""
    columns = (
        completion_cost,
        forecast.log_length_variance,
        forecast.log_time,
        forecast.log_time_variance,
        forecast.log_time_sd,
        forecast.failures,
        forecast.attempts,
    )
    return np.array(columns, _FLOAT32).tobytes()


def unpack_summaries(packed: bytes) -> tuple[PerformanceSummary, ...]:
    """Return the summary of each arm; none for decisions without forecasts."""
    rows = np.frombuffer(packed, _FLOAT32).astype(np.float64).reshape(_COLUMNS, -1).T
    return tuple(map(_build_summary, rows.tolist()))


def beta_interval(failures: float, attempts: float) -> tuple[float, float]:
    """Return the 5th and 95th percentiles of a Beta posterior, by quadrature over log odds."""
    log_density = failures * _LOG_P + (attempts - failures) * _LOG_Q
    below = np.exp(log_density - log_density.max()).cumsum()
    low, high = np.searchsorted(below, np.array([0.05, 0.95]) * below[-1]).tolist()
    return float(np.exp(_LOG_P[low])), float(np.exp(_LOG_P[high]))


def _build_summary(row: list[float]) -> PerformanceSummary:
    cost, length_variance, log_time, time_variance, time_sd, failures, attempts = row
    reach = _Z95 * math.sqrt(time_variance)
    return PerformanceSummary(
        cost_sd_nano=cost * math.sqrt(length_variance),
        p50_ms=math.exp(log_time),
        p50_range_ms=(math.exp(log_time - reach), math.exp(log_time + reach)),
        p95_ms=math.exp(log_time + _Z95 * time_sd),
        failure_rate=failures / attempts,
        failure_range=beta_interval(failures, attempts),
    )
