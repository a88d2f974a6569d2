"""Put Sophia together: the only module that names an adapter."""

import asyncio
import gc
import logging
import os
import secrets
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path

import msgspec

from sophia.adapters.clock import SystemClock
from sophia.adapters.coordinator import LocalCoordinator
from sophia.adapters.store.sqlite import SqliteStore
from sophia.adapters.telemetry.logs import RequestLog, configure
from sophia.adapters.telemetry.prometheus import PrometheusSink
from sophia.adapters.upstreams import dialects
from sophia.adapters.upstreams.http1 import Limits as PoolLimits
from sophia.adapters.upstreams.http1 import Origin, Pool, proxy_for
from sophia.adapters.upstreams.http_upstream import HttpUpstream
from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import Model
from sophia.catalogue.prices import Prices, Tier
from sophia.catalogue.profiles import CatalogueError
from sophia.catalogue.refresh import refreshed
from sophia.catalogue.snapshot import bundled
from sophia.config import ConfigError, LocalModel, Settings, UpstreamSettings
from sophia.core.calls import Deadlines
from sophia.core.ids import Ids
from sophia.core.money import nano_from_usd
from sophia.core.ports import Sink, Upstream
from sophia.core.rows import KeyRow
from sophia.http.front import Front
from sophia.jobs.reload import CatalogueRefresh, RulesReload, knowledge_of, read_rules
from sophia.jobs.timer import every
from sophia.routing.rulebook import RuleBookError
from sophia.serving.desk import Desk
from sophia.serving.knowledge import Knowledge, Limits, Upstreams
from sophia.serving.reconcile import Reconciler
from sophia.serving.tab import Books
from sophia.tenants.budget import day_window
from sophia.tenants.keys import KeyRing, Scope, digest, kid, mint

log = logging.getLogger("sophia")

OPENROUTER = "https://openrouter.ai/api/v1"
_KEYS_SECONDS = 1.0
_RULES_SECONDS = 1.0
_SANDBOX_SECONDS = 15.0
_LISTING = "models.json"


@dataclass(slots=True)
class Sophia:
    """A composed Sophia; `start` the jobs, serve `front`, then `close`."""

    front: Front
    store: SqliteStore
    upstreams: tuple[Upstream, ...]
    jobs: list[asyncio.Task[None]] = field(default_factory=list)
    sinks: tuple[Sink, ...] = ()
    sandbox: "SandboxProcess | None" = None

    async def close(self) -> None:
        """Stop the jobs, settle what is open, write what waits, close everything."""
        for job in self.jobs:
            job.cancel()
        await asyncio.gather(*self.jobs, return_exceptions=True)
        await self.front.desk.reconciler.close()
        for upstream in self.upstreams:
            await upstream.close()
        for sink in self.sinks:
            if (end := getattr(sink, "close", None)) is not None:
                end()
        await self.store.close()
        if self.sandbox is not None:
            await self.sandbox.close()


async def compose(settings: Settings, environ: Mapping[str, str]) -> Sophia:
    """Build Sophia from its settings; must run inside the loop that will serve.

    Raises:
        ConfigError: settings, rules or catalogue copy that cannot be used.
    """
    data = data_folder(settings)
    store = open_store(settings)
    sandbox = None
    if wants_sandbox(settings, environ):
        sandbox = await SandboxProcess.start(settings)
    places = _places(settings, environ, sandbox.base_url if sandbox else None)
    built = {place.name: upstream_of(place, environ) for place in places}
    default = next((built[place.name] for place in places if not place.models), None)
    if default is None:
        raise ConfigError("`upstreams`: one of them must serve the catalogue, so have no `models`")
    catalogue = catalogue_of(settings)
    knowledge = _knowledge(settings, catalogue)
    clock = SystemClock()
    coordinator = LocalCoordinator(
        await store.spends(day_window(clock.wall())), await store.open_holds()
    )
    metrics = PrometheusSink(await store.costs())
    metrics.gauge(
        "sophia_ledger_queue_rows", "Rows waiting to be durable.", lambda: float(store.depth)
    )
    sinks = (metrics, *_sinks(settings, environ))
    desk = Desk(
        knowledge,
        Upstreams(default, _by_model(places, built)),
        Books(coordinator, store, clock),
        _limits(settings),
        Reconciler(),
        msgspec.json.Encoder().encode,
        sinks,
    )
    front = Front(
        desk,
        KeyRing(pepper(data), await store.keys()),
        Ids(lambda: time.time_ns() // 1_000_000),
        metrics.render,
        lambda: "",
        settings.server.max_body_bytes,
        scored=metrics.score,
    )
    sophia = Sophia(front, store, tuple(built.values()), sinks=sinks, sandbox=sandbox)
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


def data_folder(settings: Settings) -> Path:
    """Return the data folder, made if need be. Raises ConfigError when it cannot be."""
    path = Path(settings.data_dir)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"`data_dir`: {path} cannot be made: {error.strerror}") from None
    return path


