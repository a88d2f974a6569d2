"""What happens when the world changes: a better model comes, one gets worse, money is short."""

import numpy as np
from msgspec import Struct

from bench.routing.online_agent import (
    Ask,
    decide,
    hierarchical,
    lesson_of,
    usual_tasks,
)
from bench.routing.online_stream import PRICE, Stream, priors_of
from sophia.routing import trial as trials
from sophia.routing.drift import Alertness
from sophia.routing.pacer import Pace, Pacing, affordable, pace, target_of
from sophia.routing.policies.choose import Taste
from sophia.routing.policies.policy import Prior, Vector

WINDOW = 50
WARM = 1000
LOST = 0.4
NEWCOMER_SD = 0.20
DEMOTED, PROMOTED = 0.2, 0.5
THRIFT = 0.01
HARD = 1.05
RESERVED = 0.99


class Newcomer(Struct, frozen=True):
    """How a new best model fared that came after `WARM` requests.

    `requests` is, by seed, after how many requests more than half of the last 50 went to it; None:
    never. `explored` is what its trial cost above the best-looking arms, over all spending.
    """

    source: str
    prior_error: float
    requests: list[int | None]
    explored: list[float]


class Decay(Struct, frozen=True):
    """How an arm fared that silently lost 40 % of its right answers.

    `requests` is, by seed, after how many requests less than a fifth of the last 50 went to it;
    `cost` is the utility that watching costs, by seed, on the same stream when nothing happens.
    """

    source: str
    arm: str
    requests: list[int | None]
    alarms: list[int | None]
    cost: list[float]


class Budget(Struct, frozen=True):
    """How far a window's budget was used up, by seed, and what the quality was.

    `target` is the mean cost allowed over the best arm's. The hard ceiling, 5 % above the budget,
    is kept by reserving the 99th percentile of an arm's cost; `breaches` counts windows beyond it,
    `refused` requests for which even the cheapest reservation no longer fitted. Where
    `free_price_share` is above nought the price was nought for so long: more money would have
    bought nothing.
    """

    source: str
    target: float
    spent: list[float]
    breaches: int
    refused: int
    quality: float
    free_price_share: float


def newcomer(stream: Stream, error: float, seeds: int, prior: str = "noisy") -> Newcomer:
    """Return how the arm of the best mean utility fares when it comes late.

    Its prior is its true mean by task less `error`.
    """
    best = int(stream.utility.mean(axis=0).argmax())
    found = [_arrive(stream, best, error, seed, prior) for seed in range(seeds)]
    return Newcomer(stream.name, error, [one for one, _ in found], [two for _, two in found])


def decay(stream: Stream, seeds: int, prior: str = "noisy") -> Decay:
    """Return how soon the most used arm is left when it gets worse half-way through."""
    used = _most_used(stream, prior)
    requests, alarms, cost = [], [], []
    for seed in range(seeds):
        left, alarmed, _ = _walk(stream, seed, prior, used, watching=True)
        requests.append(left)
        alarms.append(alarmed)
        _, _, watched = _walk(stream, seed, prior, None, watching=True)
        _, _, plain = _walk(stream, seed, prior, None, watching=False)
        cost.append(plain - watched)
    return Decay(stream.name, stream.arms[used], requests, alarms, cost)


def budget(stream: Stream, target: float, seeds: int, prior: str = "noisy") -> Budget:
    """Return how a window of the whole stream keeps to `target` times the best arm's cost."""
    spent, quality, breaches, refused, free = [], [], 0, 0, []
    for seed in range(seeds):
        used, good, over, sent_away, unpriced = _pay(stream, target, seed, prior)
        spent.append(used)
        quality.append(good)
        breaches += over
        refused += sent_away
        free.append(unpriced)
    return Budget(
        stream.name, target, spent, breaches, refused, float(np.mean(quality)), float(np.mean(free))
    )


