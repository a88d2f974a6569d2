"""Settings: names, bounds and defaults."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

Seconds = Annotated[float, Meta(gt=0, le=86400)]
Dollars = Annotated[float, Meta(ge=0, le=1_000_000_000)]
LEDGER_FILE = "sophia.db"
OPENROUTER_URL = "https://openrouter.ai/api/v1"
SANDBOX_FOLDER = "sandbox"

_STORE_URL = re.compile(
    r"postgres(?:ql)?://(?:[^@/?]*@)?([\w.:,%\[\]-]*)(?:/([\w.%-]*))?(?:\?[^@]*)?"
)

Name = Annotated[str, Meta(min_length=1)]
PositiveInt = Annotated[int, Meta(ge=1)]


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The address that Sophia listens on, and limits of its connections."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 listens on every network."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """Port to listen on; 0 takes a free one."""
    max_body_bytes: Annotated[int, Meta(ge=1024)] = 10 * 1024 * 1024
    """Maximum length of a request body; a longer one gets 413."""
    workers: Annotated[int, Meta(ge=0, le=64)] = 1
    """Processes that serve the address; 0 is one for each processor core."""
    max_in_flight: PositiveInt = 1000
    """Maximum number of requests to models at a time; more get 503. From four fifths of it on, a
    key gets at most the limit divided by one more than the keys that have running requests: a
    single key gets four fifths."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may call Sophia from a browser, or `*` for all; none by default."""
    linger_s: Annotated[float, Meta(ge=0, le=86400)] = 5.0
    """Seconds after SIGTERM for which new requests are still served, while `/health/ready` is 503:
    the time that a load balancer needs to notice. Ctrl-C does not wait."""
    allowed_hosts: tuple[str, ...] = ()
    """Names and addresses that the `Host` header of a request may have, without the port;
    `*.example.com` stands for all names below it. Empty: any. Health checks are exempt."""
    max_connections_per_address: Annotated[int, Meta(ge=0)] = 0
    """Connections that one network address may have open; 0 means no limit. Behind a proxy all
    callers share the proxy's address."""
    head_s: Seconds = 10.0
    """Seconds until the head of a request must be complete."""
    body_s: Seconds = 30.0
    """Seconds until a request body must be complete; every 16 KiB received add one second."""
    write_s: Seconds = 60.0
    """Seconds after which a caller who reads nothing of an answer is disconnected."""
    drain_s: Seconds = 30.0
    """Seconds that running requests get to finish when Sophia stops; then they end with an
    error."""


class BudgetSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Budget of a key without limits of its own, in US dollars; None means no limit."""

    daily_usd: Dollars | None = 100.0
    """Budget of a key per day (UTC)."""
    per_request_usd: Dollars | None = None
    """Maximum cost of a single request."""
    price_headroom_percent: Annotated[int, Meta(ge=0, le=900)] = 25
    """Price margin in percent that a provider may charge above its list price; included in
    reservations."""
    unknown_hold_minutes: Annotated[float, Meta(ge=0, le=10_080)] = 60.0
    """Minutes after which the probable cost of a call without a known bill counts as spent; until
    then it is held, and the upstream is asked for the bill."""


class LedgerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Durability of the records of calls and their cost."""

    sync_ms: Annotated[float, Meta(ge=0, le=10_000)] = 50.0
    """Milliseconds after which the journal is synced to the disk. The end of the process loses
    nothing of it, that of the machine at most this much, and its cost stays held. 0 syncs before
    each request to a model."""


class StoreSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The database of the ledger, keys, feedback and lessons."""

    url: Annotated[str, Meta(pattern=r"^(postgres(ql)?://.*)?$")] = ""
    """Address of a PostgreSQL database, `postgresql://user:password@host/database`; unset: SQLite's
    file in the data folder. Journals, snapshots and secrets stay in the data folder."""


class ProviderSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Providers that OpenRouter may use. Requests can narrow them with `provider`, never widen."""

    zdr: bool = False
    """Only providers with zero data retention."""
    no_training: bool = False
    """Only providers that do not train on requests."""
    only: tuple[str, ...] = ()
    """The only providers allowed, by OpenRouter's names."""
    ignore: tuple[str, ...] = ()
    """Providers that are never used."""


class PoolSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The models that Sophia chooses among. Patterns are ids with `*` and `?`."""

    roles: tuple[str, ...] = ("*",)
    """Roles whose models are in the pool, as patterns; `sophia models list` shows them."""
    models: tuple[str, ...] = ()
    """Further models, as names or patterns. One that is new to the learned policy gets a trial on
    some of the requests whose budget covers it."""
    deny: tuple[str, ...] = ()
    """Models that are never chosen, as patterns."""
    max_prompt_usd_per_mtok: Dollars | None = None
    """Highest price of a model in US dollars per million prompt tokens."""
    max_completion_usd_per_mtok: Dollars | None = None
    """Highest price of a model in US dollars per million answer tokens."""
    follow_successors: bool = True
    """Let a newer model take a role over when its rating is better and its price no higher."""


class RoutingSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The choice of models."""

    rules: str | None = None
    """File with routing rules; unset: the bundled ones. Reloaded when it changes."""
    pool: PoolSettings = PoolSettings()
    """The models to choose from."""
    provider: ProviderSettings = ProviderSettings()
    """Providers that OpenRouter may use, for every request."""
    compare_with: str | None = None
    """Model that `sophia usage` compares the cost with; unset: the best-rated one of the pool."""
    aliases: dict[str, str] = {}
    """Names that callers may use, or patterns of them, and the model or `sophia/` name that each
    stands for."""
    chains: dict[str, tuple[str, ...]] = {}
    """Models to try when a model fails, in order, by the name of that model or of its role; after
    them come the others of comparable cost."""
    fallback_models: tuple[str, ...] = ()
    """Models to fall back on, first choice first."""
    max_attempts: Annotated[int, Meta(ge=1, le=15)] = 3
    """Maximum number of calls for one request, repetitions included."""
    on_cut: Literal["terminate", "continue"] = "terminate"
    """A stream of text that breaks off ends with an error, or another call goes on where it
    stopped. Callers override it with `sophia.on_cut`."""
    model_cache_size: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    """Number of model names whose resolution is cached."""
    cascade: Literal["off", "auto"] = "off"
    """`auto`: check whole answers of models that Sophia chose, and call a better model when a check
    fails. Callers override it with `sophia.cascade`."""


class CascadeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Checks of answers before they are delivered."""

    value_usd: Dollars | None = None
    """Value of a good answer over a bad one, in US dollars; unset: ten times the cost of the best
    candidate. A better model is called when its expected gain exceeds its cost."""
    rubric_model: str | None = None
    """Small model that scores answers which pass all other checks; paid by the request's key."""
    webhooks: tuple[str, ...] = ()
    """URLs that callers may name to judge their answers."""
    webhook_s: Seconds = 10.0
    """Seconds that a webhook has to answer; a later answer is ignored."""


class JudgeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Judging of a sample of the answers by a model, where users give little feedback."""

    share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of the answers of models chosen by Sophia that are judged, sampled at random. The judge
    gets the question and the answer; the key of the request pays."""
    models: tuple[str, ...] = ()
    """Models that may judge. None judges its own family, so name models of two makers."""
    daily_budget_usd: Dollars = 1.0
    """Budget for judging per day (UTC), for all keys together; each key's own budget applies as
    well."""
    rubric: str | None = None
    """Description of a good answer in a sentence or two, for the judge."""


class LearningSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Learning from outcomes which model does what well."""

    enabled: bool = True
    """Let the learned policy choose: by its priors first, by outcomes once there are enough."""
    after: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    """Outcomes of a key before they decide for it; until then the priors do."""
    explore: bool = True
    """Try models of uncertain quality now and then. Without it no better model is discovered, and
    other policies cannot be evaluated from the ledger."""
    pace: bool = False
    """Raise the weight of cost in the learned policy when a key's daily budget would run out before
    the end of the day at its recent rate. For steady traffic: a burst counts as the whole day."""
    share_keys: bool = False
    """Whether all keys belong to one team and learn together. Otherwise no key's feedback
    influences the choices for another."""
    keep_days: Annotated[float, Meta(ge=0, le=3660)] = 30.0
    """Days for which every learned decision can be reproduced: older snapshots are deleted, except
    for the last ones."""
    keep_snapshots: Annotated[int, Meta(ge=1, le=10_000)] = 20
    """Number of snapshots that are kept for a rollback, regardless of their age."""
    implicit: bool = True
    """Use implicit feedback: a repeated question, an abandoned stream, and an answer that is cut
    off, filtered or has broken tool arguments. Weak signals, kept without any text."""
    judge: JudgeSettings = JudgeSettings()


class CatalogueSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Refresh of the list of models."""

    refresh_hours: Annotated[float, Meta(ge=0, le=720)] = 6.0
    """Hours between two reads of the upstream's list of models; 0 turns the refresh off."""
    own_models_only: bool | None = None
    """Offer only the models of `upstreams` and never call OpenRouter; unset: when each of them has
    models and there is neither OpenRouter's key nor the sandbox."""


class DeadlineSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Time limits, in seconds."""

    connect_s: Seconds = 2.0
    """Until the connection is open, TLS included."""
    content_s: Seconds = 60.0
    """From dispatch to the first content of a streamed answer."""
    whole_s: Seconds = 300.0
    """From dispatch to the end of an answer that is not streamed."""
    stall_s: Seconds = 30.0
    """Between two pieces of content."""
    total_s: Seconds = 600.0
    """For one attempt."""
    request_s: Seconds = 600.0
    """For a request with all its attempts."""


class TelemetrySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Logs and metrics; they never contain the text of a request."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged."""
    log_format: Literal["text", "json"] = "text"
    """Lines for people, or JSON for machines."""
    request_log: bool = False
    """Write a JSON line for each settled request, without its text."""
    otel: bool | None = None
    """Export OpenTelemetry; unset: when OTEL_EXPORTER_OTLP_ENDPOINT is set."""


class SandboxSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The sandbox: a simulated OpenRouter for use without a key."""

    enabled: bool | None = None
    """Simulate OpenRouter; unset: when there is no key and no upstream for the catalogue."""
    local_model: bool = True
    """Let the packaged small model write the text, where it is installed."""
    speed: Annotated[float, Meta(ge=0, le=1000)] = 1.0
    """Speed relative to the real models; 0 never waits."""


class UpstreamModelSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model that an upstream serves in addition to the catalogue."""

    id: Name
    """Name that callers use."""
    served_as: str | None = None
    """Name at the upstream; unset: the same."""
    context_length: PositiveInt = 32768
    """Maximum length of prompt and answer together, in tokens."""
    max_output_tokens: PositiveInt | None = None
    """Maximum length of an answer in tokens; unset: the context length."""
    prompt_usd_per_mtok: Dollars = 0.0
    """US dollars per million prompt tokens."""
    completion_usd_per_mtok: Dollars = 0.0
    """US dollars per million answer tokens."""
    kind: Literal["chat", "embedding"] = "chat"
    """Kind of its output."""
    weight: PositiveInt = 1
    """Share of the requests that this upstream gets, beside others that serve the same model."""


