"""A router on a stream: it rates, chooses, observes the chosen arm's outcome, and learns."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.routing.online_stream import Stream
from lab.baselines.linucb import LinUcb
from lab.learner import Learner
from lab.training.table_contexts import Projection
from sophia.routing.bandit.choose import ArmChoice, ChoiceSet, choose_arm
from sophia.routing.bandit.drift import (
    WIDEN_FACTOR,
    DriftAlarm,
    DriftState,
    log_likelihood_ratio,
    update_drift,
)
from sophia.routing.bandit.policy import ArmRatings, Lesson, PolicyContext, Prior, Vector
from sophia.routing.bandit.quality.hierarchical import HierarchicalPolicy
from sophia.routing.types import Exploration, UtilityWeights

Priors = dict[str, Prior]
AgentFactory = Callable[[Stream, Priors], "Agent"]

THOMPSON_SCALE = 0.25
OPTIMISM = 0.1


@dataclass
class Agent:
    """A learner with its exploration; `detect_drift` widens the variance of degraded arms."""

    learner: Learner
    exploration: Exploration
    optimism: float = 0.0
    detect_drift: bool = False
    drift_state: DriftState = field(default_factory=DriftState)
    alarms: list[DriftAlarm] = field(default_factory=list)

    def rate(self, context: PolicyContext, arms: tuple[str, ...]) -> ArmRatings:
        """Return the learner's ratings plus `optimism` standard deviations."""
        ratings = self.learner.rate(context, arms)
        if ratings is None:
            raise ValueError(f"{self.learner.name} returned no ratings")
        if not self.optimism:
            return ratings
        return ArmRatings(ratings.quality + self.optimism * ratings.sd, ratings.sd)

    def learn(self, lesson: Lesson, expected: float, sd: float) -> None:
        """Update by an outcome that was expected as `expected` ± `sd`."""
        if self.detect_drift and isinstance(self.learner, HierarchicalPolicy):
            found = log_likelihood_ratio(lesson.quality, expected, sd)
            task = int(lesson.context.task_probabilities.argmax())
            self.drift_state, alarm = update_drift(self.drift_state, lesson.arm, task, found)
            if alarm is not None:
                self.alarms.append(alarm)
                self.learner.inflate_variance(alarm.arm, alarm.task, WIDEN_FACTOR)
        self.learner.learn_one(lesson)


@dataclass(frozen=True)
class AgentDecision:
    """One decision: the choice, and the rating of the chosen arm."""

    choice: ArmChoice
    arm: int
    expected: float
    sd: float


@dataclass(frozen=True)
class AgentRequest:
    """One request: its row, the utility weights, the random number, and the allowed arms.

    Arms are positions in the stream; None stands for all. `trial` is an allowed arm on trial and its
    probability.
    """

    row: int
    utility_weights: UtilityWeights
    uniform: float
    allowed: NDArray[np.intp] | None = None
    explorable: NDArray[np.bool_] | None = None
    trial: tuple[int, float] | None = None


def decide(agent: Agent, stream: Stream, request: AgentRequest) -> AgentDecision:
    """Return the agent's decision on a request."""
    allowed = np.arange(len(stream.arms)) if request.allowed is None else request.allowed
    arms = tuple(stream.arms[arm] for arm in allowed)
    ratings = agent.rate(stream.contexts[request.row], arms)
    free = np.ones(len(arms), dtype=bool)
    if request.explorable is not None:
        free = request.explorable[allowed]
    trial = None
    if request.trial is not None:
        trial = int(np.flatnonzero(allowed == request.trial[0])[0]), request.trial[1]
    zeros = np.zeros(len(arms))
    options = ChoiceSet(
        ratings=ratings,
        cost=stream.expected_cost[request.row][allowed],
        explorable=free,
        late_probability=zeros,
        failure_probability=zeros,
        trial=trial,
    )
    choice = choose_arm(options, request.utility_weights, agent.exploration, request.uniform)
    return AgentDecision(
        choice,
        int(allowed[choice.arm]),
        float(ratings.quality[choice.arm]),
        float(ratings.sd[choice.arm]),
    )


def build_lesson(stream: Stream, row: int, arm: int, quality: float | None = None) -> Lesson:
    """Return the outcome of an arm on a row."""
    score = float(stream.quality[row, arm]) if quality is None else quality
    return Lesson(stream.contexts[row], stream.arms[arm], score)


def hierarchical(stream: Stream, priors: Priors) -> Agent:
    """Return the product's policy with Thompson sampling."""
    return Agent(HierarchicalPolicy(stream.task_count, priors), _thompson(THOMPSON_SCALE))


def linucb(stream: Stream, priors: Priors) -> Agent:
    """Return optimistic ridge regressions per arm, without randomness."""
    return Agent(LinUcb(stream.projection, None, priors), Exploration("off"), OPTIMISM)


def no_context(stream: Stream, priors: Priors) -> Agent:
    """Return a mean per arm with Thompson sampling, without context."""
    nothing = Projection(np.zeros((stream.projection.matrix.shape[0], 0)), np.zeros(0))
    return Agent(LinUcb(nothing, None, priors), _thompson(1.0))


AGENTS: dict[str, AgentFactory] = {
    "hierarchical": hierarchical,
    "linucb": linucb,
    "thompson, no context": no_context,
}


def _thompson(scale: float) -> Exploration:
    return Exploration("thompson", sd_scale=scale)


def mean_task_posterior(stream: Stream) -> Vector:
    """Return the mean task posterior of the requests, (T,)."""
    return np.mean([context.task_probabilities for context in stream.contexts], axis=0)
