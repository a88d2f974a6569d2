"""How long one arm takes: F + g·n milliseconds for n tokens, log-normally, learned time by time.

Beliefs of log F and log g are Gaussian. A time is not linear in them, so each is linearised where
the arm stands (an extended Kalman filter; Jazwinski, 1970). Of 57 arms with recorded seconds this
foresaw times better than a log-normal that ignores tokens, one that scales a fixed line, and a line
of logarithms; docs/explanation/arms.md has the figures.
"""

import math

from msgspec import Struct

DOUBT = 0.5
SCATTER = 0.3
STEADY, MEMORY = 10.0, 200.0
DRIFT = 1e-4
LEAST_SCATTER = 0.01
REACH = 3.0


class Pace(Struct, frozen=True, array_like=True):
    """How fast an arm is believed to be: milliseconds to the first content, and for each token."""

    first_ms: float = 2000.0
    token_ms: float = 20.0


STRANGER = Pace()


class Clock(Struct, array_like=True):
    """What is known of one arm's time.

    Attributes:
        first, token: log F and log g, F and g in milliseconds.
        doubt_first, both, doubt_token: variances of these two, and their covariance.
        scatter_first, scatter_whole: variances of the logarithms of single times about what is
            expected: of the first content, and of whole answers.
        seen_first, seen_whole: how many of each were seen.
    """

    first: float
    token: float
    doubt_first: float = DOUBT
    both: float = 0.0
    doubt_token: float = DOUBT
    scatter_first: float = SCATTER
    scatter_whole: float = SCATTER
    seen_first: int = 0
    seen_whole: int = 0

    @classmethod
    def of(cls, pace: Pace) -> "Clock":
        """Return what is known before anything was seen."""
        return cls(math.log(pace.first_ms), math.log(pace.token_ms))

    def begun(self, took_ms: float, ahead: tuple[float, float] = (0.0, 0.0)) -> None:
        """Learn how long the first content took; see `ended` for `ahead`."""
        expected = math.exp(self.first + ahead[0])
        self.seen_first += 1
        surprise, share = self._learn(took_ms / expected, 1.0, self.scatter_first)
        self.scatter_first = scattered(self.scatter_first, surprise, share, self.seen_first)

    def ended(self, took_ms: float, tokens: int, ahead: tuple[float, float] = (0.0, 0.0)) -> None:
        """Learn how long a whole answer took.

        `ahead` is by how much the arm that took it was believed to be slower, as logarithms of F
        and g: so one clock can learn how wrong beliefs are over many arms.
        """
        first = math.exp(self.first + ahead[0])
        whole = first + math.exp(self.token + ahead[1]) * tokens
        self.seen_whole += 1
        surprise, share = self._learn(took_ms / whole, first / whole, self.scatter_whole)
        self.scatter_whole = scattered(self.scatter_whole, surprise, share, self.seen_whole)

    def follow(self, other: "Clock", ahead: tuple[float, float]) -> None:
        """Expect what `other` showed: for an arm that was never seen."""
        self.first, self.token = other.first + ahead[0], other.token + ahead[1]
        self.scatter_first, self.scatter_whole = other.scatter_first, other.scatter_whole

    def _learn(self, ratio: float, early: float, scatter: float) -> tuple[float, float]:
        """Move by a time over the expected one, `early` the part of that before the first content.

        Returns the surprise, held within reach, and the share of its variance that is scatter.
        """
        later = 1.0 - early
        moved_first = self.doubt_first * early + self.both * later
        moved_token = self.both * early + self.doubt_token * later
        total = moved_first * early + moved_token * later + scatter
        surprise = within_reach(math.log(ratio), total)
        self.first += moved_first * surprise / total
        self.token += moved_token * surprise / total
        self.doubt_first += DRIFT * scatter - moved_first * moved_first / total
        self.doubt_token += DRIFT * scatter - moved_token * moved_token / total
        self.both -= moved_first * moved_token / total
        return surprise, scatter / total


def within_reach(surprise: float, variance: float) -> float:
    """Return a surprise held within three standard deviations: one odd answer says no more."""
    most = REACH * math.sqrt(variance)
    return min(max(surprise, -most), most)


def scattered(scatter: float, surprise: float, share: float, seen: int) -> float:
    """Return the variance of single answers after one more, of the last 200 or so.

    `share` of a surprise's variance is scatter, the rest what is not known of the arm.
    """
    after = scatter + (surprise * surprise * share - scatter) / min(seen + STEADY, MEMORY)
    return max(after, LEAST_SCATTER)