def pepper(data: Path) -> bytes:
    """Return the secret that key digests are made with; made on first use, readable by us only."""
    path = data / "pepper"
    if not path.exists():
        write_secret(path, secrets.token_bytes(32))
    return path.read_bytes()


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def new_key(
    data: Path,
    name: str,
    scope: Scope = "inference",
    *,
    daily: int | None = None,
    each: int | None = None,
) -> tuple[str, KeyRow]:
    """Return a fresh key and the row that stands for it; limits in nano-dollars."""
    token = mint(secrets.token_bytes(42), scope)
    row = KeyRow(
        kid(token.encode()) or "",
        digest(token.encode(), pepper(data)),
        name,
        scope,
        daily,
        each,
        time.time_ns() // 1_000_000,
    )
    return token, row


def wants_sandbox(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Say whether Sophia plays OpenRouter itself: no key and no upstream of one's own."""
    if settings.sandbox.enabled is not None:
        return settings.sandbox.enabled
    return not environ.get("OPENROUTER_API_KEY") and not any(
        not place.models for place in settings.upstreams
    )


def _places(
    settings: Settings, environ: Mapping[str, str], sandbox: str | None
) -> tuple[UpstreamSettings, ...]:
    if sandbox is not None:
        own = UpstreamSettings("sandbox", "openrouter", sandbox, api_key="sandbox")
    elif any(not place.models for place in settings.upstreams):
        return settings.upstreams
    else:
        own = UpstreamSettings(
            "openrouter",
            "openrouter",
            environ.get("OPENROUTER_BASE_URL") or OPENROUTER,
            api_key_env="OPENROUTER_API_KEY",
        )
    return (own, *(place for place in settings.upstreams if place.models))


def default_place(settings: Settings, environ: Mapping[str, str]) -> UpstreamSettings:
    """Return where the catalogue's models are asked, and listed; never the sandbox.

    Raises:
        ConfigError: every upstream that is set has models of its own.
    """
    for place in _places(settings, environ, None):
        if not place.models:
            return place
    raise ConfigError("`upstreams`: one of them must serve the catalogue, so have no `models`")


def pool_of(place: UpstreamSettings, environ: Mapping[str, str]) -> Pool:
    """Return connections to an upstream, with its key. Raises ConfigError."""
    key = place.api_key or environ.get(place.api_key_env or "")
    headers = [
        ("Content-Type", "application/json"),
        ("Accept-Encoding", "identity"),
        ("User-Agent", "sophia-router"),
    ]
    if key:
        headers.append(("Authorization", f"Bearer {key}"))
    if place.kind == "openrouter":
        headers += [
            ("HTTP-Referer", "https://github.com/sophia-router"),
            ("X-OpenRouter-Title", "Sophia"),
        ]
    try:
        origin = Origin.parse(place.base_url)
        context = ssl.create_default_context(cafile=place.ca_file) if place.ca_file else None
        return Pool(
            origin,
            limits=PoolLimits(max_connections=place.max_connections),
            ssl_context=context,
            proxy=proxy_for(place.base_url, environ),
            static_headers=tuple(headers),
        )
    except (ValueError, OSError) as error:
        raise ConfigError(f"upstream {place.name!r}: {error}") from None


def upstream_of(place: UpstreamSettings, environ: Mapping[str, str]) -> HttpUpstream:
    """Return the upstream itself; must run inside a loop. Raises ConfigError."""
    is_openrouter = place.kind == "openrouter"
    return HttpUpstream(
        place.name,
        "OpenRouter" if is_openrouter else place.name,
        pool_of(place, environ),
        dialects.openrouter if is_openrouter else dialects.openai_compatible,
        asyncio.get_running_loop().time,
        billed_by_generation=is_openrouter,
    )


def _by_model(
    places: tuple[UpstreamSettings, ...], built: Mapping[str, HttpUpstream]
) -> dict[str, tuple[Upstream, str]]:
    return {
        model.id: (built[place.name], model.served_as or model.id)
        for place in places
        for model in place.models
    }


def catalogue_of(settings: Settings) -> Catalogue:
    """Return every model that can be asked for: those of the listing, and one's own."""
    catalogue = listed(Path(settings.data_dir))
    own = [_local(model) for place in settings.upstreams for model in place.models]
    if own:
        models = {model.id: model for model in (*catalogue.models, *own)}
        catalogue = catalogue.with_models(models.values(), catalogue.date, catalogue.source)
    for warning in catalogue.warnings:
        log.warning("catalogue: %s", warning)
    return catalogue


def listed(data: Path) -> Catalogue:
    """Return the models of the listing that is kept in `data`, else of the bundled one."""
    catalogue = bundled()
    kept = data / _LISTING
    if kept.exists():
        try:
            day = time.strftime("%Y-%m-%d", time.gmtime(kept.stat().st_mtime))
            catalogue = refreshed(catalogue, kept.read_bytes(), day)
        except (CatalogueError, OSError) as error:
            log.warning("the kept catalogue is not used: %s", error)
    return catalogue


def keep_listing(data: Path, body: bytes) -> None:
    """Keep the body of a `GET /models` in `data`, all of it or nothing."""
    fresh = data / f"{_LISTING}.new"
    fresh.write_bytes(body)
    fresh.replace(data / _LISTING)


def _local(model: LocalModel) -> Model:
    per_token = [model.prompt_usd_per_mtok / 1e6, model.completion_usd_per_mtok / 1e6]
    outbound = "text" if model.kind == "chat" else "embeddings"
    listing = {
        "id": model.id,
        "canonical_slug": model.id,
        "name": model.id,
        "created": 0,
        "pricing": {"prompt": f"{per_token[0]:.12f}", "completion": f"{per_token[1]:.12f}"},
        "context_length": model.context_length,
        "architecture": {
            "modality": f"text->{outbound}",
            "input_modalities": ["text"],
            "output_modalities": [outbound],
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "top_provider": {
            "is_moderated": False,
            "context_length": model.context_length,
            "max_completion_tokens": model.max_output_tokens,
        },
        "per_request_limits": None,
        "supported_parameters": [],
        "default_parameters": None,
        "supported_voices": None,
        "links": {"details": f"/v1/models/{model.id}"},
    }
    tier = Tier(
        0, nano_from_usd(model.prompt_usd_per_mtok), nano_from_usd(model.completion_usd_per_mtok)
    )
    return Model(
        model.id,
        model.id,
        model.context_length,
        model.max_output_tokens,
        Prices((tier,)),
        frozenset({"text"}),
        frozenset({outbound}),
        frozenset(),
        model.kind,
        listing=msgspec.json.encode(listing),
    )


def _knowledge(settings: Settings, catalogue: Catalogue) -> Knowledge:
    path = settings.routing.rules
    try:
        text = Path(path).read_text() if path else default_rules()
        rulebook = read_rules(text, catalogue)
    except (RuleBookError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path or 'the bundled rules'}: {error}") from None
    fallbacks = []
    for name in settings.routing.fallback_models:
        found = catalogue.resolve(name)
        if found is None:
            near = ", ".join(catalogue.nearest(name)) or "`sophia models` lists them"
            raise ConfigError(f"FALLBACK_MODELS: there is no model {name!r}; near it: {near}")
        fallbacks.append(found.model.id)
    size = settings.routing.model_cache_size
    return knowledge_of(catalogue, rulebook, tuple(fallbacks), size)


def default_rules() -> str:
    """Return the text of the rules that ship with Sophia."""
    return files("sophia.routing").joinpath("data/routing-rules.yaml").read_text()


def _limits(settings: Settings) -> Limits:
    budget, clocks = settings.budget, settings.deadlines
    return Limits(
        None if budget.daily_usd is None else nano_from_usd(budget.daily_usd),
        None if budget.per_request_usd is None else nano_from_usd(budget.per_request_usd),
        settings.routing.max_attempts,
        budget.price_headroom_percent,
        Deadlines(clocks.connect_s, clocks.content_s, clocks.stall_s, clocks.total_s),
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

    def start(seconds: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
        sophia.jobs.append(asyncio.get_running_loop().create_task(every(seconds, name, work)))

    start(_KEYS_SECONDS, "reading keys", read_keys)
    if settings.routing.rules:
        start(_RULES_SECONDS, "reading rules", RulesReload(desk, Path(settings.routing.rules)))
    hours = settings.catalogue.refresh_hours
    if hours and sophia.sandbox is None:
        refresh = CatalogueRefresh(desk, upstream, partial(keep_listing, data))
        start(hours * 3600, "refreshing the catalogue", refresh)


@dataclass(slots=True)
class SandboxProcess:
    """The sandbox in its own process, ended with ours."""

    process: asyncio.subprocess.Process
    base_url: str

    @classmethod
    async def start(cls, settings: Settings) -> "SandboxProcess":
        """Start it and wait for its address. Raises ConfigError when it does not come up."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sophia.testing",
            "--port",
            "0",
            "--speed",
            str(settings.sandbox.speed),
            "--local" if settings.sandbox.local_model else "--no-local",
            "--parent-pid",
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        if process.stdout is None:
            raise RuntimeError("the sandbox was started with a pipe")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _SANDBOX_SECONDS)
        except TimeoutError:
            line = b""
        if not line.startswith(b"listening on "):
            process.kill()
            raise ConfigError("the sandbox did not start; set OPENROUTER_API_KEY to do without it")
        return cls(process, line.decode().removeprefix("listening on ").strip())

    async def close(self) -> None:
        """End the process."""
        if self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()


