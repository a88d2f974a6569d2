"""Parts that commands and the server share: data folder, ledger, snapshots, catalogue, runtime."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec

from sophia.adapters.clock import SystemClock
from sophia.adapters.leases import LeasedBudgets
from sophia.adapters.store import inspect, report
from sophia.adapters.store.databases.address import StoreAddress
from sophia.adapters.store.databases.database import RowFault
from sophia.adapters.store.journaling import leftovers
from sophia.adapters.store.snapshots import SnapshotFolder
from sophia.adapters.store.store import SqlStore
from sophia.catalogue import refresh
from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.local import build_local_model
from sophia.catalogue.profiles import ModelProfiles
from sophia.compose.keys import ensure_data_folder
from sophia.compose.upstreams import Connections, open_connections
from sophia.config import LEDGER_FILE, PoolSettings, Settings
from sophia.core.calls import Deadlines
from sophia.core.errors import ConfigError, Unavailable
from sophia.core.ids import IdGenerator, extract_timestamp_ms
from sophia.core.money import nano_from_usd
from sophia.core.ports import Clock, Sink, Store
from sophia.jobs.recover_attempts import start_worker
from sophia.jobs.timer import run_every
from sophia.jobs.worker_presence import BEAT_SECONDS, WorkerPresence
from sophia.learning.online.archive import PolicyArchive
from sophia.learning.online.build import build_policy
from sophia.learning.online.packaged import load_taxonomy
from sophia.learning.online.policy import OnlineSettings
from sophia.learning.priors.book import build_priors_reader
from sophia.learning.priors.task_quality import build_quality_prior
from sophia.learning.snapshots import SnapshotRetention
from sophia.ledger.unknown import UnknownAttempts
from sophia.routing.bandit.performance.latency import DEFAULT_SPEED, SpeedPrior
from sophia.routing.types import NO_EXPLORATION
from sophia.serving.admission import Admission
from sophia.serving.attempts.reconcile import Reconciler
from sophia.serving.attempts.reservation import Ledger, RuntimeLimits
from sophia.serving.knowledge import Knowledge, build_knowledge
from sophia.serving.roles import RoleFollower
from sophia.serving.runtime import Runtime

# Commands may not name adapters; they read the ledger through these.
__all__ = ["StoreAddress", "inspect", "leftovers", "report"]

log = logging.getLogger("sophia")

SNAPSHOT_FOLDER = "learned"


def copy_store(
    source: StoreAddress, target: StoreAddress, report_rows: Callable[[str, int, int], None]
) -> None:
    """Copy all rows to an empty store, or none. Raises ConfigError or Unavailable.

    `report_rows` takes a table's name, its rows in the source, and those in the target so far.
    """
    from sophia.adapters.store import transfer  # a slow import

    try:
        transfer.copy_store(source, target, report_rows)
    except RowFault as fault:
        raise Unavailable(f"a row cannot be written to {target}: {fault}") from None


@dataclass(frozen=True, slots=True)
class DataFolderStores:
    """An open data folder: its ledger and the snapshots of the learned policy."""

    store: Store
    archive: PolicyArchive


@asynccontextmanager
async def open_data_folder(settings: Settings) -> AsyncIterator[DataFolderStores]:
    """Open the data folder for a command. Raises ConfigError."""
    async with open_store(settings) as store:
        yield DataFolderStores(store, build_policy_archive(settings))


@asynccontextmanager
async def open_offline_runtime(
    settings: Settings, environ: Mapping[str, str]
) -> AsyncIterator[tuple[Runtime, PolicyArchive]]:
    """Open ledger, upstreams and snapshots for a command that asks models. Raises ConfigError."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings))
        connections = await open_connections(settings, environ, stack)
        clock = SystemClock()
        await start_worker(store, clock, Path(settings.data_dir), settings.ledger.sync_ms / 1000)
        presence = WorkerPresence(store, lambda: None)
        beating = asyncio.create_task(run_every(BEAT_SECONDS, "showing that it lives", presence))
        stack.callback(beating.cancel)
        runtime = build_runtime(settings, connections, store, clock)
        stack.push_async_callback(runtime.ledger.leases.close)
        stack.push_async_callback(runtime.reconciler.close)
        yield runtime, build_policy_archive(settings, runtime.knowledge.pool.speed_prior)


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """Open the store, created or migrated first. Raises ConfigError."""
    ensure_data_folder(settings)
    store = SqlStore(await asyncio.to_thread(find_store(settings).open))
    try:
        yield store
    finally:
        await store.close()


def find_store(settings: Settings) -> StoreAddress:
    """Return the address of the store: in the data folder, or the server of `store.url`."""
    return StoreAddress(Path(settings.data_dir) / LEDGER_FILE, settings.store.url)


