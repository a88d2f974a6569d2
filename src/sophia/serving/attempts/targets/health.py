"""Health of targets: which models at which upstreams answer, by the last attempts. No I/O.

A target is ejected after failures in a row, or when most of its attempts fail; after a time it
gets one live trial at a time, and is back with the first success. Passive ejection as in Envoy's
outlier detection; the trial is the half-open state of Nygard's breaker (Release It!, 2007).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct

from sophia.core.bounded import BoundedDict
from sophia.serving.attempts.targets.failure_table import FailureRow, HealthEffect

FAILURES_IN_A_ROW = 5
MIN_SUCCESS, MIN_SAMPLES = 0.5, 20
EJECTION_SECONDS, MAX_EJECTION_SECONDS = 30.0, 300.0
"""First time for which a target is ejected, which doubles with each failed trial, and the last."""
DEFAULT_REST_SECONDS, MAX_REST_SECONDS = 5.0, 600.0
"""Rest after a refusal for want of capacity: without a stated time, and at most."""
REMOVED_SECONDS = 600.0
_SMOOTHING, _SOFT = 0.1, 0.5
_MAX_TARGETS = 4096
_MIN_FIRST_CONTENTS = 20
_TOKENS_PER_SHARE = 4000.0
"""Prompt tokens that make the first content take as long again."""

Target = tuple[str, str]
"""The name of an upstream, and a model there; "" for everything behind the upstream's key."""
State = Literal["healthy", "ejected", "half-open"]


class TargetHealth(Struct, kw_only=True):
    """Recent attempts at one target; times in monotonic seconds.

    Attributes:
        success: share of successes, exponentially weighted.
        failures_in_a_row: failures since the last success.
        since, until: the time for which it is ejected; `until` is None while it is healthy.
        ejections: times it was ejected since it last stayed healthy.
        trial: whether its one live trial is running.
        cause: the last failure that counted, in words.
        log_first_content, first_content_variance: of seconds to the first content, at no prompt.
    """

    success: float = 1.0
    attempts: int = 0
    failures_in_a_row: int = 0
    since: float = 0.0
    until: float | None = None
    ejections: int = 0
    trial: bool = False
    cause: str = ""
    first_contents: int = 0
    log_first_content: float = 0.0
    first_content_variance: float = 0.25

    def state(self, now: float) -> State:
        """Return whether it is asked as usual, last, or by one request at a time."""
        if self.until is None:
            return "healthy"
        return "ejected" if now < self.until else "half-open"

    def seconds_to_trial(self, now: float) -> float | None:
        """Return the seconds until its next live trial; None while it is healthy."""
        return None if self.until is None else round(max(self.until - now, 0.0), 1)

    def is_available(self, now: float) -> bool:
        """Return whether a request may be sent to it now."""
        return self.until is None or (now >= self.until and not self.trial)


class HealthReport(Struct, kw_only=True, eq=False):
    """Report on one attempt that began at `started`; only the first call counts."""

    book: "HealthBook"
    target: Target
    started: float
    tokens: int
    trials: Sequence[TargetHealth] = ()
    is_open: bool = True

    def succeed(self, first_content_at: float | None = None) -> None:
        """Report an answer; its time to the first content counts for a stream."""
        if self.is_open:
            self.drop()
            wait = None if first_content_at is None else first_content_at - self.started
            self.book.count_success(self.target, wait, self.tokens, self.started)

    def fail(self, row: FailureRow, words: str, now: float, wait: float | None = None) -> None:
        """Report a failure by its row; `wait` is the time that the upstream named."""
        if self.is_open:
            self.drop()
            self.book.count_failure(self.target, row, words, now, wait, self.started)

    def drop(self) -> None:
        """Report that nothing was learned, since the caller left."""
        self.is_open = False
        for health in self.trials:
            health.trial = False
        self.trials = ()


