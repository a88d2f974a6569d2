"""The latency of one arm: F + g·n milliseconds for n tokens, log-normal, updated by each time.

Beliefs of log F and log g are Gaussian. A time is not linear in them, so each is linearised at the
current mean (an extended Kalman filter; Jazwinski, 1970). On 57 arms with recorded seconds this
predicted times better than a log-normal that ignores tokens, one that scales a fixed line, and a
line of logarithms; docs/explanation/learning-mathematics.md has the figures.
"""

import math

from msgspec import Struct

PRIOR_VARIANCE = 0.5
PRIOR_RESIDUAL_VARIANCE = 0.3
PRIOR_COUNT, MAX_COUNT = 10.0, 200.0
PROCESS_NOISE = 1e-4
MIN_RESIDUAL_VARIANCE = 0.01
CLIP_SDS = 3.0


class SpeedPrior(Struct, frozen=True, array_like=True):
    """An arm's speed before any answer: milliseconds to the first content, and for each token."""

    first_content_ms: float = 2000.0
    token_ms: float = 20.0


DEFAULT_SPEED = SpeedPrior()


class LatencyModel(Struct, array_like=True, kw_only=True):
    """Beliefs of one arm's latency.

    Attributes:
        log_first_ms, log_token_ms: means of log F and log g, F and g in milliseconds.
        first_variance, covariance, token_variance: variances of these two, and their covariance.
        first_residual_variance, total_residual_variance: variances of the logarithms of single
            times around their expectation: of the first content, and of whole answers.
        first_count, total_count: the number of times of each.
    """

    log_first_ms: float
    log_token_ms: float
    first_variance: float = PRIOR_VARIANCE
    covariance: float = 0.0
    token_variance: float = PRIOR_VARIANCE
    first_residual_variance: float = PRIOR_RESIDUAL_VARIANCE
    total_residual_variance: float = PRIOR_RESIDUAL_VARIANCE
    first_count: int = 0
    total_count: int = 0

    @classmethod
    def from_prior(cls, speed: SpeedPrior) -> "LatencyModel":
        """Return the beliefs before any answer."""
        return cls(
            log_first_ms=math.log(speed.first_content_ms), log_token_ms=math.log(speed.token_ms)
        )

    def update_first(
        self, duration_ms: float, log_speed_ratio: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        """Update by the time to the first content; see `update_total` for `log_speed_ratio`."""
        expected = math.exp(self.log_first_ms + log_speed_ratio[0])
        self.first_count += 1
        self.first_residual_variance = self._update(
            duration_ms / expected, 1.0, self.first_residual_variance, self.first_count
        )

    def update_total(
        self, duration_ms: float, tokens: int, log_speed_ratio: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        """Update by the time of a whole answer.

        `log_speed_ratio` is the prior slowness of the arm that answered, as logarithms of F and g:
        so one model can learn the error of the priors over many arms.
        """
        first = math.exp(self.log_first_ms + log_speed_ratio[0])
        total = first + math.exp(self.log_token_ms + log_speed_ratio[1]) * tokens
        self.total_count += 1
        self.total_residual_variance = self._update(
            duration_ms / total, first / total, self.total_residual_variance, self.total_count
        )

    def copy_from(self, other: "LatencyModel", log_speed_ratio: tuple[float, float]) -> None:
        """Take over the expectations of `other`, for an arm without answers."""
        self.log_first_ms = other.log_first_ms + log_speed_ratio[0]
        self.log_token_ms = other.log_token_ms + log_speed_ratio[1]
        self.first_residual_variance = other.first_residual_variance
        self.total_residual_variance = other.total_residual_variance

    def _update(
        self, ratio: float, first_share: float, residual_variance: float, count: int
    ) -> float:
        """Update by a time over its expectation, of which `first_share` precedes the first content.

        Returns the residual variance after this one, the time number `count` of its kind.
        """
        token_share = 1.0 - first_share
        first_gain = self.first_variance * first_share + self.covariance * token_share
        token_gain = self.covariance * first_share + self.token_variance * token_share
        total = first_gain * first_share + token_gain * token_share + residual_variance
        surprise = clip_residual(math.log(ratio), total)
        self.log_first_ms += first_gain * surprise / total
        self.log_token_ms += token_gain * surprise / total
        drift = PROCESS_NOISE * residual_variance
        self.first_variance += drift - first_gain * first_gain / total
        self.token_variance += drift - token_gain * token_gain / total
        self.covariance -= first_gain * token_gain / total
        share = residual_variance / total
        return update_residual_variance(residual_variance, surprise, share, count)


def clip_residual(surprise: float, variance: float) -> float:
    """Return a surprise clipped to three standard deviations, against outliers."""
    limit = CLIP_SDS * math.sqrt(variance)
    return min(max(surprise, -limit), limit)


def update_residual_variance(variance: float, surprise: float, share: float, count: int) -> float:
    """Return the variance of single answers after one more, over the last 200 or so.

    `share` of a surprise's variance is residual, the rest uncertainty of the arm.
    """
    step = min(count + PRIOR_COUNT, MAX_COUNT)
    return max(variance + (surprise * surprise * share - variance) / step, MIN_RESIDUAL_VARIANCE)