def is_ledger_current(settings: Settings) -> bool:
    """Return whether there is a ledger of this release. Raises ConfigError for a damaged one."""
    address = find_store(settings)
    try:
        return not address.is_missing() and report.is_ledger_current(address)
    except report.LedgerUnreadable as error:
        raise ConfigError(f"{address} cannot be read: {error}; `sophia doctor` checks it") from None


def build_catalogue(settings: Settings) -> Catalogue:
    """Return every model that can be asked for: those of the listing, and the upstreams' own."""
    models = {
        model.id: build_local_model(model, each.modalities)
        for each in settings.upstreams
        for model in each.models
    }
    local = list(models.values())
    if settings.catalogue.own_models_only:
        return Catalogue(local, ModelProfiles(), "", "own")
    catalogue = refresh.load_catalogue(Path(settings.data_dir), local)
    for warning in catalogue.warnings:
        log.warning("catalogue: %s", warning)
    return catalogue


def build_role_follower(settings: Settings) -> RoleFollower:
    """Return the follower of the pool's roles, by the priors of the data folder."""
    return RoleFollower(settings.routing, build_priors_reader(Path(settings.data_dir)))


def load_knowledge(settings: Settings) -> Knowledge:
    """Return catalogue, pool and rules. Raises ConfigError."""
    priors = build_priors_reader(Path(settings.data_dir))
    quality_prior = build_quality_prior(priors, load_taxonomy())
    follow_roles = build_role_follower(settings).follow_and_log
    routing = msgspec.structs.replace(settings.routing, pool=merge_own_models(settings))
    return build_knowledge(build_catalogue(settings), routing, quality_prior, follow_roles)


def merge_own_models(settings: Settings) -> PoolSettings:
    """Return the settings of the pool with the chat models of the upstreams' own."""
    own = [one.id for each in settings.upstreams for one in each.models if one.kind == "chat"]
    pool = settings.routing.pool
    return msgspec.structs.replace(pool, models=(*pool.models, *own))


def build_policy_archive(
    settings: Settings, find_speed_prior: Callable[[str], SpeedPrior] = lambda _: DEFAULT_SPEED
) -> PolicyArchive:
    """Return the snapshots of the learned policy in the data folder. Raises ConfigError."""
    learning, data = settings.learning, ensure_data_folder(settings)
    exploration = OnlineSettings().exploration if learning.explore else NO_EXPLORATION
    new_policy = partial(
        build_policy,
        OnlineSettings(min_lessons=learning.after, exploration=exploration),
        shared=learning.share_keys,
        get_priors=build_priors_reader(data),
        find_speed_prior=find_speed_prior,
    )
    return PolicyArchive(
        snapshots=SnapshotFolder(data / SNAPSHOT_FOLDER),
        new_policy=new_policy,
        retention=SnapshotRetention(learning.keep_days, learning.keep_snapshots),
        shared=learning.share_keys,
    )


async def build_ids(store: Store, clock: Clock) -> IdGenerator:
    """Return the source of request ids, which go on behind the worker's newest attempt."""
    now_ms = int(clock.wall() * 1000)
    newest = await store.newest_attempt(now_ms)
    if newest:
        seconds = (extract_timestamp_ms(newest) - now_ms) / 1000
        log.warning("the clock is %.1f s behind the newest attempt: was it set back?", seconds)
    # Ids that come again would be taken for attempts that have ended already.
    return IdGenerator(lambda: int(clock.wall() * 1000), store.worker, newest)


def build_runtime(
    settings: Settings,
    connections: Connections,
    store: Store,
    clock: Clock,
    sinks: tuple[Sink, ...] = (),
) -> Runtime:
    """Return a runtime without learning, checks and observers. Raises ConfigError."""
    ledger = Ledger(
        leases=LeasedBudgets(store, clock),
        store=store,
        clock=clock,
        unknown=UnknownAttempts(settings.budget.unknown_hold_minutes * 60),
    )
    return Runtime(
        admission=Admission(settings.server.max_in_flight),
        knowledge=load_knowledge(settings),
        upstreams=connections.by_model,
        ledger=ledger,
        limits=_build_limits(settings),
        reconciler=Reconciler(),
        encode_plan=msgspec.json.Encoder().encode,
        sinks=sinks,
    )


def _build_limits(settings: Settings) -> RuntimeLimits:
    budget, seconds = settings.budget, settings.deadlines
    streaming = Deadlines(
        connect=seconds.connect_s,
        content=seconds.content_s,
        stall=seconds.stall_s,
        total=seconds.total_s,
    )
    daily, each = budget.daily_usd, budget.per_request_usd
    return RuntimeLimits(
        daily_budget_nano=None if daily is None else nano_from_usd(daily),
        per_request_nano=None if each is None else nano_from_usd(each),
        max_attempts=settings.routing.max_attempts,
        price_margin=budget.price_headroom_percent,
        deadlines=streaming,
        non_streaming_deadlines=replace(streaming, content=seconds.whole_s),
        request_timeout_seconds=seconds.request_s,
        on_cut=settings.routing.on_cut,
    )