Preset = Literal[
    "anthropic",
    "deepseek",
    "google",
    "groq",
    "llama.cpp",
    "lmstudio",
    "mistral",
    "ollama",
    "openai",
    "together",
    "vllm",
]
PRESETS: Mapping[str, tuple[str, str | None]] = {
    "anthropic": ("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "deepseek": ("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "google": ("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "llama.cpp": ("http://127.0.0.1:8080/v1", None),
    "lmstudio": ("http://127.0.0.1:1234/v1", None),
    "mistral": ("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "ollama": ("http://127.0.0.1:11434/v1", None),
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "together": ("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "vllm": ("http://127.0.0.1:8000/v1", None),
}
"""Base URL and key variable of each preset."""


class UpstreamSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A server of OpenAI-shaped calls; the first one without `models` serves the catalogue."""

    preset: Preset | None = None
    """Fills in `name`, `base_url` and `api_key_env` of a well-known server where they are unset."""
    name: str = ""
    """Name in logs and metrics; unset: the preset's."""
    kind: Literal["openrouter", "openai_compatible"] = "openai_compatible"
    """Whether it supports OpenRouter's extensions or only OpenAI's API."""
    base_url: Name = OPENROUTER_URL
    """Base URL of its API, usually ending in /v1."""
    api_key: str | None = None
    """API key; prefer `api_key_env`."""
    api_key_env: str | None = None
    """Environment variable that holds the API key."""
    ca_file: str | None = None
    """Certificate authorities (PEM) to trust instead of the system's."""
    max_connections: PositiveInt = 1000
    """Maximum number of connections at a time."""
    models: tuple[UpstreamModelSettings, ...] = ()
    """Models that it serves; without any it serves the catalogue."""
    modalities: tuple[Literal["text", "image", "file", "audio", "video"], ...] = ("text",)
    """Content types that prompts to its models may contain."""
    drop: tuple[str, ...] = ()
    """Fields of requests that it refuses, and that are left out (`openai_compatible` only)."""
    stream_options: Literal["auto", "never"] = "auto"
    """`auto`: ask for the usage of streams, until a model refuses it; `never`: estimate costs."""
    on_leave: Literal["abort", "drain"] = "abort"
    """An answer that has begun when its caller leaves: `abort` ends it, and most servers stop
    charging; `drain` reads it to its end, for at most a minute, to learn the usage, for a server
    that charges all of it anyway (`openai_compatible` only)."""

    def with_preset(self) -> "UpstreamSettings":
        """Return the settings with what the preset fills in."""
        if self.preset is None:
            return self
        base_url, variable = PRESETS[self.preset]
        return replace(
            self,
            name=self.name or self.preset,
            base_url=base_url if self.base_url == OPENROUTER_URL else self.base_url,
            api_key_env=variable if self.api_key_env is None else self.api_key_env,
        )


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All settings."""

    data_dir: str = "data"
    """Folder for the ledger, the keys and the list of models; the sandbox has its own below it."""
    server: ServerSettings = ServerSettings()
    budget: BudgetSettings = BudgetSettings()
    ledger: LedgerSettings = LedgerSettings()
    store: StoreSettings = StoreSettings()
    routing: RoutingSettings = RoutingSettings()
    cascade: CascadeSettings = CascadeSettings()
    learning: LearningSettings = LearningSettings()
    catalogue: CatalogueSettings = CatalogueSettings()
    deadlines: DeadlineSettings = DeadlineSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    sandbox: SandboxSettings = SandboxSettings()
    upstreams: tuple[UpstreamSettings, ...] = ()
    """Upstreams instead of OpenRouter, or in addition to it."""


def describe_store_url(url: str) -> str:
    """Return where a store is, for people: neither user nor password nor options.

    An address is `***` where a special character makes it unclear which part is the password.
    """
    match = _STORE_URL.fullmatch(url)
    return "***" if match is None else f"postgresql://{match[1]}/{match[2] or ''}"


def are_own_models_enough(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Return whether only the upstreams' own models are offered, and OpenRouter is never called."""
    if settings.catalogue.own_models_only is not None:
        return settings.catalogue.own_models_only
    own = bool(settings.upstreams) and all(each.models for each in settings.upstreams)
    return own and not environ.get("OPENROUTER_API_KEY") and not settings.sandbox.enabled


def is_sandbox_used(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Return whether the sandbox replaces OpenRouter: no key, and no upstream for the catalogue."""
    if settings.catalogue.own_models_only:
        return False
    if settings.sandbox.enabled is not None:
        return settings.sandbox.enabled
    return not environ.get("OPENROUTER_API_KEY") and all(each.models for each in settings.upstreams)


def resolve_upstreams(
    settings: Settings, environ: Mapping[str, str], sandbox_url: str | None = None
) -> tuple[UpstreamSettings, ...]:
    """Return the settings of every upstream, those of the default one filled in."""
    if sandbox_url is not None:
        own = UpstreamSettings(
            name="sandbox", kind="openrouter", base_url=sandbox_url, api_key="sandbox"
        )
    elif settings.catalogue.own_models_only or not all(each.models for each in settings.upstreams):
        return settings.upstreams
    else:
        own = UpstreamSettings(
            name="openrouter",
            kind="openrouter",
            base_url=environ.get("OPENROUTER_BASE_URL") or OPENROUTER_URL,
            api_key_env="OPENROUTER_API_KEY",
        )
    return (own, *(each for each in settings.upstreams if each.models))


def find_default_upstream(settings: Settings, environ: Mapping[str, str]) -> UpstreamSettings:
    """Return the upstream of the catalogue, never the sandbox."""
    return next(each for each in resolve_upstreams(settings, environ) if not each.models)
