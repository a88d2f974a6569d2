"""Scenarios of change: a better model arrives, a model degrades, a budget is tight."""

import numpy as np
from msgspec import Struct

from bench.routing.online_agent import (
    AgentRequest,
    build_lesson,
    decide,
    hierarchical,
    mean_task_posterior,
)
from bench.routing.online_stream import PRICE, Stream, build_priors
from sophia.routing.bandit import trials
from sophia.routing.bandit.pacing import PacingState, update_pacing
from sophia.routing.bandit.policy import Prior, Vector
from sophia.routing.types import UtilityWeights

WINDOW = 50
MAX_EXPLORATION_COST = 30.0
"""Largest cost of an explorable arm, as a multiple of the target cost."""
WARM_UP_REQUESTS = 1000
DEGRADED_SHARE = 0.4
NEW_MODEL_PRIOR_SD = 0.20
DEMOTED, PROMOTED = 0.2, 0.5
BASE_PRICE, START_PRICE = 0.01, 0.02
HARD_LIMIT_FACTOR = 1.05
RESERVATION_QUANTILE = 0.99


class NewModelResult(Struct, frozen=True):
    """Adoption of a best model that is added after `WARM_UP_REQUESTS` requests.

    `requests` is, by seed, the number of requests until it had more than half of the last 50; None
    if never. `explored` is its trial's extra cost over the best-looking arms, by all spending.
    """

    source: str
    prior_error: float
    requests: list[int | None]
    explored: list[float]


class DegradationResult(Struct, frozen=True):
    """Detection of an arm that silently lost 40 % of its right answers.

    `requests` is, by seed, the number of requests until it had less than a fifth of the last 50;
    `cost` is the utility lost to drift detection on the same stream without a degradation.
    """

    source: str
    arm: str
    requests: list[int | None]
    alarms: list[int | None]
    cost: list[float]


class BudgetResult(Struct, frozen=True):
    """Use of a window's budget by seed, and the mean quality.

    `target` is the mean cost allowed over the best arm's. The hard ceiling, 5 % above the budget,
    is kept by reserving the 99th percentile of an arm's cost; `breaches` counts windows beyond it,
    `refused` requests that not even the cheapest reservation fitted. `free_price_share` is the share
    of requests at price 0, where a larger budget would not improve the quality.
    """

    source: str
    target: float
    spent: list[float]
    breaches: int
    refused: int
    quality: float
    free_price_share: float


def run_new_model(stream: Stream, error: float, seeds: int, prior: str = "noisy") -> NewModelResult:
    """Simulate adding the arm of the best mean utility late.

    Its prior is its true mean by task less `error`.
    """
    best = int(stream.utility.mean(axis=0).argmax())
    found = [_simulate_new_model(stream, best, error, seed, prior) for seed in range(seeds)]
    return NewModelResult(stream.name, error, [one for one, _ in found], [two for _, two in found])


def run_degradation(stream: Stream, seeds: int, prior: str = "noisy") -> DegradationResult:
    """Simulate a degradation of the most used arm at half of the stream."""
    used = _most_used(stream, prior)
    requests, alarms, cost = [], [], []
    for seed in range(seeds):
        left, alarmed, _ = _simulate_degradation(stream, seed, prior, used, detect_drift=True)
        requests.append(left)
        alarms.append(alarmed)
        _, _, watched = _simulate_degradation(stream, seed, prior, None, detect_drift=True)
        _, _, plain = _simulate_degradation(stream, seed, prior, None, detect_drift=False)
        cost.append(plain - watched)
    return DegradationResult(stream.name, stream.arms[used], requests, alarms, cost)


def run_budget(stream: Stream, target: float, seeds: int, prior: str = "noisy") -> BudgetResult:
    """Simulate a budget of `target` times the best arm's cost over the whole stream."""
    spent, quality, breaches, refused, free = [], [], 0, 0, []
    for seed in range(seeds):
        used, good, over, sent_away, unpriced = _simulate_budget(stream, target, seed, prior)
        spent.append(used)
        quality.append(good)
        breaches += over
        refused += sent_away
        free.append(unpriced)
    return BudgetResult(
        stream.name, target, spent, breaches, refused, float(np.mean(quality)), float(np.mean(free))
    )


