"""Put Sophia together: the only package that names an adapter."""

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from sophia.adapters.clock import SystemClock
from sophia.adapters.coordinator import LocalCoordinator
from sophia.adapters.store.sqlite import SqliteStore
from sophia.adapters.telemetry.logs import RequestLog, configure
from sophia.adapters.telemetry.prometheus import PrometheusSink
from sophia.adapters.webhook import Webhook
from sophia.compose.challenge import watch_challengers
from sophia.compose.checking import checking_of, webhooks_of
from sophia.compose.judging import aftermath_of, court_of, judge_of
from sophia.compose.keys import data_folder, new_key, pepper, write_secret
from sophia.compose.learning import Learner, learner_of, read_plan
from sophia.compose.listing import catalogue_of, keep_listing, knowledge_from, listed, listing_age
from sophia.compose.places import (
    by_model,
    default_place,
    places_of,
    pool_of,
    upstream_of,
    wants_sandbox,
)
from sophia.compose.sandbox import SandboxProcess
from sophia.config import ConfigError, Settings
from sophia.core.calls import Deadlines
from sophia.core.ids import Ids
from sophia.core.money import nano_from_usd
from sophia.core.ports import Clock, Sink, Upstream
from sophia.http.front import Front
from sophia.jobs.calibrate import CalibrateChannels
from sophia.jobs.heartbeat import Heartbeat
from sophia.jobs.reload import CatalogueRefresh, RulesReload
from sophia.jobs.resolve import ResolveDoubts
from sophia.jobs.timer import every
from sophia.serving.checking import Verdicts
from sophia.serving.desk import Desk
from sophia.serving.judge import Judge
from sophia.serving.knowledge import Limits, Upstreams
from sophia.serving.reconcile import Reconciler
from sophia.serving.tab import Books
from sophia.tenants.budget import day_window
from sophia.tenants.keys import KeyRing

__all__ = [
    "Sophia",
    "catalogue_of",
    "compose",
    "data_folder",
    "default_place",
    "keep_listing",
    "limits_of",
    "listed",
    "new_key",
    "open_store",
    "pool_of",
    "settle_memory",
    "start_logs",
    "upstream_of",
    "wants_sandbox",
    "write_secret",
]

_KEYS_SECONDS = 1.0
_RULES_SECONDS = 1.0
_LEARNED_SECONDS = 5.0
_PROMPTS_SECONDS = 60.0
_CHALLENGE_SECONDS = 600.0
_FIRST_CHALLENGE_SECONDS = 60.0
_RESOLVE_SECONDS = 60.0
_FIRST_RESOLVE_SECONDS = 5.0
_FIRST_REFRESH_SECONDS = 2.0
_DAY_SECONDS = 86_400.0
_FIRST_COMPARISON_SECONDS = 60.0


@dataclass(slots=True)
class Sophia:
    """A composed Sophia; `start` the jobs, serve `front`, then `close`."""

    front: Front
    store: SqliteStore
    upstreams: tuple[Upstream, ...]
    heartbeat: Heartbeat
    jobs: list[asyncio.Task[None]] = field(default_factory=list)
    sinks: tuple[Sink, ...] = ()
    sandbox: SandboxProcess | None = None
    learner: Learner | None = None
    verdicts: Verdicts | None = None
    webhooks: tuple[Webhook, ...] = ()
    judge: Judge | None = None

    async def close(self) -> None:
        """Stop the jobs, settle what is open, write what waits, close everything."""
        self.heartbeat.close()
        for job in self.jobs:
            job.cancel()
        await asyncio.gather(*self.jobs, return_exceptions=True)
        if self.judge is not None:
            await self.judge.close()
        await self.front.desk.reconciler.close()
        if self.verdicts is not None:
            await self.verdicts.close()
        for webhook in self.webhooks:
            await webhook.close()
        for upstream in self.upstreams:
            await upstream.close()
        for sink in self.sinks:
            if (end := getattr(sink, "close", None)) is not None:
                end()
        try:
            if self.learner is not None:
                await self.learner.close()
        finally:
            # Bills are waiting there: whatever else fails, they are written.
            await self.store.close()
            if self.sandbox is not None:
                await self.sandbox.close()


