"""Probe a new model beside known ones, and believe what came of it from the next snapshot on."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

import msgspec
import numpy as np

from sophia.adapters.clock import SystemClock
from sophia.adapters.coordinator import LocalCoordinator
from sophia.adapters.store.snapshots import SnapshotFolder
from sophia.adapters.store.sqlite import SqliteStore
from sophia.catalogue.model import Model
from sophia.compose import data_folder, limits_of, open_store
from sophia.compose.learning import (
    FOLDER,
    first_steps,
    history_of,
    keeping_of,
    pace_in,
    read_plan,
    restored,
    task_kinds,
)
from sophia.compose.listing import catalogue_of, knowledge_from
from sophia.compose.places import by_model, places_of, upstream_of, wants_sandbox
from sophia.compose.priors import shelf_of, shipped
from sophia.compose.sandbox import SandboxProcess
from sophia.config import ConfigError, Settings
from sophia.core.errors import SophiaError
from sophia.core.events import Settled
from sophia.core.ids import Ids
from sophia.core.money import format_usd
from sophia.core.ports import Upstream
from sophia.jobs.keep import POLICY, Overtaken, into_service
from sophia.learning.attempts import answers
from sophia.learning.lessons import catch_up
from sophia.learning.live import Live
from sophia.learning.probed import Concluded, Kinds, conclude, is_judged
from sophia.learning.probes import Probe, read_probes
from sophia.learning.probing import Pairs, pairs_of
from sophia.learning.snapshots import Snapshot, Stint, current
from sophia.serving.desk import Desk
from sophia.serving.knowledge import Knowledge, Upstreams
from sophia.serving.probe import PURSE, Errand, Marked, ask, errands
from sophia.serving.reconcile import Reconciler
from sophia.serving.tab import Books, Payer
from sophia.tenants.budget import day_window

_KNOWN = 2


class NotProbed(Exception):
    """The model cannot be probed, or need not be; the message says why, and what was spent."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Which model is to be probed beside which, for how many nano-dollars at the most."""

    model: str
    against: Sequence[str]
    limit_nano: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Who is asked how much, and what that costs in nano-dollars: as expected, and at the most."""

    model: str
    known: Sequence[str]
    questions: int
    expected_nano: int
    most_nano: int


@dataclass(frozen=True, slots=True)
class Probed:
    """What came of it; `snapshot` is None when nothing changed."""

    estimate: Estimate
    kinds: Sequence[str]
    marks: Sequence[Marked]
    pairs: Mapping[str, Pairs]
    concluded: Concluded
    spent_nano: int
    snapshot: str | None


@dataclass(slots=True)
class _Stage:
    """The parts that probing needs, without a server; `events` are the settled requests."""

    settings: Settings
    data: Path
    store: SqliteStore
    knowledge: Knowledge
    desk: Desk
    events: "_Events"

    async def live(self) -> Live:
        """Return what was learned until now, with all models of the pool."""
        learning, pool = self.settings.learning, self.knowledge.pool
        id = current(history_of(self.data))
        live, _ = first_steps(learning, lambda model: pace_in(pool, model), shelf_of(self.data))
        if id is not None:
            live.adopt(restored(learning, self.data, id)[0])
        await catch_up(live, self.store, read_plan)
        return live


@dataclass(slots=True)
class _Events:
    seen: list[Settled] = field(default_factory=list)

    def emit(self, event: Settled) -> None:
        """Keep it."""
        self.seen.append(event)


@cache
def probes() -> tuple[Probe, ...]:
    """Return the questions that new models are probed with."""
    found = files("sophia.routing").joinpath("data", "probes.yaml")
    return read_probes(found.read_text("utf-8"))


def work() -> Kinds:
    """Return the kinds of work of the priors, and how the tasks are spread over them."""
    names = shipped().kinds
    place = {kind: at for at, kind in enumerate(names)}
    weights = np.zeros((len(task_kinds()), len(names)))
    for row, kinds in enumerate(task_kinds()):
        weights[row, [place[kind] for kind in kinds if kind in place] or slice(None)] = 1.0
    return Kinds(names, weights / weights.sum(axis=1, keepdims=True))


async def probe(
    settings: Settings,
    wish: Wish,
    agree: Callable[[Estimate], None],
    hear: Callable[[Marked], None],
    environ: Mapping[str, str] = os.environ,
) -> Probed:
    """Ask the pack, learn from the pairs and put the result into service.

    Args:
        settings: where models are asked, and where the ledger is.
        wish: what is to be probed.
        agree: is told what it will cost before anything is asked.
        hear: is told of each answer's mark.
        environ: holds keys and addresses.

    Raises:
        NotProbed: a model is not known, cannot be asked, has outcomes already, or it would cost
            too much.
        ConfigError: the settings cannot be used.
        BrokenSnapshot: what was learned cannot be read.
    """
    async with AsyncExitStack() as closing:
        stage = await _open(settings, environ, closing)
        live = await stage.live()
        model, known = _models(stage.knowledge, live, wish)
        ids = Ids(lambda: time.time_ns() // 1_000_000)
        window = day_window(stage.desk.books.clock.wall())
        try:
            made = errands(stage.desk, [model, *known], probes(), ids, window)
        except SophiaError as error:
            raise NotProbed(error.message) from error
        estimate = _estimate(model, known, made)
        if estimate.expected_nano > wish.limit_nano:
            raise NotProbed(
                f"It would cost about {format_usd(estimate.expected_nano)}, more than the limit of "
                f"{format_usd(wish.limit_nano)}. Raise --limit-usd or ask cheaper models."
            )
        agree(estimate)
        payer = _payer(stage.desk, window, wish.limit_nano)
        marks = await ask(stage.desk, payer, made, hear)
        return await _conclude(stage, estimate, marks)


async def _open(
    settings: Settings, environ: Mapping[str, str], closing: AsyncExitStack
) -> _Stage:
    data = data_folder(settings)
    store = open_store(settings)
    closing.push_async_callback(store.close)
    sandbox = None
    if wants_sandbox(settings, environ):
        sandbox = await SandboxProcess.start(settings)
        closing.push_async_callback(sandbox.close)
    places = places_of(settings, environ, sandbox.base_url if sandbox else None)
    built = {}
    for place in places:
        built[place.name] = upstream_of(place, environ)
        closing.push_async_callback(built[place.name].close)
    default: Upstream | None = next((built[one.name] for one in places if not one.models), None)
    if default is None:
        raise ConfigError("`upstreams`: one of them must serve the catalogue, so have no `models`")
    reconciler = Reconciler()
    closing.push_async_callback(reconciler.close)
    clock, events = SystemClock(), _Events()
    spends = await store.spends(day_window(clock.wall()))
    books = Books(LocalCoordinator(spends, await store.open_holds()), store, clock)
    knowledge = knowledge_from(settings, catalogue_of(settings))
    upstreams = Upstreams(default, by_model(places, built))
    encode = msgspec.json.Encoder().encode
    desk = Desk(knowledge, upstreams, books, limits_of(settings), reconciler, encode, (events,))
    return _Stage(settings, data, store, knowledge, desk, events)


def _models(knowledge: Knowledge, live: Live, wish: Wish) -> tuple[Model, list[Model]]:
    """Return the model to be probed and those beside it, all of them known to `live`."""
    model = _found(knowledge, wish.model)
    pool = [seat.id for seat in knowledge.pool.seats]
    live.know([*pool, model.id])
    if is_judged(live, model.id):
        raise NotProbed(
            f"{model.id} was judged by its outcomes already, which say more than probes could."
        )
    named = [_found(knowledge, name) for name in wish.against]
    if not named:
        named = [_found(knowledge, name) for name in _surest(live, pool, model.id)]
    known = [one for one in named if one.id != model.id]
    if not known:
        raise NotProbed("There is no known model to compare with; name one with --against.")
    live.know([*pool, model.id, *(one.id for one in known)])
    return model, known


def _surest(live: Live, pool: Sequence[str], model: str) -> list[str]:
    """Return the models of the pool whose quality is known best."""
    others = [name for name in pool if name != model]
    doubt = {name: float(np.mean(live.unprobed(name).sd)) for name in others}
    return sorted(others, key=lambda name: (doubt[name], name))[:_KNOWN]


def _found(knowledge: Knowledge, name: str) -> Model:
    found = knowledge.find(name)
    if found is None:
        near = ", ".join(knowledge.catalogue.nearest(name))
        raise NotProbed(f"There is no model {name!r}." + (f" Did you mean {near}?" if near else ""))
    return found


def _estimate(model: Model, known: Sequence[Model], made: Sequence[Errand]) -> Estimate:
    return Estimate(
        model.id,
        tuple(one.id for one in known),
        len(made),
        sum(errand.expected_nano for errand in made),
        sum(errand.held_nano for errand in made),
    )


def _payer(desk: Desk, window: str, limit: int) -> Payer:
    """Return the purse of probing, with `limit` left in it."""
    spent, held = desk.books.coordinator.standing(PURSE, window)
    return Payer(PURSE, spent + held + limit, window)


async def _conclude(stage: _Stage, estimate: Estimate, marks: Sequence[Marked]) -> Probed:
    kinds, spent = work(), sum(one.cost_nano for one in marks)
    pairs = _pairs(estimate, marks)
    while True:
        # A server that runs beside may have learned meanwhile: what it put into service is built
        # on, once more where it did so again; the answers were paid for.
        live = await stage.live()
        pool = [seat.id for seat in stage.knowledge.pool.seats]
        live.know([*pool, estimate.model, *estimate.known])
        if is_judged(live, estimate.model):
            raise NotProbed(
                f"Meanwhile {estimate.model} was judged by its outcomes; nothing changed. "
                f"It cost {format_usd(spent)}."
            )
        concluded = conclude(live, estimate.model, estimate.known, pairs, kinds)
        id = None
        with suppress(Overtaken):
            if concluded.after is not None:
                id = _into_service(stage, live, estimate.model)
            return Probed(estimate, kinds.names, marks, pairs, concluded, spent, id)


def _pairs(estimate: Estimate, marks: Sequence[Marked]) -> dict[str, Pairs]:
    given: dict[str, dict[str, float]] = {name: {} for name in (estimate.model, *estimate.known)}
    for one in marks:
        if one.right is not None:
            given[one.model][one.probe] = float(one.right)
    return pairs_of(
        given[estimate.model],
        [given[name] for name in estimate.known],
        {one.id: one.kind for one in probes()},
    )


def _into_service(stage: _Stage, live: Live, model: str) -> str:
    for event in stage.events.seen:
        for answer in answers(event, None):
            live.answered(answer)
    at = int(stage.desk.books.clock.wall() * 1000)
    made = Snapshot(POLICY, live.snapshot(), at, live.base or None)
    stint = Stint("", at, f"probed {model}")
    keeping = keeping_of(stage.settings.learning)
    return into_service(SnapshotFolder(stage.data / FOLDER), made, stint, keeping)
