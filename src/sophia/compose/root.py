"""The serving Sophia, composed from its settings."""

import asyncio
import gc
import hashlib
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from sophia.adapters.clock import SystemClock
from sophia.adapters.siblings import Siblings
from sophia.adapters.store.folder_lock import Leadership, lock_for_serving
from sophia.adapters.store.journaling.slots import JOURNALS_FOLDER
from sophia.adapters.store.snapshots import SnapshotFolder
from sophia.adapters.telemetry.logs import RequestLog, configure_logging
from sophia.adapters.telemetry.prometheus import PrometheusSink, merge_pages
from sophia.catalogue.refresh import listing_age
from sophia.compose.keys import ensure_data_folder, has_pepper, load_pepper
from sophia.compose.offline import (
    SNAPSHOT_FOLDER,
    build_catalogue,
    build_ids,
    build_policy_archive,
    build_runtime,
    open_store,
)
from sophia.compose.upstreams import Connections, build_webhooks, open_connections
from sophia.config import Settings
from sophia.core.errors import ConfigError, Unavailable
from sophia.core.money import nano_from_usd, nano_to_usd
from sophia.core.ports import Clock, Sink, Store
from sophia.http.app import App
from sophia.jobs.calibrate import calibrate_channels
from sophia.jobs.checkpoint import PolicyCheckpoint, PromptHistoryCheckpoint
from sophia.jobs.correct_costs import CostCorrection
from sophia.jobs.follow import ChangeFollower
from sophia.jobs.heartbeat import EventLoopMonitor
from sophia.jobs.recover_attempts import AttemptRecovery, start_worker
from sophia.jobs.reload import CatalogueFollower, RulesReload, reload_catalogue
from sophia.jobs.timer import run_every
from sophia.jobs.worker_presence import BEAT_SECONDS, WorkerPresence
from sophia.learning.snapshots import BrokenSnapshot
from sophia.serving.attempts.reconcile import RECONCILE_DELAYS, Reconciler
from sophia.serving.cascade_config import CascadeConfig
from sophia.serving.feedback.implicit import ImplicitFeedbackDetector
from sophia.serving.feedback.queue import FeedbackQueue
from sophia.serving.feedback.recorder import FeedbackRecorder
from sophia.serving.judging.judge import Judge, build_judge_config
from sophia.serving.learned.budget_pacing import BudgetPacing
from sophia.serving.learned.prompt_histories import MAX_PROMPTS, MAX_TEAM_PROMPTS, PromptHistories
from sophia.serving.learned.routing import LearnedRouting
from sophia.serving.observers import AnswerObserverFactory
from sophia.serving.runtime import Runtime
from sophia.tenants.keys import KeyRing

log = logging.getLogger("sophia.learning")

_SWITCH_SECONDS = 0.0005


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningRuntime:
    """The parts that learn from feedback and keep the result."""

    routing: LearnedRouting
    feedback: FeedbackRecorder
    snapshots: PolicyCheckpoint
    prompt_histories: PromptHistoryCheckpoint

    async def close(self) -> None:
        """Learn from pending feedback and save the result."""
        await self.feedback.close()
        await self.snapshots.close()
        if self.snapshots.is_leader():
            await self.prompt_histories()