def _arrive(
    stream: Stream, best: int, error: float, seed: int, prior: str
) -> tuple[int | None, float]:
    rng = np.random.default_rng([seed, 11])
    order = rng.permutation(len(stream.sights))
    priors = priors_of(stream, prior, rng)
    old = np.array([arm for arm in range(len(stream.arms)) if arm != best])
    agent = hierarchical(stream, {stream.arms[arm]: priors[stream.arms[arm]] for arm in old})
    taste = Taste(PRICE, stream.reference)
    warm = min(WARM, len(order) // 3)
    for row in order[:warm]:
        step = decide(agent, stream, Ask(row, taste, float(rng.random()), old))
        agent.learn(lesson_of(stream, row, step.arm), step.expected, step.sd)
    mean = np.clip(stream.task_means()[best] - error, 0.0, 1.0)
    name, shares = stream.arms[best], usual_tasks(stream)
    agent.learner.add(name, Prior(mean, np.full(len(mean), NEWCOMER_SD)))
    terms, state = trials.Terms(), trials.begin(name, len(mean))
    taken: list[bool] = []
    promoted: int | None = None
    for row in order[warm:]:
        costs = stream.expected_cost[row]
        ahead = float(costs[decide(agent, stream, Ask(row, taste, 0.0)).choice.best])
        asked = trials.Request(stream.sights[row].tasks, shares, float(costs[best]), ahead)
        chance = trials.chance(state, asked, terms)
        draw = float(rng.random())
        step = decide(agent, stream, Ask(row, taste, draw, trial=(best, chance)))
        agent.learn(lesson_of(stream, row, step.arm), step.expected, step.sd)
        cost = float(stream.cost[row, step.arm])
        forced = chance / step.choice.propensity if step.arm == best else 0.0
        state = trials.give(state, asked, stream.arms[step.arm], cost, forced)
        taken.append(step.arm == best)
        if promoted is None and np.mean(taken[-WINDOW:]) > PROMOTED and len(taken) >= WINDOW:
            promoted = len(taken)
    return promoted, state.extra / state.spent


def _most_used(stream: Stream, prior: str) -> int:
    rng = np.random.default_rng([0, 13])
    agent = hierarchical(stream, priors_of(stream, prior, rng))
    order = rng.permutation(len(stream.sights))
    taken = np.zeros(len(stream.arms))
    taste = Taste(PRICE, stream.reference)
    for row in order[: len(order) // 2]:
        step = decide(agent, stream, Ask(row, taste, float(rng.random())))
        agent.learn(lesson_of(stream, row, step.arm), step.expected, step.sd)
        taken[step.arm] += 1
    return int(taken.argmax())


def _walk(
    stream: Stream, seed: int, prior: str, failing: int | None, *, watching: bool
) -> tuple[int | None, int | None, float]:
    """Return when the failing arm was left and when the alarm rang, and the mean utility."""
    rng = np.random.default_rng([seed, 13])
    agent = hierarchical(stream, priors_of(stream, prior, rng))
    agent.watching = Alertness() if watching else None
    order = rng.permutation(len(stream.sights))
    start = len(order) // 2
    draws, luck = rng.random(len(order)), rng.random(len(order))
    taste, utility, gained = Taste(PRICE, stream.reference), stream.utility, 0.0
    taken: list[bool] = []
    alarmed: int | None = None
    for number, row in enumerate(order):
        step = decide(agent, stream, Ask(row, taste, float(draws[number])))
        quality = float(stream.quality[row, step.arm])
        broken = failing is not None and number >= start
        if broken and step.arm == failing and luck[number] < LOST:
            quality = 0.0
        rang = len(agent.alarms)
        agent.learn(lesson_of(stream, row, step.arm, quality), step.expected, step.sd)
        gained += float(utility[row, step.arm])
        if not broken:
            continue
        taken.append(step.arm == failing)
        news = [alarm for alarm in agent.alarms[rang:] if alarm.arm == stream.arms[failing or 0]]
        if news and alarmed is None:
            alarmed = len(taken)
        if len(taken) >= WINDOW and np.mean(taken[-WINDOW:]) < DEMOTED:
            return len(taken), alarmed, gained / (number + 1)
    return None, alarmed, gained / len(order)


def _pay(
    stream: Stream, target: float, seed: int, prior: str
) -> tuple[float, float, int, int, float]:
    rng = np.random.default_rng([seed, 17])
    agent = hierarchical(stream, priors_of(stream, prior, rng))
    order = rng.permutation(len(stream.sights))
    usual = target * stream.reference
    budgeted = usual * len(order)
    ceiling = HARD * budgeted
    worst: Vector = np.quantile(stream.cost, RESERVED, axis=0)
    state, settings = Pacing(), Pace()
    spent = gained = 0.0
    refused = free = 0
    for number, row in enumerate(order):
        remaining = budgeted - spent
        goal = target_of(remaining, len(order) - number, usual)
        costs = stream.expected_cost[row]
        payable = worst <= ceiling - spent
        if not payable.any():
            refused += 1
            continue
        modest = payable & (costs <= remaining)
        able = np.flatnonzero(modest if modest.any() else payable & (costs <= costs[payable].min()))
        explorable = np.array([affordable(float(cost), remaining, goal) for cost in costs])
        taste = Taste(THRIFT + state.price, stream.reference)
        draw = float(rng.random())
        step = decide(agent, stream, Ask(row, taste, draw, able, explorable))
        agent.learn(lesson_of(stream, row, step.arm), step.expected, step.sd)
        cost = float(stream.cost[row, step.arm])
        spent += cost
        gained += float(stream.quality[row, step.arm])
        free += state.price == 0.0
        state = pace(state, cost, goal, settings)
    return spent / budgeted, gained / len(order), int(spent > ceiling), refused, free / len(order)