async def compose(
    settings: Settings, environ: Mapping[str, str], clock: Clock | None = None
) -> Sophia:
    """Build Sophia from its settings; must run inside the loop that will serve.

    Raises:
        ConfigError: settings, rules or catalogue copy that cannot be used.
    """
    data = data_folder(settings)
    store = open_store(settings)
    sandbox = None
    if wants_sandbox(settings, environ):
        sandbox = await SandboxProcess.start(settings)
    places = places_of(settings, environ, sandbox.base_url if sandbox else None)
    built = {place.name: upstream_of(place, environ) for place in places}
    default = next((built[place.name] for place in places if not place.models), None)
    if default is None:
        raise ConfigError("`upstreams`: one of them must serve the catalogue, so have no `models`")
    catalogue = catalogue_of(settings)
    knowledge = knowledge_from(settings, catalogue)
    court = court_of(settings.learning.judge, knowledge)
    clock = clock or SystemClock()
    coordinator = LocalCoordinator(
        await store.spends(day_window(clock.wall())), await store.open_holds()
    )
    metrics = PrometheusSink(await store.costs(), await store.scores())
    metrics.gauge(
        "sophia_ledger_queue_rows", "Rows waiting to be durable.", lambda: float(store.depth)
    )
    sinks: tuple[Sink, ...] = (metrics, *_sinks(settings, environ))
    desk = Desk(
        knowledge,
        Upstreams(default, by_model(places, built)),
        Books(coordinator, store, clock),
        limits_of(settings),
        Reconciler(),
        msgspec.json.Encoder().encode,
        sinks,
    )
    front = Front(
        desk,
        KeyRing(pepper(data), await store.keys()),
        Ids(lambda: int(clock.wall() * 1000)),
        metrics.render,
        lambda: "",
        lambda: store.problem,
        settings.server.max_body_bytes,
        scored=metrics.score,
    )
    learner = None
    if settings.learning.enabled:
        learner = await learner_of(
            settings.learning, data, store, clock, lambda: desk.knowledge.pool
        )
        desk.insight, front.teacher = learner.insight, learner.teacher
        desk.sinks = (*sinks, learner.insight)
        watch_challengers(metrics, learner)
    webhooks = webhooks_of(settings, environ)
    verdicts = Verdicts(store, learner.teacher.hear if learner is not None else None)
    desk.checking = checking_of(settings, knowledge, webhooks, verdicts)
    judge = None
    if learner is not None:
        live = learner.insight.live
        judge = await judge_of(court, live, desk, verdicts, metrics.judged)
        desk.listen = aftermath_of(settings.learning, judge, verdicts, clock)
    heartbeat = Heartbeat()
    metrics.gauge(
        "sophia_event_loop_block_seconds",
        "Longest time that the event loop did not turn since the last scrape.",
        heartbeat.longest,
    )
    sophia = Sophia(
        front,
        store,
        tuple(built.values()),
        heartbeat,
        sinks=desk.sinks,
        sandbox=sandbox,
        learner=learner,
        verdicts=verdicts,
        webhooks=tuple(webhooks.values()),
        judge=judge,
    )
    _start_jobs(sophia, settings, default, data)
    return sophia


def open_store(settings: Settings) -> SqliteStore:
    """Return the ledger in the data folder; close it after use."""
    return SqliteStore(data_folder(settings) / "sophia.db")


def start_logs(settings: Settings) -> None:
    """Write logs to standard error in the form and from the level that the settings ask for."""
    configure(settings.telemetry.log_level, settings.telemetry.log_format)


def settle_memory() -> None:
    """Take what start-up made out of the collector's sight: shorter pauses while serving."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def limits_of(settings: Settings) -> Limits:
    """Return what holds for every key that says nothing else."""
    budget, clocks = settings.budget, settings.deadlines
    return Limits(
        None if budget.daily_usd is None else nano_from_usd(budget.daily_usd),
        None if budget.per_request_usd is None else nano_from_usd(budget.per_request_usd),
        settings.routing.max_attempts,
        budget.price_headroom_percent,
        Deadlines(clocks.connect_s, clocks.content_s, clocks.stall_s, clocks.total_s),
        Deadlines(clocks.connect_s, clocks.whole_s, clocks.stall_s, clocks.total_s),
        clocks.request_s,
    )


def _sinks(settings: Settings, environ: Mapping[str, str]) -> tuple[Sink, ...]:
    sinks: list[Sink] = []
    if settings.telemetry.request_log:
        sinks.append(RequestLog(sys.stderr))
    wanted = settings.telemetry.otel
    if wanted or (wanted is None and environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
        try:
            from sophia.adapters.telemetry.otel import OtelSink
        except ImportError:
            raise ConfigError(
                "OpenTelemetry is asked for, but the extra is missing: "
                "pip install 'sophia-router[otel]'"
            ) from None
        sinks.append(OtelSink())
    return tuple(sinks)


def _start_jobs(sophia: Sophia, settings: Settings, upstream: Upstream, data: Path) -> None:
    front, desk = sophia.front, sophia.front.desk

    async def read_keys() -> None:
        front.keys.replace(await sophia.store.keys())

    def start(
        seconds: float,
        name: str,
        work: Callable[[], Awaitable[None]],
        first: float | None = None,
    ) -> None:
        timer = every(seconds, name, work, first=first)
        sophia.jobs.append(asyncio.get_running_loop().create_task(timer))

    start(_KEYS_SECONDS, "reading keys", read_keys)
    resolve = ResolveDoubts(desk.books, {upstream.name: upstream for upstream in sophia.upstreams})
    start(_RESOLVE_SECONDS, "asking for open bills", resolve, _FIRST_RESOLVE_SECONDS)
    if settings.routing.rules:
        start(_RULES_SECONDS, "reading rules", RulesReload(desk, Path(settings.routing.rules)))
    if sophia.learner is not None:
        start(_LEARNED_SECONDS, "keeping what was learned", sophia.learner.keeper)
        live = sophia.learner.insight.live
        compare = CalibrateChannels(live, sophia.store, read_plan, desk.books.clock)
        start(_DAY_SECONDS, "comparing channels", compare, _FIRST_COMPARISON_SECONDS)
        start(_PROMPTS_SECONDS, "keeping what system prompts were for", sophia.learner.prompts)
        challenge = sophia.learner.challenge
        start(_CHALLENGE_SECONDS, "challenging it", challenge, _FIRST_CHALLENGE_SECONDS)
    hours = settings.catalogue.refresh_hours
    if hours and sophia.sandbox is None:
        refresh = CatalogueRefresh(desk, upstream, partial(keep_listing, data))
        wait = max(hours * 3600 - listing_age(data, time.time()), _FIRST_REFRESH_SECONDS)
        start(hours * 3600, "refreshing the catalogue", refresh, wait)
