"""What learning needs at start: eyes for requests, priors for models, and what was kept before."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import IO

import msgspec
from msgspec.structs import replace

from sophia.adapters.store.snapshots import SnapshotFolder
from sophia.compose.priors import shelf_of, shipped
from sophia.config import ConfigError, Learning
from sophia.core.ports import Clock, Store
from sophia.jobs.challenge import ChallengeLearned
from sophia.jobs.keep import POLICY, KeepLearned, into_service
from sophia.jobs.keep_prompts import KeepPrompts
from sophia.learning.lessons import catch_up, last_lesson, lessons_of
from sophia.learning.live import Live
from sophia.learning.priors import Book, prior
from sophia.learning.refit import Refit, refit
from sophia.learning.replay import Replay
from sophia.learning.settings import Settings as LiveSettings
from sophia.learning.silence import counts_of
from sophia.learning.snapshots import (
    BrokenSnapshot,
    History,
    Keeping,
    Snapshot,
    Stint,
    decode,
    decode_history,
    target,
)
from sophia.routing.arms import model_of
from sophia.routing.embedding import Embedding, read_embedding
from sophia.routing.nouns import Plan
from sophia.routing.policies.choose import STILL
from sophia.routing.policies.hierarchical import Hierarchical, Shape
from sophia.routing.policies.policy import Prior
from sophia.routing.pool import Pool
from sophia.routing.tasks import TaskModel, read_tasks
from sophia.routing.taxonomy import Taxonomy, read_taxonomy
from sophia.routing.timing import STRANGER, Pace
from sophia.serving.histories import PROMPTS, TEAM_PROMPTS, Histories
from sophia.serving.insight import Insight
from sophia.serving.pacing import Paces
from sophia.serving.sense import Senses
from sophia.serving.teach import Teacher

log = logging.getLogger("sophia.learning")

FOLDER = "learned"
_LOCK = ".serving"
_OTHER_MODE_DOUBT = 1.5

PaceOf = Callable[[str], Pace]

read_plan = msgspec.json.Decoder(Plan).decode


@dataclass(frozen=True, slots=True)
class Learner:
    """The parts that learn: what looks at requests, what hears feedback, what keeps it all."""

    insight: Insight
    teacher: Teacher
    keeper: KeepLearned
    prompts: KeepPrompts
    challenge: ChallengeLearned
    sole: IO[bytes]

    async def close(self) -> None:
        """Learn what was heard, keep it, and let another Sophia have the folder."""
        try:
            await self.teacher.close()
            await self.keeper.close()
            await self.prompts()
        finally:
            self.sole.close()


async def learner_of(
    settings: Learning, data: Path, store: Store, clock: Clock, pool: Callable[[], Pool]
) -> Learner:
    """Return the learning parts, as far as they had come when they were last kept.

    Raises:
        ConfigError: what was kept cannot be read, and how to go back; or another Sophia serves
            this folder.
    """
    def pace_of(model: str) -> Pace:
        return pace_in(pool(), model)

    book = shelf_of(data)
    book()
    live, senses = first_steps(settings, pace_of, book)
    lock = asyncio.Lock()
    behind = partial(catch_up, store=store, read=read_plan)
    folder = SnapshotFolder(data / FOLDER)
    sole = only_one(data / FOLDER)
    keeper = KeepLearned(
        live,
        folder,
        clock,
        lock,
        lambda: [seat.id for seat in pool().seats],
        partial(fresh_live, settings, pace_of, book),
        behind,
        keeping_of(settings),
    )
    teacher = Teacher(live, store, read_plan, lock)
    try:
        await keeper.begin()
        missed = await teacher.begin(int(clock.wall() * 1000))
    except (BrokenSnapshot, msgspec.DecodeError, LookupError) as error:
        sole.close()
        raise ConfigError(
            f"{data / FOLDER}: {error}. `sophia learn --rollback previous` goes back to what was "
            "known before."
        ) from error
    if missed:
        log.info("learned from %d verdicts that were kept but not learned from before", missed)
    histories = Histories(senses.classes, TEAM_PROMPTS if settings.share_keys else PROMPTS)
    prompts = KeepPrompts(histories, folder)
    prompts.begin()
    paces = Paces() if settings.pace else None
    insight = Insight(live, senses.glance, clock, senses.classes, paces, histories)
    insight.asked = settings.judge.share
    challenge = ChallengeLearned(live, store, read_plan, keeper.rule, clock)
    return Learner(insight, teacher, keeper, prompts, challenge, sole)


def only_one(folder: Path) -> IO[bytes]:
    """Return a lock on the folder, held until it is closed. Raises ConfigError when it is taken."""
    lock = (folder / _LOCK).open("ab")
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass  # Windows has no such lock; there, nobody checks.
    except OSError as error:
        lock.close()
        raise ConfigError(
            f"{folder.parent} is served by another Sophia, whose budgets and lessons would get "
            "mixed up with these: choose another `data_dir`, or stop that one."
        ) from error
    return lock


def replay_of(settings: Learning, data: Path, store: Store) -> Replay:
    """Return what makes decisions of the ledger again."""
    folder = SnapshotFolder(data / FOLDER)
    fresh = partial(fresh_live, settings)
    gone = [step.id for step in decode_history(folder.history()) if step.gone]
    return Replay(store, folder.ids(), folder.load, fresh, read_plan, gone)


def first_steps(
    settings: Learning | None = None,
    pace_of: PaceOf = lambda _: STRANGER,
    book: Callable[[], Book] = shipped,
) -> tuple[Live, Senses]:
    """Return a live policy that knows no arm yet, and what looks at requests for it.

    `book` gives the priors of arms whenever one is met.
    """
    settings = settings or Learning()
    coarse = {name: kind.type for name, kind in _taxonomy().items()}
    senses = Senses(_embedding(), _tasks(), coarse, shared=settings.share_keys)
    return fresh_live(settings, pace_of, book), senses


def live_settings(settings: Learning) -> LiveSettings:
    """Return how the learned policy behaves by these settings."""
    usual = LiveSettings()
    exploration = usual.exploration if settings.explore else STILL
    return LiveSettings(after=settings.after, exploration=exploration)


def keeping_of(settings: Learning) -> Keeping:
    """Return how long snapshots are kept by these settings."""
    return Keeping(settings.keep_days, settings.keep_snapshots)


@cache
def _embedding() -> Embedding:
    return read_embedding(_blob("embedding.npz"))


@cache
def _tasks() -> TaskModel:
    return read_tasks(_blob("tasks.npz"))


def task_classes() -> tuple[str, ...]:
    """Return the names of the tasks that requests are told apart by."""
    return _tasks().classes


def task_kinds() -> list[tuple[str, ...]]:
    """Return for each of these tasks the kinds of work that it is like."""
    known = _taxonomy()
    return [known[name].kinds if name in known else () for name in task_classes()]


@cache
def _taxonomy() -> Taxonomy:
    return read_taxonomy(_blob("taxonomy.yaml").decode())


def _blob(name: str) -> bytes:
    return files("sophia.routing").joinpath("data", name).read_bytes()


def history_of(data: Path) -> History:
    """Return which snapshots were in service when. Raises BrokenSnapshot."""
    return decode_history(SnapshotFolder(data / FOLDER).history())


def lessons_in(data: Path, id: str) -> int | None:
    """Return the number of the last lesson that a snapshot holds, None when it cannot be read."""
    try:
        live, _ = restored(Learning(), data, id)
    except BrokenSnapshot:
        return None
    return live.lessons


async def roll_back(
    settings: Learning, data: Path, store: Store, to: str | None, at_ms: int
) -> str:
    """Put what an earlier snapshot knew into service again; return the id of its copy.

    The copy stands behind all lessons there are, so that what is undone is not learned again.

    Raises:
        UnknownSnapshot: none, or more than one, begins with `to`; or there was none before.
        BrokenSnapshot: it cannot be read.
    """
    folder = SnapshotFolder(data / FOLDER)
    goal = target(decode_history(folder.history()), to)
    live, _ = restored(settings, data, goal.id)
    live.lessons = await last_lesson(store, live.lessons)
    live.shared = settings.share_keys
    made = Snapshot(POLICY, live.snapshot(), at_ms, goal.id)
    origin = goal.of or goal.id
    stint = Stint("", at_ms, f"rolled back to {origin[:16]}", of=origin)
    return into_service(folder, made, stint, keeping_of(settings))


def restored(settings: Learning, data: Path, id: str) -> tuple[Live, Snapshot]:
    """Return what a snapshot knew, and the snapshot itself. Raises BrokenSnapshot."""
    blob = SnapshotFolder(data / FOLDER).load(id)
    if blob is None:
        raise BrokenSnapshot(f"the snapshot {id[:16]} is not there")
    made = decode(blob, id)
    live = fresh_live(settings)
    try:
        live.restore(made.state, id)
    except msgspec.DecodeError as error:
        raise BrokenSnapshot(f"the snapshot {id[:16]} holds another state: {error}") from error
    return live, made


async def refitted(
    settings: Learning, data: Path, store: Store, at_ms: int
) -> tuple[Refit, str | None]:
    """Learn anew from all lessons; return the judgement, and the new snapshot's id if it serves.

    Raises:
        ValueError: there is too little to learn from, or nothing that all keys share.
        Overtaken: something else was put into service meanwhile.
        LookupError: the ledger is not whole.
    """
    folder = SnapshotFolder(data / FOLDER)
    history = decode_history(folder.history())
    if not settings.share_keys:
        raise ValueError(
            "every key learns by itself, lesson by lesson; there is nothing to learn anew unless "
            "`learning.share_keys` is set"
        )
    if not history:
        raise ValueError("nothing was learned yet: `sophia serve` begins")
    id = history[-1].id
    live, _ = restored(settings, data, id)
    fresh = fresh_live(settings, book=shelf_of(data))
    fresh.probed = dict(live.probed)
    fresh.know({model_of(arm) for arm in live.learner.arms})
    taught = await lessons_of(store, read_plan, shared=settings.share_keys)
    counts = await counts_of(store, read_plan)
    # A sign is there or not whoever speaks: it stands for itself.
    stands = [
        counts.by_decision.get(row.decision_id, 1.0) if one.word else 1.0 for row, one in taught
    ]
    judged, learner = refit(fresh, [one for _, one in taught], stands)
    judged = replace(judged, means=counts.means)
    if not judged.better:
        return judged, None
    live.learner, live.lessons = learner, taught[-1][0].number
    live.shared = settings.share_keys
    # What was missed before is not what is missed now.
    live.challengers.all = {}
    metrics = {"squared_error": judged.after}
    made = Snapshot(POLICY, live.snapshot(), at_ms, id, (0, at_ms), metrics)
    stint = Stint("", at_ms, "learned anew")
    return judged, into_service(folder, made, stint, keeping_of(settings))


def fresh_live(
    settings: Learning,
    pace_of: PaceOf = lambda _: STRANGER,
    book: Callable[[], Book] = shipped,
) -> Live:
    """Return a live policy that has learned nothing and knows no arm."""
    classes, kinds = task_classes(), task_kinds()

    def prior_of(arm: str) -> Prior:
        told = prior(book(), model_of(arm), kinds)
        # No benchmark of ours tells tools or reasoning apart: the model is believed, less surely.
        doubt = 1.0 if arm == model_of(arm) else _OTHER_MODE_DOUBT
        return Prior(told.mean, told.sd * doubt)

    learner = Hierarchical(Shape(len(classes), 0, 0))
    return Live(
        learner,
        "",
        prior_of,
        live_settings(settings),
        shared=settings.share_keys,
        pace_of=pace_of,
    )


def pace_in(pool: Pool, model: str) -> Pace:
    """Return how fast a model is believed to be by its profile."""
    seat = pool.by_id.get(model)
    profile = None if seat is None else seat.model.profile
    if profile is None:
        return STRANGER
    return Pace(float(profile.latency_ms), 1000.0 / profile.tokens_per_second)