@dataclass(slots=True, kw_only=True)
class Sophia:
    """A composed Sophia: serve `app`, then `close`."""

    settings: Settings
    store: Store
    connections: Connections
    metrics: PrometheusSink
    runtime: Runtime
    closing: AsyncExitStack
    leadership: Leadership
    siblings: Siblings | None = None
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when other machines have taken this worker for dead: it has to be started again."""
    app: App = field(init=False)
    feedback_writer: FeedbackQueue = field(init=False)
    learning: LearningRuntime | None = None
    judge: Judge | None = None

    async def close(self) -> None:
        """Stop the jobs, settle open requests, write everything, and close all resources."""
        await self.closing.aclose()


async def compose(
    settings: Settings,
    environ: Mapping[str, str],
    clock: Clock | None = None,
    reconcile_delays: Sequence[float] = RECONCILE_DELAYS,
    *,
    is_worker: bool = False,
) -> Sophia:
    """Build Sophia in the loop that will serve; delays as in `Reconciler`.

    A worker shares the data folder with others, whose supervisor has its lock. Raises ConfigError.
    """
    async with AsyncExitStack() as stack:
        # Closed last: whatever else fails, bills that wait are written.
        data = ensure_data_folder(settings)
        if not is_worker:
            stack.enter_context(lock_for_serving(data))
        leadership = stack.enter_context(closing(Leadership(data)))
        await leadership.try_to_lead()
        store = await stack.enter_async_context(open_store(settings))
        metrics = PrometheusSink(await store.mean_scores())
        sinks = metrics, *_build_sinks(settings, environ, stack)
        connections = await open_connections(settings, environ, stack)
        clock = clock or SystemClock()
        await start_worker(store, clock, data, settings.ledger.sync_ms / 1000)
        runtime = build_runtime(settings, connections, store, clock, sinks)
        stack.push_async_callback(runtime.ledger.leases.close)
        runtime.reconciler = Reconciler(reconcile_delays)
        metrics.list_targets = runtime.health.list_figures
        metrics.count_round_trips = lambda: store.round_trips
        sophia = Sophia(
            settings=settings,
            store=store,
            connections=connections,
            metrics=metrics,
            runtime=runtime,
            closing=stack,
            leadership=leadership,
        )
        if settings.learning.enabled:
            sophia.learning = await _start_learning(sophia)
        sophia.feedback_writer = _add_checks(sophia, environ)
        stack.push_async_callback(runtime.reconciler.close)
        sophia.judge = await _add_judge(sophia)
        if is_worker:
            sophia.siblings = await _start_siblings(sophia)
        sophia.app = await _build_app(sophia)
        stack.push_async_callback(sophia.app.idempotent_answers.close)
        _start_jobs(sophia)
        sophia.closing = stack.pop_all()
        return sophia


def setup_logging(settings: Settings) -> None:
    """Write logs to standard error in the configured form and level."""
    configure_logging(settings.telemetry.log_level, settings.telemetry.log_format)


def shorten_pauses() -> None:
    """Exempt the objects made so far from garbage collection, and let threads give way sooner."""
    # The thread that applies the journal would hold the event loop up for 5 ms at a time.
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _build_sinks(
    settings: Settings, environ: Mapping[str, str], stack: AsyncExitStack
) -> Iterator[Sink]:
    if settings.telemetry.request_log:
        yield RequestLog(sys.stderr)
    otel = settings.telemetry.otel
    if otel or (otel is None and environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
        try:
            from sophia.adapters.telemetry.otel import OtelSink
        except ImportError:
            raise ConfigError(
                "OpenTelemetry is switched on, but the extra is missing: "
                "pip install 'sophia-router[otel]'"
            ) from None
        sink = OtelSink()
        stack.callback(sink.close)
        yield sink


async def _start_learning(sophia: Sophia) -> LearningRuntime:
    """Add the learned policy to the runtime, as far as it had come when it was last saved."""
    runtime, stack = sophia.runtime, sophia.closing
    folder = SnapshotFolder(Path(sophia.settings.data_dir) / SNAPSHOT_FOLDER)
    learning = _build_learning(sophia.settings, runtime, folder)
    learning.snapshots.is_leader = lambda: sophia.leadership.is_leader
    try:
        await learning.snapshots.resume_or_create()
        missed = await learning.feedback.catch_up(int(runtime.ledger.clock.wall() * 1000))
    except (BrokenSnapshot, msgspec.DecodeError, LookupError) as error:
        raise ConfigError(
            f"{folder.path}: {error}. `sophia policy rollback` returns to the snapshot before."
        ) from error
    if missed:
        log.info("learned from %d scores that were stored, but not learned from before", missed)
    stack.push_async_callback(learning.close)
    runtime.learned_routing = learning.routing
    runtime.sinks = (*runtime.sinks, learning.routing)
    return learning


def _build_learning(
    settings: Settings, runtime: Runtime, folder: SnapshotFolder
) -> LearningRuntime:
    learning, store, clock = settings.learning, runtime.ledger.store, runtime.ledger.clock
    archive = build_policy_archive(settings, runtime.speed_prior)
    policy, lock = archive.new_policy(), asyncio.Lock()
    # Read the priors: an unusable file must stop the start, not the first new model.
    policy.unprobed_prior("")
    checkpoint = PolicyCheckpoint(
        policy=policy,
        archive=archive,
        store=store,
        clock=clock,
        lock=lock,
        models=lambda: [entry.id for entry in runtime.knowledge.pool.models],
    )
    max_prompts = MAX_TEAM_PROMPTS if learning.share_keys else MAX_PROMPTS
    histories = PromptHistories(runtime.knowledge.classifier.classes, max_prompts)
    history_checkpoint = PromptHistoryCheckpoint(
        histories, folder.load_prompt_histories(), folder.save_prompt_histories
    )
    routing = LearnedRouting(
        policy,
        clock,
        histories,
        budget_pacing=BudgetPacing() if learning.pace else None,
        judge_share=learning.judge.share,
        shared=learning.share_keys,
    )
    return LearningRuntime(
        routing=routing,
        feedback=FeedbackRecorder(policy, store, lock),
        snapshots=checkpoint,
        prompt_histories=history_checkpoint,
    )


def _add_checks(sophia: Sophia, environ: Mapping[str, str]) -> FeedbackQueue:
    """Add the checks of answers to the runtime; return the queue of their results."""
    runtime, learning, settings = sophia.runtime, sophia.learning, sophia.settings.cascade
    webhooks = build_webhooks(settings, environ)
    for webhook in webhooks.values():
        sophia.closing.push_async_callback(webhook.close)
    record = None if learning is None else learning.feedback.record
    feedback_writer = FeedbackQueue(runtime.ledger.store, runtime.ledger.clock, record)
    sophia.closing.push_async_callback(feedback_writer.close)
    if settings.rubric_model is not None and runtime.knowledge.find(settings.rubric_model) is None:
        raise ConfigError(f"`cascade.rubric_model`: there is no model {settings.rubric_model!r}")
    runtime.cascade = CascadeConfig(
        auto=sophia.settings.routing.cascade == "auto",
        value_nano=None if settings.value_usd is None else nano_from_usd(settings.value_usd),
        rubric_model=settings.rubric_model,
        webhooks=webhooks,
        feedback=feedback_writer,
    )
    return feedback_writer


async def _add_judge(sophia: Sophia) -> Judge | None:
    """Add the observers of answers to the runtime; return the judge, if there is one."""
    runtime, settings, learning = sophia.runtime, sophia.settings.learning, sophia.learning
    config = build_judge_config(settings.judge, runtime.knowledge.find)
    if learning is None:
        return None
    judge = None
    if config is not None:
        reliability = learning.routing.policy.reliability
        judge = Judge(
            runtime,
            config,
            sophia.feedback_writer,
            report=sophia.metrics.count_judgement,
            biases=lambda key_id: reliability(key_id).bias_by_judge(),
        )
        sophia.closing.push_async_callback(judge.close)
    detector = ImplicitFeedbackDetector(sophia.feedback_writer, runtime.ledger.clock)
    runtime.observe = AnswerObserverFactory(judge, detector if settings.implicit else None)
    return judge


async def _start_siblings(sophia: Sophia) -> Siblings:
    """Let the other workers ask for the figures of this one."""
    answers = {"metrics": partial(_render_own, sophia), "health": partial(_describe_own, sophia)}
    folder = Path(sophia.settings.data_dir) / JOURNALS_FOLDER
    siblings = Siblings(folder, sophia.store.worker, answers)
    await siblings.start()
    sophia.closing.push_async_callback(siblings.close)
    return siblings


async def _render_own(sophia: Sophia) -> bytes:
    """Return the metrics of this process; the leader reports those of the ledger."""
    metrics = sophia.metrics
    if sophia.leadership.is_leader:
        with suppress(Unavailable):
            metrics.costs = dict(await sophia.store.cost_by_model())
    # A page of many series takes milliseconds to render: not on the event loop.
    return await asyncio.to_thread(metrics.render)


async def _render_metrics(sophia: Sophia) -> bytes:
    if sophia.siblings is None:
        return await _render_own(sophia)
    return merge_pages(await sophia.siblings.ask("metrics"))


async def _describe_own(sophia: Sophia) -> bytes:
    """Return the state of this process as JSON; `learned` is a digest of what it has learned."""
    state: dict[str, object] = {
        "worker": sophia.store.worker,
        "pid": os.getpid(),
        "leader": sophia.leadership.is_leader,
        "journal_records": sophia.store.depth,
        "running_attempts": sophia.runtime.ledger.running,
    }
    if sophia.learning is not None:
        policy = sophia.learning.routing.policy
        async with sophia.learning.snapshots.lock:
            state["lessons"] = policy.lesson_count
            learner = await asyncio.to_thread(policy.learner.snapshot)
        state["learned"] = hashlib.sha256(learner).hexdigest()[:16]
    return msgspec.json.encode(state)


async def _list_workers(sophia: Sophia) -> list[object]:
    if sophia.siblings is None:
        return [msgspec.Raw(await _describe_own(sophia))]
    return [msgspec.Raw(state) for state in (await sophia.siblings.ask("health")).values()]


async def _build_app(sophia: Sophia) -> App:
    settings, store, clock = sophia.settings, sophia.store, sophia.runtime.ledger.clock
    data, keys = Path(settings.data_dir), await store.keys()
    if keys and not has_pepper(data):
        raise ConfigError(
            f"the store has keys, but {data} lacks the secret that they are checked with: copy the "
            "file `pepper` from the data folder in which they were created."
        )
    return App(
        runtime=sophia.runtime,
        key_ring=KeyRing(load_pepper(data), keys),
        ids=await build_ids(store, clock),
        render_metrics=partial(_render_metrics, sophia),
        list_workers=partial(_list_workers, sophia),
        ledger_problem=lambda: store.problem,
        server=settings.server,
        record_score=sophia.metrics.record_score,
        feedback_recorder=None if sophia.learning is None else sophia.learning.feedback,
    )


def _build_follower(sophia: Sophia) -> ChangeFollower:
    """Return the job that learns of what other processes changed in the store."""
    store, learning = sophia.store, sophia.learning

    async def read_keys() -> None:
        sophia.app.key_ring.replace(await store.keys())

    handlers = {"keys": read_keys, "leases": sophia.runtime.ledger.leases.answer_calls}
    if learning is not None:
        handlers["lessons"] = learning.feedback.follow
    return ChangeFollower(store, handlers)


class _Job(NamedTuple):
    seconds: float
    name: str
    work: Callable[[], Awaitable[None]]
    first: float | None = None


def _start_jobs(sophia: Sophia) -> None:
    loop = asyncio.get_running_loop()
    tasks = [
        loop.create_task(run_every(job.seconds, job.name, job.work, first=job.first))
        for job in _list_jobs(sophia)
    ]

    async def stop() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    sophia.closing.push_async_callback(stop)
    monitor = EventLoopMonitor()
    sophia.closing.callback(monitor.close)
    _add_gauges(sophia, monitor)


def _add_gauges(sophia: Sophia, monitor: EventLoopMonitor) -> None:
    add_gauge, ledger = sophia.metrics.add_gauge, sophia.runtime.ledger
    about = "US dollars held for attempts that run or whose cost is not known yet."
    leadership = sophia.leadership

    def read_held() -> float:
        # Every process knows the unknown costs of all.
        unknown = ledger.unknown.nano if leadership.is_leader else 0
        return nano_to_usd(ledger.held_nano + unknown)

    add_gauge("sophia_held_dollars", about, read_held)
    about = "Attempts that run: reserved and not settled."
    add_gauge("sophia_running_attempts", about, lambda: float(ledger.running))
    about = (
        "Attempts of unknown or estimated cost for which money is held, until their bill or for "
        "budget.unknown_hold_minutes."
    )
    add_gauge(
        "sophia_unknown_attempts",
        about,
        lambda: float(len(ledger.unknown)) if leadership.is_leader else 0.0,
    )
    about = "Records of the journal that are not in the store yet."
    add_gauge("sophia_ledger_queue_rows", about, lambda: float(sophia.store.depth))
    about = "Longest time that the event loop did not turn since the last scrape."
    add_gauge("sophia_event_loop_block_seconds", about, monitor.take_longest_block)


def _list_jobs(sophia: Sophia) -> Iterator[_Job]:
    settings, runtime, learning = sophia.settings, sophia.runtime, sophia.learning

    yield _Job(0.1, "following changes", _build_follower(sophia))
    yield _Job(5.0, "giving back leases", runtime.ledger.leases.give_back_idle)
    recovery = AttemptRecovery(sophia.store, runtime.ledger.clock)
    yield _Job(1.0, "looking for dead processes", recovery, first=1.0)
    leadership = sophia.leadership
    yield _Job(1.0, "looking for the leader", leadership.try_to_lead)
    presence = WorkerPresence(sophia.store, sophia.lost.set)
    yield _Job(BEAT_SECONDS, "showing that this worker lives", presence)
    by_name = sophia.connections.by_name
    correction = CostCorrection(runtime.ledger, by_name, lambda: leadership.is_leader)
    yield _Job(60.0, "settling unknown costs", correction, first=5.0)
    yield _Job(60.0, "reading what is held", correction.read_held, first=0.0)
    if settings.routing.rules:
        yield _Job(1.0, "reading rules", RulesReload(runtime, Path(settings.routing.rules)))
    if learning is not None:
        yield _Job(5.0, "saving the learned policy", learning.snapshots)
        save = _as_leader(leadership, learning.prompt_histories)
        yield _Job(60.0, "saving the histories of system prompts", save)
        policy, clock = learning.routing.policy, runtime.ledger.clock
        calibration = partial(calibrate_channels, policy, sophia.store, clock)
        yield _Job(86_400.0, "calibrating feedback channels", calibration, first=60.0)
    interval = settings.catalogue.refresh_hours * 3600
    offline = sophia.connections.sandbox_url is not None or settings.catalogue.own_models_only
    if interval and not offline:
        data = Path(settings.data_dir)
        wait = max(interval - listing_age(data, time.time()), 2.0)
        refresh = _as_leader(leadership, partial(reload_catalogue, runtime, data))
        yield _Job(interval, "refreshing the catalogue", refresh, first=wait)
        load = partial(build_catalogue, settings)
        yield _Job(1.0, "reading the catalogue", CatalogueFollower(runtime, data, load))
    if sophia.siblings is not None:

        async def read_scores() -> None:
            sophia.metrics.replace_scores(await sophia.store.mean_scores())

        yield _Job(60.0, "reading scores", _as_leader(leadership, read_scores))


def _as_leader(
    leadership: Leadership, work: Callable[[], Awaitable[None]]
) -> Callable[[], Awaitable[None]]:
    """Return a job that only the leader does."""

    async def run() -> None:
        if leadership.is_leader:
            await work()

    return run
