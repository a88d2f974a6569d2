"""The challengers of what was learned: how they stand, and a step from outside a server."""

import asyncio
import math
from functools import partial
from pathlib import Path

from msgspec import Struct

from sophia.adapters.clock import SystemClock
from sophia.adapters.store.snapshots import SnapshotFolder
from sophia.adapters.telemetry.prometheus import PrometheusSink
from sophia.compose.learning import (
    FOLDER,
    Learner,
    fresh_live,
    history_of,
    keeping_of,
    read_plan,
    restored,
)
from sophia.config import Learning
from sophia.core.ports import Store
from sophia.jobs.challenge import ChallengeLearned
from sophia.jobs.keep import KeepLearned
from sophia.learning.challenge import Challenge, Pace, lessons_until
from sophia.learning.lessons import catch_up
from sophia.learning.live import Live
from sophia.learning.promotion import Transition, share
from sophia.learning.snapshots import current


class Standing(Struct, frozen=True):
    """How a tenant's challenge stands.

    Attributes:
        tenant: the key, "" where all keys learn together.
        share: of the learned policy's requests, what the challenger decides.
        low, high: bounds of its gain at the last look, None before one that could tell.
        refused: why the last look could not tell, "" when it could.
        lessons_left: until the next step, None when live scores alone decide.
        ours, theirs: live scores of the stage: how many, and their mean.
        history: the steps it took, with their reasons.
    """

    tenant: str
    stage: str
    challenger: str
    incumbent: str
    share: float
    looks: int
    low: float | None
    high: float | None
    refused: str
    lessons_left: int | None
    ours: tuple[int, float]
    theirs: tuple[int, float]
    history: tuple[Transition, ...]


async def standings(settings: Learning, data: Path, store: Store) -> list[Standing]:
    """Return how all challenges stand by now, every lesson of the ledger counted.

    Raises:
        BrokenSnapshot: what is in service cannot be read.
        LookupError: the ledger is not whole.
    """
    id = current(history_of(data))
    if id is None:
        return []
    live, _ = restored(settings, data, id)
    await catch_up(live, store, read_plan)
    return _standings(live)


async def challenge_now(settings: Learning, data: Path, store: Store) -> list[Standing]:
    """Take the steps that are due, and return how all challenges stand then.

    A running server takes them up within seconds. Raises as `standings` does.
    """
    if current(history_of(data)) is None:
        return []
    fresh = partial(fresh_live, settings)
    live, clock = fresh(), SystemClock()
    keeper = KeepLearned(
        live,
        SnapshotFolder(data / FOLDER),
        clock,
        asyncio.Lock(),
        list,
        fresh,
        partial(catch_up, store=store, read=read_plan),
        keeping_of(settings),
    )
    await keeper.begin()
    await ChallengeLearned(live, store, read_plan, keeper.rule, clock)()
    return _standings(live)


def watch_challengers(metrics: PrometheusSink, learner: Learner) -> None:
    """Export for how many keys a challenger decides some of the requests, or all."""
    held = learner.insight.live.challengers

    def serving() -> float:
        return float(sum(share(one.contest, held.gate) > 0.0 for one in held.all.values()))

    metrics.gauge(
        "sophia_challengers_serving",
        "Keys for which a challenger of the learned policy decides some requests, or all.",
        serving,
    )


def _standings(live: Live) -> list[Standing]:
    return [_standing(live, tenant, one) for tenant, one in live.challengers.all.items()]


def _standing(live: Live, tenant: str, one: Challenge) -> Standing:
    contest, last = one.contest, one.last
    left = lessons_until(one, live.stand(tenant).lessons, Pace())
    told = last is not None and math.isfinite(last.low)
    gain = None if last is None else last.trial.gain
    return Standing(
        tenant,
        contest.stage,
        contest.challenger,
        contest.incumbent,
        share(contest, live.challengers.gate),
        contest.looks,
        last.low if told and last is not None else None,
        last.high if told and last is not None else None,
        getattr(gain, "reason", ""),
        int(left) if math.isfinite(left) else None,
        (contest.ours.count, contest.ours.mean),
        (contest.theirs.count, contest.theirs.mean),
        contest.history,
    )
