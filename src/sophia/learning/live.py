"""The learned policy at work: what it has learned so far, lesson by lesson, and whether it serves.

It begins as an onlooker: the heuristic decides and its outcomes are learned from. After enough of
them the learned policy serves, a share stays with the heuristic for comparison, and when it is
shown to be worse it steps back by itself. Everything it knows follows from a snapshot and the
lessons since then in their order, so any state it ever was in can be made again.
"""

import logging
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from msgspec import Struct, msgpack
from msgspec.structs import replace

from sophia.learning.challenge import Challenge, Hearing
from sophia.learning.challengers import Challengers
from sophia.learning.credence import NOTHING, Credence
from sophia.learning.promotion import Contest, Side, observe, share
from sophia.learning.settings import Settings
from sophia.learning.taught import Taught
from sophia.learning.watches import SavedWatch, Watches
from sophia.routing.arms import CALLS, arm_of, model_of, relatives, usual
from sophia.routing.drift import evidence
from sophia.routing.evidence import state_of
from sophia.routing.forecast import Answer
from sophia.routing.habits import Habits, newer
from sophia.routing.habits import Saved as SavedHabits
from sophia.routing.learned import Learned
from sophia.routing.nouns import Evidence
from sophia.routing.policies.hierarchical import Hierarchical
from sophia.routing.policies.policy import Lesson, Prior, Vector
from sophia.routing.policies.residual import Residual
from sophia.routing.timing import STRANGER, Pace
from sophia.routing.trial import Request, Trial, begin, forced, give, is_over

log = logging.getLogger("sophia.learning")

HEURISTIC = "heuristic"
_COMPARED = frozenset({HEURISTIC, Hierarchical.name, Residual.name})
_KEPT_STANDS = 10_000
_Believed = tuple[list[float], list[float]]


class Stand(Struct, frozen=True):
    """Where the learned policy stands for one tenant: its lessons, and its contest once begun."""

    waits_until: int
    lessons: int = 0
    contest: Contest | None = None


class _Saved(Struct, frozen=True):
    learner: bytes
    lessons: int
    watch: list[SavedWatch]
    stands: dict[str, Stand]
    trials: list[Trial]
    tasks: list[float]
    shared: bool = False
    answers: SavedHabits | None = None
    credences: dict[str, Credence] = {}
    probed: dict[str, _Believed] = {}
    challenges: dict[str, Challenge] = {}


