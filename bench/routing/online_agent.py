"""One router at work on a stream: it rates, chooses, is told the outcome of its choice, and learns."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.routing.online_stream import Stream
from sophia.routing.drift import Alarm, Alertness, Watch, evidence, watch
from sophia.routing.policies.choose import Choice, Exploration, Options, Taste, choose
from sophia.routing.policies.hierarchical import Hierarchical, Projection, Shape
from sophia.routing.policies.linucb import LinUcb
from sophia.routing.policies.policy import Learner, Lesson, Prior, Ratings, Sight, Vector

Priors = dict[str, Prior]
Make = Callable[[Stream, Priors], "Agent"]

BOLDNESS = 0.25
OPTIMISM = 0.1


@dataclass
class Agent:
    """A learner, and how its ratings become a choice; `watching` tells it of drift."""

    learner: Learner
    exploration: Exploration
    optimism: float = 0.0
    watching: Alertness | None = None
    watched: Watch = field(default_factory=Watch)
    alarms: list[Alarm] = field(default_factory=list)

    def rate(self, sight: Sight, arms: tuple[str, ...]) -> Ratings:
        """Return the learner's ratings, with its optimism in the face of doubt added."""
        ratings = self.learner.rate(sight, arms)
        if ratings is None:
            raise ValueError(f"{self.learner.name} declined, and nobody else is here to decide")
        if not self.optimism:
            return ratings
        return Ratings(ratings.quality + self.optimism * ratings.sd, ratings.sd)

    def learn(self, lesson: Lesson, expected: float, sd: float) -> None:
        """Take in an outcome; `expected` and `sd` are what was thought of it beforehand."""
        if self.watching is not None and isinstance(self.learner, Hierarchical):
            found = evidence(lesson.quality, expected, sd, self.watching)
            task = int(lesson.sight.tasks.argmax())
            self.watched, alarm = watch(self.watched, lesson.arm, task, found, self.watching)
            if alarm is not None:
                self.alarms.append(alarm)
                self.learner.widen(alarm.arm, alarm.task, self.watching.doubt)
        self.learner.learn_one(lesson)


@dataclass(frozen=True)
class Step:
    """One decision: the choice, and what was thought of the arm that was taken."""

    choice: Choice
    arm: int
    expected: float
    sd: float


@dataclass(frozen=True)
class Ask:
    """One request: its row in the stream, the taste, the draw, and who may be taken or tried.

    Arms are given by their positions in the stream; None stands for all of them. `trial` is the
    arm on trial, which must be allowed, and its probability.
    """

    row: int
    taste: Taste
    draw: float
    allowed: NDArray[np.intp] | None = None
    explorable: NDArray[np.bool_] | None = None
    trial: tuple[int, float] | None = None


def decide(agent: Agent, stream: Stream, ask: Ask) -> Step:
    """Return the agent's decision on a request."""
    allowed = np.arange(len(stream.arms)) if ask.allowed is None else ask.allowed
    arms = tuple(stream.arms[arm] for arm in allowed)
    ratings = agent.rate(stream.sights[ask.row], arms)
    free = np.ones(len(arms), dtype=bool)
    if ask.explorable is not None:
        free = ask.explorable[allowed]
    trial = None
    if ask.trial is not None:
        trial = int(np.flatnonzero(allowed == ask.trial[0])[0]), ask.trial[1]
    options = Options(ratings, stream.expected_cost[ask.row][allowed], free, trial=trial)
    choice = choose(options, ask.taste, agent.exploration, ask.draw)
    return Step(
        choice,
        int(allowed[choice.arm]),
        float(ratings.quality[choice.arm]),
        float(ratings.sd[choice.arm]),
    )


def lesson_of(stream: Stream, row: int, arm: int, quality: float | None = None) -> Lesson:
    """Return the outcome of an arm on a row."""
    score = float(stream.quality[row, arm]) if quality is None else quality
    return Lesson(stream.sights[row], stream.arms[arm], score)


def hierarchical(stream: Stream, priors: Priors) -> Agent:
    """The intended champion: everything shared, Thompson by exact probabilities."""
    return Agent(_model(stream, priors, stream.projection), _thompson(BOLDNESS))


def without_text(stream: Stream, priors: Priors) -> Agent:
    """The same without the embedding: task and surface alone."""
    return Agent(_model(stream, priors, None), _thompson(BOLDNESS))


def linucb(stream: Stream, priors: Priors) -> Agent:
    """A ridge per arm on the embedding's components, optimistic, never random."""
    return Agent(LinUcb(stream.projection, None, priors), Exploration("off"), OPTIMISM)


def no_context(stream: Stream, priors: Priors) -> Agent:
    """A mean per arm, drawn by Thompson: what an A/B test grown up would do."""
    nothing = Projection(np.zeros((stream.projection.matrix.shape[0], 0)), np.zeros(0))
    return Agent(LinUcb(nothing, None, priors), _thompson(1.0))


AGENTS: dict[str, Make] = {
    "hierarchical": hierarchical,
    "hierarchical, no text": without_text,
    "linucb": linucb,
    "thompson, no context": no_context,
}


def _thompson(boldness: float) -> Exploration:
    return Exploration("thompson", boldness=boldness)


def _model(stream: Stream, priors: Priors, projection: Projection | None) -> Hierarchical:
    sight = stream.sights[0]
    shape = Shape(len(sight.tasks), len(sight.embedding), len(sight.features))
    return Hierarchical(shape, None, priors, projection)


def usual_tasks(stream: Stream) -> Vector:
    """Return how the requests are spread over the tasks, (T,)."""
    return np.mean([sight.tasks for sight in stream.sights], axis=0)