class HealthBook:
    """Health of every target that was asked; the oldest are forgotten first."""

    def __init__(self) -> None:
        self._targets: BoundedDict[Target, TargetHealth] = BoundedDict(_MAX_TARGETS)
        # The few that are not healthy, so that the ordinary request looks at nothing else.
        self._ejected: dict[Target, TargetHealth] = {}

    @property
    def all_healthy(self) -> bool:
        """Whether no target is ejected or half-open."""
        return not self._ejected

    def begin(self, target: Target, now: float, prompt_tokens: int) -> HealthReport:
        """Return the report on an attempt that begins now; it is the trial of a half-open one."""
        if not self._ejected:
            return HealthReport(book=self, target=target, started=now, tokens=prompt_tokens)
        found = (self._ejected.get(target), self._ejected.get((target[0], "")))
        trials = [one for one in found if one is not None and one.state(now) == "half-open"]
        trials = [health for health in trials if not health.trial]
        for health in trials:
            health.trial = True
        return HealthReport(
            book=self, target=target, started=now, tokens=prompt_tokens, trials=trials
        )

    def is_available(self, target: Target, now: float) -> bool:
        """Return whether a request may be sent to a target now."""
        return all(
            health is None or health.is_available(now)
            for health in (self._ejected.get(target), self._ejected.get((target[0], "")))
        )

    def back_at(self, target: Target) -> float:
        """Return when a target gets its next trial, in monotonic seconds; 0 for a healthy one."""
        found = (self._ejected.get(target), self._ejected.get((target[0], "")))
        return max((health.until or 0.0 for health in found if health is not None), default=0.0)

    def describe(self, target: Target, now: float) -> str:
        """Return why a target is ejected, as a sentence; empty for a healthy one."""
        for each in ((target[0], ""), target):
            health = self._ejected.get(each)
            if health is not None and health.until is not None:
                left = max(health.until - now, 0.0)
                what = target[1] if each[1] else f"Every model at {target[0]}"
                when = f"the next trial is in {left:.0f} s" if left else "its trial is due"
                return f"{what} is ejected after {health.cause}; {when}."
        return ""

    def items(self) -> Iterator[tuple[Target, TargetHealth]]:
        """Return every known target."""
        return iter(self._targets.items())

    def list_figures(self) -> list[tuple[str, str, float, bool]]:
        """Return upstream, model, share of successes and whether it is healthy, for metrics."""
        return [
            (*target, health.success, health.until is None)
            for target, health in list(self._targets.items())
        ]

    def first_content_limit(self, target: Target, prompt_tokens: int, most: float) -> float:
        """Return the seconds that the first content of a stream may take, at most `most`.

        One and a half times the 99th percentile of a log-normal fitted to the target's own times,
        longer for long prompts; `most` until there are enough answers.
        """
        health = self._targets.get(target)
        if health is None or health.first_contents < _MIN_FIRST_CONTENTS:
            return most
        spread = 2.326 * math.sqrt(health.first_content_variance)
        usual = math.exp(min(health.log_first_content + spread, 12.0))
        return min(1.5 * usual * _stretch(prompt_tokens), most)

    def late_first_content(self, target: Target, prompt_tokens: int) -> float | None:
        """Return the seconds by which 95 of 100 answers begin; None until there are enough."""
        health = self._targets.get(target)
        if health is None or health.first_contents < _MIN_FIRST_CONTENTS:
            return None
        spread = 1.645 * math.sqrt(health.first_content_variance)
        return math.exp(min(health.log_first_content + spread, 12.0)) * _stretch(prompt_tokens)

    def count_success(
        self, target: Target, wait: float | None, prompt_tokens: int, started: float
    ) -> None:
        """Count an answer to an attempt; a target ejected before that is healthy again.

        So is the key of its upstream.
        """
        health = self._targets.get(target) or self._find(target)
        health.attempts += 1
        health.success += _SMOOTHING * (1.0 - health.success)
        health.failures_in_a_row = 0
        if wait is not None:
            _learn_first_content(health, wait / _stretch(prompt_tokens))
        if health.ejections and health.until is None:
            health.ejections = 0
        if self._ejected:
            self._restore(target, started)
            self._restore((target[0], ""), started)

    def count_failure(  # noqa: PLR0913 - the facts of one attempt
        self,
        target: Target,
        row: FailureRow,
        words: str,
        now: float,
        wait: float | None,
        started: float,
    ) -> None:
        """Count a failed attempt by the effect of its row; `wait` is the named `Retry-After`."""
        effect, known = row.health, self._ejected.get(target)
        if effect is HealthEffect.NONE or (known is not None and started < known.since):
            # It began before the target was ejected, and says nothing new.
            return
        if effect is HealthEffect.COOL:
            rest = DEFAULT_REST_SECONDS if wait is None else min(wait, MAX_REST_SECONDS)
            self._eject(target, now, rest, words)
            return
        if effect is HealthEffect.REMOVE:
            self._eject(target, now, REMOVED_SECONDS, words)
            return
        if effect is HealthEffect.EJECT_KEY:
            self._eject_longer((target[0], ""), now, words)
        health = self._find(target)
        health.attempts += 1
        weight = _SOFT if effect is HealthEffect.SOFT else 1.0
        health.success -= _SMOOTHING * weight * health.success
        health.failures_in_a_row += effect is not HealthEffect.SOFT
        if effect is HealthEffect.SOFT:
            return
        is_poor = health.success < MIN_SUCCESS and health.attempts >= MIN_SAMPLES
        failed_trial = health.until is not None
        if failed_trial or is_poor or health.failures_in_a_row >= FAILURES_IN_A_ROW:
            self._eject_longer(target, now, words)

    def _find(self, target: Target) -> TargetHealth:
        health = self._targets.get(target)
        if health is None:
            health = self._targets[target] = TargetHealth()
        return health

    def _eject_longer(self, target: Target, now: float, words: str) -> None:
        health = self._find(target)
        seconds = min(EJECTION_SECONDS * 2.0**health.ejections, MAX_EJECTION_SECONDS)
        if health.until is None or now >= health.until:
            health.ejections += 1
        self._eject(target, now, seconds, words)

    def _eject(self, target: Target, now: float, seconds: float, words: str) -> None:
        health = self._find(target)
        health.until = max(health.until or 0.0, now + seconds)
        health.since = now
        health.cause = words
        self._ejected[target] = health

    def _restore(self, target: Target, started: float) -> None:
        health = self._ejected.get(target)
        if health is not None and started >= health.since:
            del self._ejected[target]
            health.until, health.trial, health.cause = None, False, ""
            health.success = max(health.success, MIN_SUCCESS)


