"""Escalation to a better model after a check: probabilities and the break-even. Pure.

An answer starts with the success probability of its model; each check moves the odds by its
likelihood ratio. Escalation pays when the gain in probability, at the value of a good answer, is
more than the expected cost of the next attempt.
"""

import math
from collections.abc import Iterable, Mapping

from msgspec import Struct


class CheckReliability(Struct, frozen=True):
    """Shares of good and of bad answers that pass a check."""

    true_pass_rate: float
    false_pass_rate: float


# Our judgement. Passing a cheap check is weak evidence, since most bad answers are well formed;
# failing one is strong, since a caller can hardly use such an answer.
CHECK_RELIABILITIES: Mapping[str, CheckReliability] = {
    "empty": CheckReliability(0.999, 0.97),
    "truncation": CheckReliability(0.98, 0.90),
    "refusal": CheckReliability(0.99, 0.85),
    "schema": CheckReliability(0.998, 0.80),
    "tool_call": CheckReliability(0.998, 0.80),
    "rubric": CheckReliability(0.80, 0.30),
    "webhook": CheckReliability(0.95, 0.05),
}

MODEL_CORRELATION = 0.3
"""Correlation between two models' success on one request, within its task: the mean of the tables
that Sophia's priors come from is 0.28. What one model fails at is harder for the next one, too."""

DEFAULT_VALUE_MULTIPLE = 10
"""A good answer's worth over the best candidate's cost, where nothing else is set."""

_MIN_PROBABILITY, _MAX_PROBABILITY = 0.01, 0.99


class CheckScore(Struct, frozen=True):
    """Result of one check, from 0 (failed) to 1 (passed)."""

    check: str
    value: float


class EscalationCandidate(Struct, frozen=True, kw_only=True):
    """A model that may be asked next, the probability of a good answer, and its nano-dollars.

    `held_nano` is its worst case, once the answer is clamped to `max_tokens`.
    """

    model: str
    success_probability: float
    expected_nano: int
    held_nano: int
    max_tokens: int | None = None


def estimate_success(
    expected: float,
    scores: Iterable[CheckScore],
    reliabilities: Mapping[str, CheckReliability] = CHECK_RELIABILITIES,
) -> float:
    """Return the probability that an answer is good, given its prior and its checks.

    Checks err independently; one that is not in `reliabilities` is ignored. A check that no good
    answer fails, or no bad one passes, decides alone; failing goes before passing.
    """
    prior = min(max(expected, _MIN_PROBABILITY), _MAX_PROBABILITY)
    odds = math.log(prior / (1 - prior))
    for score in scores:
        known = reliabilities.get(score.check)
        if known is not None:
            odds += _log_likelihood_ratio(score.value, known)
    if odds == -math.inf or math.isnan(odds):
        return 0.0
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0


def update_success(prior: float, first_prior: float, first_success: float) -> float:
    """Return the success probability of another model, given the first one's answer.

    Args:
        prior: prior of the other model.
        first_prior: prior of the first.
        first_success: probability that the first one's answer is good, given its checks.
    """
    first, second = (min(max(p, _MIN_PROBABILITY), _MAX_PROBABILITY) for p in (first_prior, prior))
    spread = math.sqrt(first * (1 - first) * second * (1 - second))
    both = min(
        max(first * second + MODEL_CORRELATION * spread, first + second - 1, 0.0), first, second
    )
    when_good, when_bad = both / first, (second - both) / (1 - first)
    return first_success * when_good + (1 - first_success) * when_bad


def choose_escalation(
    success: float,
    candidates: Iterable[EscalationCandidate],
    answer_value_nano: int,
    budget_left_nano: int | None = None,
) -> EscalationCandidate | None:
    """Return the model to ask after an answer that is good with probability `success`, or None.

    It is the one with the highest break-even among those whose worst case fits the limit: asking
    pays while `success` is below it. `answer_value_nano` is the value of a good answer over a bad
    one.
    """
    best, highest = None, success
    for candidate in candidates:
        if budget_left_nano is not None and candidate.held_nano > budget_left_nano:
            continue
        break_even = candidate.success_probability - candidate.expected_nano / answer_value_nano
        if break_even > highest:
            best, highest = candidate, break_even
    return best


def _log_likelihood_ratio(value: float, reliability: CheckReliability) -> float:
    odds = 0.0
    if value < 1:
        odds += (1 - value) * _log_ratio(
            1 - reliability.true_pass_rate, 1 - reliability.false_pass_rate
        )
    if value > 0 and odds > -math.inf:
        odds += value * _log_ratio(reliability.true_pass_rate, reliability.false_pass_rate)
    return odds


def _log_ratio(good: float, bad: float) -> float:
    """Return how much more often good answers do it than bad ones, as a logarithm."""
    if good <= 0:
        return -math.inf
    return math.inf if bad <= 0 else math.log(good / bad)
