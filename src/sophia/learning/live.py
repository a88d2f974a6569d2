"""The learned policy at work: what it has learned so far, lesson by lesson, and whether it serves.

It begins as an onlooker: the heuristic decides and its outcomes are learned from. After enough of
them the learned policy serves, a share stays with the heuristic for comparison, and when it is
shown to be worse it steps back by itself. Everything it knows follows from a snapshot and the
lessons since then in their order, so any state it ever was in can be made again.
"""

from collections.abc import Callable, Iterable

import numpy as np
from msgspec import Struct, msgpack
from msgspec.structs import replace

from sophia.learning.promotion import GATE, Contest, Gate, Side, observe, share
from sophia.routing.arms import MODES, arm_of, model_of
from sophia.routing.drift import Alarm, Alertness, Watch, evidence, watch
from sophia.routing.learned import Habits, Learned
from sophia.routing.nouns import Evidence
from sophia.routing.policies.choose import Exploration
from sophia.routing.policies.hierarchical import Hierarchical
from sophia.routing.policies.policy import Lesson, Prior, Vector
from sophia.routing.trial import Request, Terms, Trial, begin, give, is_over

HEURISTIC = "heuristic"
_LENGTH_MEMORY = 0.05
_KEPT_ALARMS = 100


class Settings(Struct, frozen=True):
    """When the learned policy serves, and how freely.

    Attributes:
        after: lessons before it serves for the first time.
        again: lessons before it may serve once more after it stepped back.
        exploration: of its choices.
        terms: of a new arm's trial.
        alertness: to arms that become worse.
        gate: holds the share that stays with the heuristic, and what makes it step back.
    """

    after: int = 100
    again: int = 500
    exploration: Exploration = Exploration("thompson", boldness=0.25, floor=0.01, extra=1.0)
    terms: Terms = Terms()
    alertness: Alertness = Alertness()
    gate: Gate = GATE


class Taught(Struct, frozen=True):
    """A lesson, who decided the request (`policy`), and when, in milliseconds since 1970."""

    lesson: Lesson
    policy: str
    at_ms: int


class _Saved(Struct, frozen=True):
    learner: bytes
    lessons: int
    watch: list[tuple[str, int | None, float]]
    contest: Contest | None
    waits_until: int
    trials: list[Trial]
    habits: dict[str, Habits]
    tasks: list[float]


