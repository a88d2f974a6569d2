"""Task history by system prompt: earlier requests under it are evidence of the next one's task.

The history and no history are two models of a prompt, averaged by how likely each made the requests
so far (Bayesian model averaging; Hoeting et al., 1999). So a prompt that stands before all kinds of
requests does not change their posteriors.
"""

import math

import numpy as np
from msgspec import Struct

from sophia.routing.bandit.policy import Vector

CONCENTRATION = 10.0
"""Pseudo-requests of the Dirichlet prior, spread evenly over the tasks."""
DECAY = 0.98
"""Factor on a history's counts and log-odds for each further request."""
PRIOR_LOG_ODDS_AGAINST = 5.0
"""Log-odds against a new history."""
MAX_LOG_ODDS = 8.0


class PromptHistory(Struct, frozen=True):
    """The requests so far under one system prompt; its array is never written to.

    Attributes:
        counts: shape (T,), the sum of their task posteriors, older ones counting less.
        total_weight: the sum of `counts`.
        log_odds: log-odds that the counts predict the next request better than no history.
        request_count: the number of requests.
    """

    counts: Vector
    total_weight: float = 0.0
    log_odds: float = -PRIOR_LOG_ODDS_AGAINST
    request_count: int = 0


class HistoryPosterior(Struct, frozen=True):
    """A request's posterior with the evidence of a history.

    Attributes:
        task_probabilities: shape (T,).
        history_probability: the weight of the history, 0 to 1.
        log_bayes_factor: logarithm of the request's likelihood with the history over without.
    """

    task_probabilities: Vector
    history_probability: float
    log_bayes_factor: float


class HistoryLookup(Struct, frozen=True, kw_only=True):
    """Lookup of a request's system prompt, before the request is counted.

    Attributes:
        tenant: the owner of the history.
        prompt_digest: keyed digest of the system prompt.
        posterior: shape (T,), the request's own posterior.
        text_hash: hash of the text under this prompt; None when it was counted before.
        history: earlier requests under the prompt.
        adjusted: the posterior adjusted by the history.
    """

    tenant: str
    prompt_digest: bytes
    posterior: Vector
    text_hash: int | None
    history: PromptHistory
    adjusted: HistoryPosterior


def apply_history(
    history: PromptHistory, posterior: Vector, base_rate: float, *, already_counted: bool = False
) -> HistoryPosterior:
    """Return a request's `posterior`, (T,), adjusted by the history.

    The expectation under the prompt is the mean of a Dirichlet posterior; over `base_rate`, the
    probability of each task without a history, it is evidence by Bayes' rule. With
    `already_counted` the request's own part is taken out of the history first.
    """
    counts, weight = history.counts, history.total_weight
    if already_counted:
        counts = np.maximum(counts - posterior, 0.0)
        weight = float(counts.sum())
    floor = CONCENTRATION * base_rate
    norm = (weight + CONCENTRATION) * base_rate
    bayes_factor = (float(posterior.dot(counts)) + floor) / norm
    probability = 1.0 / (1.0 + math.exp(-history.log_odds))
    # The terms of the history and of no history, in the fewest passes over the array.
    share = probability / (bayes_factor * norm)
    tasks = counts * share
    tasks += floor * share + 1.0 - probability
    tasks *= posterior
    return HistoryPosterior(tasks, probability, math.log(bayes_factor))


def update_history(
    history: PromptHistory, posterior: Vector, log_bayes_factor: float
) -> PromptHistory:
    """Return the history with one more request, of the own `posterior`, (T,).

    `log_bayes_factor` is the one of `apply_history` before the request was counted.
    """
    decayed = (history.log_odds + PRIOR_LOG_ODDS_AGAINST) * DECAY - PRIOR_LOG_ODDS_AGAINST
    return PromptHistory(
        history.counts * DECAY + posterior,
        history.total_weight * DECAY + 1.0,
        min(max(decayed + log_bayes_factor, -MAX_LOG_ODDS), MAX_LOG_ODDS),
        history.request_count + 1,
    )