class RetryBudget:
    """Dispatches beyond the first of each request, for the whole process: a share, and a floor.

    As in Finagle: every request adds `share` of one, every second `floor`, and credit that is
    not used within some seconds is lost. It keeps an outage from being multiplied.
    """

    def __init__(self, share: float = 0.2, floor: float = 10.0, seconds: float = 10.0) -> None:
        self._share = share
        self._floor = floor
        self._seconds = seconds
        self._balance = floor * seconds
        self._requests = 0
        self._recent = 0.0
        self._at = 0.0

    def add_request(self) -> None:
        """Count a request."""
        self._requests += 1

    def take(self, now: float) -> bool:
        """Return whether one more dispatch is allowed, and count it."""
        passed = max(now - self._at, 0.0)
        self._at = now
        self._recent = self._recent * math.exp(-passed / self._seconds) + self._requests
        added = self._floor * passed + self._share * self._requests
        most = self._floor * self._seconds + self._share * self._recent
        self._balance = min(self._balance + added, most)
        self._requests = 0
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True


def _learn_first_content(health: TargetHealth, seconds: float) -> None:
    value = math.log(max(seconds, 1e-4))
    health.first_contents += 1
    weight = max(1.0 / health.first_contents, 0.02)
    surprise = value - health.log_first_content
    health.log_first_content += weight * surprise
    if health.first_contents > 1:
        spread = surprise * surprise * (1.0 - weight)
        health.first_content_variance += weight * (spread - health.first_content_variance)


def _stretch(prompt_tokens: int) -> float:
    return 1.0 + prompt_tokens / _TOKENS_PER_SHARE