class Live:
    """The policy that learns while it serves; one lesson at a time.

    Args:
        learner: in the state of snapshot `base`.
        base: the snapshot's id.
        prior_of: what is believed of an arm that was never seen.
        settings: of serving and exploring.
    """

    def __init__(
        self,
        learner: Hierarchical,
        base: str,
        prior_of: Callable[[str], Prior],
        settings: Settings | None = None,
    ) -> None:
        self.learner = learner
        self.alarms: list[Alarm] = []
        self.lessons = 0
        self.base = base
        self._prior_of = prior_of
        self._settings = settings or Settings()
        self._watch = Watch()
        self._contest: Contest | None = None
        self._waits_until = self._settings.after
        self._trials: dict[str, Trial] = {}
        self._habits: dict[str, Habits] = {}
        self._tasks = np.zeros(0)

    @property
    def state(self) -> str:
        """The name of what has been learned: the snapshot, and the number of the last lesson."""
        return f"{self.base[:16]}+{self.lessons}"

    @property
    def stage(self) -> str:
        """Where the learned policy stands: "watching", or a stage of its contest."""
        return "watching" if self._contest is None else self._contest.stage

    @property
    def contest(self) -> Contest | None:
        """The contest with the heuristic, once it has begun."""
        return self._contest

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The trials of new arms that are going on."""
        return tuple(self._trials.values())

    def know(self, models: Iterable[str]) -> bool:
        """Get to know the arms of the pool; one that comes later than the first lesson is tried.

        Returns whether there was a new one: then a new snapshot is due, since no lesson says so.
        """
        known = set(self.learner.arms)
        # One mode's arms stay together, which makes rating them quicker.
        named = list(models)
        arms = (arm_of(model, mode) for mode in MODES for model in named)
        fresh = [arm for arm in arms if arm not in known]
        for arm in fresh:
            prior = self._prior_of(arm)
            self.learner.add(arm, prior)
            if self.lessons:
                self._trials[arm] = begin(arm, len(prior.mean))
        return bool(fresh)

    def learned(self, lot: float, *, asked: bool = False) -> Learned | None:
        """Return the policy for a request, or None when it is not its turn.

        `lot` is uniform in [0, 1); with `asked` the caller wants the learned policy by name.
        """
        contest = self._contest
        served = 0.0 if contest is None else share(contest, self._settings.gate)
        if lot >= served and not asked:
            return None
        total = float(self._tasks.sum())
        return Learned(
            self.learner,
            self.state,
            self._settings.exploration,
            self._habits,
            self.trials,
            self._tasks / total if total else None,
            self._settings.terms,
        )

    def dealt(self, tasks: Vector, arm: str, made: Evidence) -> None:
        """Note a decision: trials are charged, and the tasks of requests are counted.

        Args:
            tasks: shape (T,), the request's posterior.
            arm: the model that is asked.
            made: what a learned policy decided on.
        """
        cost = {one.arm: one.cost_nano for one in made.rated}
        best = max(made.rated, key=lambda one: one.utility).arm
        if len(self._tasks) != len(tasks):
            self._tasks = np.zeros(len(tasks))
        self._tasks += tasks
        shares = self._tasks / self._tasks.sum()
        for name, trial in list(self._trials.items()):
            model = model_of(name)
            if model not in cost or name != arm_of(model, made.mode):
                continue
            asked = Request(tasks, shares, cost[model], cost[best])
            given = arm_of(arm, made.mode)
            after = give(trial, asked, given, cost[arm], _forced(made, model))
            if is_over(after, shares, self._settings.terms):
                del self._trials[name]
            else:
                self._trials[name] = after

    def answered(self, arm: str, expected_tokens: int, tokens: int, total_ms: float) -> None:
        """Note how long an answer was and how long it took."""
        if expected_tokens <= 0 or tokens <= 0:
            return
        known = self._habits.get(arm) or Habits()
        length = known.length + _LENGTH_MEMORY * (tokens / expected_tokens - known.length)
        before = known.latency_ms
        latency = total_ms if before is None else before + _LENGTH_MEMORY * (total_ms - before)
        self._habits[arm] = Habits(length, latency)

    def learn(self, taught: Taught) -> None:
        """Take in one lesson: watch for drift, learn, and see whether to serve or step back."""
        lesson = taught.lesson
        self._watch_out(lesson)
        self.learner.learn_one(lesson)
        self.lessons += 1
        self._stand(taught)

    def snapshot(self) -> bytes:
        """Return everything that was learned; the same state gives the same bytes."""
        return msgpack.encode(
            _Saved(
                self.learner.snapshot(),
                self.lessons,
                [
                    (arm, task, total)
                    for (arm, task), total in sorted(self._watch.sums.items(), key=str)
                ],
                self._contest,
                self._waits_until,
                list(self._trials.values()),
                self._habits,
                self._tasks.tolist(),
            )
        )

    def restore(self, saved: bytes, base: str) -> None:
        """Be what `snapshot` wrote down. Raises msgspec.DecodeError when these are other bytes."""
        state = msgpack.decode(saved, type=_Saved)
        self.learner = Hierarchical.restore(state.learner)
        self.base = base
        self.lessons = state.lessons
        self._watch = Watch({(arm, task): total for arm, task, total in state.watch})
        self._contest = state.contest
        self._waits_until = state.waits_until
        self._trials = {trial.arm: trial for trial in state.trials}
        self._habits = dict(state.habits)
        self._tasks = np.array(state.tasks)

    def _watch_out(self, lesson: Lesson) -> None:
        alertness = self._settings.alertness
        if lesson.arm not in self.learner.arms:
            return
        rating = self.learner.rate(lesson.sight, [lesson.arm])
        found = evidence(lesson.quality, float(rating.quality[0]), float(rating.sd[0]), alertness)
        task = int(lesson.sight.tasks.argmax())
        self._watch, alarm = watch(self._watch, lesson.arm, task, found * lesson.weight, alertness)
        if alarm is not None:
            self.alarms = [*self.alarms[-_KEPT_ALARMS:], alarm]
            self.learner.widen(alarm.arm, alarm.task, alertness.doubt)

    def _stand(self, taught: Taught) -> None:
        contest, settings = self._contest, self._settings
        if contest is None or contest.stage == "retired":
            if self.lessons >= self._waits_until:
                defeats = 0 if contest is None else contest.defeats + 1
                self._contest = Contest(
                    self.learner.name, HEURISTIC, taught.at_ms, "champion", defeats
                )
            return
        if taught.policy not in {self.learner.name, HEURISTIC}:
            return
        side: Side = "challenger" if taught.policy == self.learner.name else "incumbent"
        self._contest = observe(contest, side, taught.lesson.quality, taught.at_ms, settings.gate)
        if self._contest.stage == "retired":
            self._waits_until = self.lessons + settings.again * (1 + contest.defeats)
            self._contest = replace(self._contest, defeats=contest.defeats)


def _forced(made: Evidence, arm: str) -> float:
    """Return the part of an arm's propensity that was set aside for its trial."""
    if made.trial is None or made.rated[made.trial[0]].arm != arm:
        return 0.0
    place, probability = made.trial
    return min(probability / max(made.rated[place].propensity, probability), 1.0)