class Live:
    """The policy that learns while it serves; one lesson at a time.

    Args:
        learner: in the state of snapshot `base`.
        base: the snapshot's id.
        prior_of: what is believed of an arm that was never seen.
        settings: of serving and exploring.
        shared: whether all keys learn together; a part of what is kept, like the rest.
        pace_of: what is believed of a model's speed before it was seen.
    """

    def __init__(  # noqa: PLR0913 - each is one thing that is believed or wanted
        self,
        learner: Hierarchical,
        base: str,
        prior_of: Callable[[str], Prior],
        settings: Settings | None = None,
        *,
        shared: bool = False,
        pace_of: Callable[[str], Pace] = lambda _: STRANGER,
    ) -> None:
        self.learner = learner
        self.shared = shared
        self.lessons = 0
        self.answers = 0
        self.habits = Habits(learner.tasks)
        self.probed: dict[str, _Believed] = {}
        self.base = base
        self.unprobed = prior_of
        self._settings = settings or Settings()
        self._known = frozenset(learner.arms)
        self._watches = Watches()
        self._stands: dict[str, Stand] = {}
        self._trials: dict[str, Trial] = {}
        self._pace_of = pace_of
        self._paces: dict[str, Pace] = {}
        self._tasks = np.zeros(0)
        self.credences: dict[str, Credence] = {}
        self.challengers = Challengers(self._settings.challenge)

    @property
    def state(self) -> str:
        """The name of what has been learned: the snapshot, and the number of the last lesson."""
        return f"{self.base[:16]}+{self.lessons}"

    @property
    def tenants(self) -> tuple[str, ...]:
        """Whose outcomes were learned from, the most recently heard last."""
        return tuple(self._stands)

    @property
    def heard(self) -> bool:
        """Whether anybody ever judged an answer."""
        return bool(self._stands)

    def credence(self, key_id: str) -> Credence:
        """Return how far channels and judges are believed when they speak of a key's answers."""
        return self.credences.get("" if self.shared else key_id, NOTHING)

    def stand(self, tenant: str = "") -> Stand:
        """Return where the learned policy stands for a tenant."""
        return self._stands.get(tenant) or Stand(self._settings.after)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The trials of new arms that are going on."""
        return tuple(self._trials.values())

    def know(self, models: Iterable[str]) -> bool:
        """Get to know the arms of the pool; one that comes later than the first lesson is tried.

        Returns whether there was a new one: then a new snapshot is due, since no lesson says so.
        """
        named = list(models)
        self.believe(named)
        fresh = self.strangers(named)
        for arm in fresh:
            prior = self.prior_of(arm)
            self.learner.add(arm, prior)
            if self.lessons:
                self._trials[arm] = begin(arm, len(prior.mean))
        self._known = frozenset(self.learner.arms)
        return bool(fresh)

    def prior_of(self, arm: str) -> Prior:
        """Return what is believed of an arm before any outcome, by probes if it was probed."""
        mean, sd = self.probed.get(arm, ([], []))
        return Prior(np.array(mean), np.array(sd)) if mean else self.unprobed(arm)

    def probe(self, arm: str, prior: Prior) -> None:
        """Believe what probes say of a known arm. Raises ValueError when it has outcomes."""
        self.learner.believe(arm, prior)
        self.probed[arm] = (prior.mean.tolist(), prior.sd.tolist())

    def believe(self, models: Iterable[str]) -> None:
        """Believe of the pool's models what is said of their speed, where none was seen yet."""
        speeds = {model: self._pace_of(model) for model in models}
        paces = {arm_of(model, call): speeds[model] for call in CALLS for model in speeds}
        if paces != self._paces:
            self._paces = paces
            self.habits.know(paces)

    def strangers(self, models: Iterable[str]) -> list[str]:
        """Return the arms of the pool that are not known yet."""
        # One call's arms stay together, which makes rating them quicker.
        named = list(models)
        arms = (arm_of(model, call) for call in CALLS for model in named)
        return [arm for arm in arms if arm not in self._known]

    def learned(
        self, lot: float, tenant: str = "", *, asked: bool = False, turn: float = 0.5
    ) -> Learned | None:
        """Return the policy for a tenant's request, or None when it is not its turn.

        `lot` is uniform in [0, 1); with `asked` the caller wants the learned policy by name.
        `turn`, another such lot, decides between it and its challenger.
        """
        contest = self.stand(tenant).contest
        served = 0.0 if contest is None else share(contest, self._settings.gate)
        if lot >= served and not asked:
            return None
        total = float(self._tasks.sum())
        name = self.challengers.drawn(tenant, turn)
        return Learned(
            self.challengers.policy(self.learner, tenant, name),
            state_of(self.state, name),
            self._settings.exploration,
            self.habits,
            self.trials,
            self._tasks / total if total else None,
            self._settings.terms,
            self.challengers.rival(tenant, name),
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
            if model not in cost or name != usual(arm_of(model, made.mode)):
                continue
            asked = Request(tasks, shares, cost[model], cost[best])
            given = usual(arm_of(arm, made.mode))
            after = give(trial, asked, given, cost[arm], forced(made, model))
            if is_over(after, shares, self._settings.terms):
                del self._trials[name]
            else:
                self._trials[name] = after

    def answered(self, answer: Answer) -> None:
        """Note how long an answer was and how long it took."""
        self.answers += 1
        self.habits.answered(answer)

    def learn(self, taught: Taught) -> None:
        """Take in one lesson: watch for drift, learn, and see whether to serve or step back.

        One about an arm that is not of the pool teaches nothing, so that nobody fills the memory by
        asking for many models.
        """
        self.lessons += 1
        lesson = taught.lesson
        if any(arm in self._known for arm in (lesson.arm, *relatives(lesson.arm))):
            self._watch_out(lesson)
            self.learner.learn_one(lesson)
            if taught.word:
                self._stand(taught)
                self._hear(taught)

    def snapshot(
        self, challenges: Mapping[str, Challenge] | None = None, learner: bytes | None = None
    ) -> bytes:
        """Return everything that was learned; the same state gives the same bytes.

        With `challenges` it is the state that there would be with these; `learner` is what the
        policy's own snapshot gave, where that was taken already.
        """
        written = self.learner.snapshot() if learner is None else learner
        return msgpack.encode(self.saved(written, challenges))

    def adopt(self, other: "Live") -> None:
        """Be what `other` is, at once, which is of no use any more then.

        How arms answer is not forgotten by going back.
        """
        habits = newer(self.habits.saved(), other.habits.saved())
        self._become(other.saved(b""), other.learner, other.base)
        self.habits = Habits.of(habits)

    def restore(self, saved: bytes, base: str) -> None:
        """Be what `snapshot` wrote down. Raises msgspec.DecodeError when these are other bytes."""
        state = msgpack.decode(saved, type=_Saved)
        self._become(state, Hierarchical.restore(state.learner), base)

    def saved(self, learner: bytes, challenges: Mapping[str, Challenge] | None = None) -> _Saved:
        """Return the parts of what `snapshot` writes, whose arguments these are."""
        return _Saved(
            learner,
            self.lessons,
            self._watches.saved(),
            self._stands,
            list(self._trials.values()),
            self._tasks.tolist(),
            self.shared,
            self.habits.saved(),
            self.credences,
            self.probed,
            dict(self.challengers.all if challenges is None else challenges),
        )

    def _become(self, state: _Saved, learner: Hierarchical, base: str) -> None:
        self.learner = learner
        self._known = frozenset(learner.arms)
        self.base = base
        self.lessons = state.lessons
        self._watches = Watches(state.watch)
        self._stands = dict(state.stands)
        self._trials = {trial.arm: trial for trial in state.trials}
        self.habits = Habits(learner.tasks)
        if state.answers is not None:
            self.habits = Habits.of(state.answers)
        self._paces = {}
        self.probed = dict(state.probed)
        self._tasks = np.array(state.tasks)
        self.shared = state.shared
        self.credences = dict(state.credences)
        self.challengers.all = state.challenges

    def _watch_out(self, lesson: Lesson) -> None:
        alertness, tenant = self._settings.alertness, lesson.sight.tenant
        rating = self.learner.rate(lesson.sight, [lesson.arm])
        found = evidence(
            lesson.quality, float(rating.quality[0]), float(rating.sd[0]), alertness
        )
        task = int(lesson.sight.tasks.argmax())
        told = found * lesson.weight
        alarm = self._watches.heard(tenant, lesson.arm, task, told, alertness)
        if alarm is not None:
            log.info("%s does worse than it did for %s", lesson.arm, tenant or "everybody")
            self.learner.widen(lesson.arm, alarm.task, alertness.doubt, tenant)

    def _stand(self, taught: Taught) -> None:
        tenant, gate = taught.lesson.sight.tenant, self._settings.gate
        stand = self._stands.pop(tenant, None) or Stand(self._settings.after)
        stand = replace(stand, lessons=stand.lessons + 1)
        contest = stand.contest
        if contest is None or contest.stage == "retired":
            if stand.lessons >= stand.waits_until:
                defeats = 0 if contest is None else contest.defeats + 1
                begun = Contest(self.learner.name, HEURISTIC, taught.at_ms, "champion", defeats)
                stand = replace(stand, contest=begun)
        elif taught.by_lot and taught.policy in _COMPARED:
            side: Side = "incumbent" if taught.policy == HEURISTIC else "challenger"
            after = observe(contest, side, taught.lesson.quality, taught.at_ms, gate)
            stand = replace(stand, contest=after)
            if after.stage == "retired":
                wait = self._settings.again * (1 + contest.defeats)
                stand = replace(stand, waits_until=stand.lessons + wait)
                log.info("the learned policy steps back for %s", tenant or "everybody")
        self._stands[tenant] = stand
        if len(self._stands) > _KEPT_STANDS:
            del self._stands[next(iter(self._stands))]

    def _hear(self, taught: Taught) -> None:
        """Tell the tenant's challenger of a live score: it may step back by it."""
        if taught.by_lot and taught.policy != HEURISTIC:
            tenant, score = taught.lesson.sight.tenant, taught.lesson.quality
            told = Hearing(taught.decided_ms, taught.rated_by, score, taught.at_ms)
            self.challengers.hear(tenant, told, self.stand(tenant).lessons)