def _simulate_new_model(
    stream: Stream, best: int, error: float, seed: int, prior: str
) -> tuple[int | None, float]:
    rng = np.random.default_rng([seed, 11])
    order = rng.permutation(len(stream.contexts))
    priors = build_priors(stream, prior, rng)
    old = np.array([arm for arm in range(len(stream.arms)) if arm != best])
    agent = hierarchical(stream, {stream.arms[arm]: priors[stream.arms[arm]] for arm in old})
    weights = UtilityWeights(PRICE, stream.reference)
    warm = min(WARM_UP_REQUESTS, len(order) // 3)
    for row in order[:warm]:
        step = decide(agent, stream, AgentRequest(row, weights, float(rng.random()), old))
        agent.learn(build_lesson(stream, row, step.arm), step.expected, step.sd)
    mean = np.clip(stream.task_means()[best] - error, 0.0, 1.0)
    name, shares = stream.arms[best], mean_task_posterior(stream)
    agent.learner.add_arm(name, Prior(mean, np.full(len(mean), NEW_MODEL_PRIOR_SD)))
    state = trials.build_arm_trial(name, len(mean))
    taken: list[bool] = []
    promoted: int | None = None
    for row in order[warm:]:
        costs = stream.expected_cost[row]
        best_cost = float(costs[decide(agent, stream, AgentRequest(row, weights, 0.0)).choice.best])
        tasks = stream.contexts[row].task_probabilities
        own = float(costs[best])
        chance = trials.compute_trial_probability(state, tasks, shares, own, best_cost)
        draw = float(rng.random())
        step = decide(agent, stream, AgentRequest(row, weights, draw, trial=(best, chance)))
        agent.learn(build_lesson(stream, row, step.arm), step.expected, step.sd)
        cost = float(stream.cost[row, step.arm])
        forced = chance / step.choice.propensity if step.arm == best else 0.0
        extra = forced * max(own - best_cost, 0.0)
        state = trials.count_trial_answer(state, tasks, stream.arms[step.arm], cost, extra)
        taken.append(step.arm == best)
        if promoted is None and np.mean(taken[-WINDOW:]) > PROMOTED and len(taken) >= WINDOW:
            promoted = len(taken)
    return promoted, state.extra_cost / state.total_cost


def compute_target_cost(remaining: float, answers_left: float, even_cost: float) -> float:
    """Return the mean cost of an answer that spends `remaining` by the window's end.

    It stays between a third of `even_cost`, the whole window's money over all its answers, and
    three times as much, so that the end of a window brings no sudden change.
    """
    even = remaining / max(answers_left, 1.0)
    return min(max(even, even_cost / 3.0), 3.0 * even_cost)


def _most_used(stream: Stream, prior: str) -> int:
    rng = np.random.default_rng([0, 13])
    agent = hierarchical(stream, build_priors(stream, prior, rng))
    order = rng.permutation(len(stream.contexts))
    taken = np.zeros(len(stream.arms))
    weights = UtilityWeights(PRICE, stream.reference)
    for row in order[: len(order) // 2]:
        step = decide(agent, stream, AgentRequest(row, weights, float(rng.random())))
        agent.learn(build_lesson(stream, row, step.arm), step.expected, step.sd)
        taken[step.arm] += 1
    return int(taken.argmax())


def _simulate_degradation(
    stream: Stream, seed: int, prior: str, failing: int | None, *, detect_drift: bool
) -> tuple[int | None, int | None, float]:
    """Return the requests until demotion and until the alarm, and the mean utility."""
    rng = np.random.default_rng([seed, 13])
    agent = hierarchical(stream, build_priors(stream, prior, rng))
    agent.detect_drift = detect_drift
    order = rng.permutation(len(stream.contexts))
    start = len(order) // 2
    draws, failures = rng.random(len(order)), rng.random(len(order))
    weights, utility, gained = UtilityWeights(PRICE, stream.reference), stream.utility, 0.0
    taken: list[bool] = []
    alarmed: int | None = None
    for number, row in enumerate(order):
        step = decide(agent, stream, AgentRequest(row, weights, float(draws[number])))
        quality = float(stream.quality[row, step.arm])
        broken = failing is not None and number >= start
        if broken and step.arm == failing and failures[number] < DEGRADED_SHARE:
            quality = 0.0
        alarms_before = len(agent.alarms)
        agent.learn(build_lesson(stream, row, step.arm, quality), step.expected, step.sd)
        gained += float(utility[row, step.arm])
        if not broken:
            continue
        taken.append(step.arm == failing)
        new_alarms = [
            alarm
            for alarm in agent.alarms[alarms_before:]
            if alarm.arm == stream.arms[failing or 0]
        ]
        if new_alarms and alarmed is None:
            alarmed = len(taken)
        if len(taken) >= WINDOW and np.mean(taken[-WINDOW:]) < DEMOTED:
            return len(taken), alarmed, gained / (number + 1)
    return None, alarmed, gained / len(order)


def _simulate_budget(
    stream: Stream, target: float, seed: int, prior: str
) -> tuple[float, float, int, int, float]:
    rng = np.random.default_rng([seed, 17])
    agent = hierarchical(stream, build_priors(stream, prior, rng))
    order = rng.permutation(len(stream.contexts))
    even_cost = target * stream.reference
    budgeted = even_cost * len(order)
    ceiling = HARD_LIMIT_FACTOR * budgeted
    reservations: Vector = np.quantile(stream.cost, RESERVATION_QUANTILE, axis=0)
    state = PacingState(price=START_PRICE)
    spent = gained = 0.0
    refused = free = 0
    for number, row in enumerate(order):
        remaining = budgeted - spent
        goal = compute_target_cost(remaining, len(order) - number, even_cost)
        costs = stream.expected_cost[row]
        payable = reservations <= ceiling - spent
        if not payable.any():
            refused += 1
            continue
        modest = payable & (costs <= remaining)
        able = np.flatnonzero(modest if modest.any() else payable & (costs <= costs[payable].min()))
        explorable = (costs <= remaining) & (costs <= MAX_EXPLORATION_COST * goal)
        weights = UtilityWeights(BASE_PRICE + state.price, stream.reference)
        draw = float(rng.random())
        step = decide(agent, stream, AgentRequest(row, weights, draw, able, explorable))
        agent.learn(build_lesson(stream, row, step.arm), step.expected, step.sd)
        cost = float(stream.cost[row, step.arm])
        spent += cost
        gained += float(stream.quality[row, step.arm])
        free += state.price == 0.0
        state = update_pacing(state, cost, goal)
    return spent / budgeted, gained / len(order), int(spent > ceiling), refused, free / len(order)
