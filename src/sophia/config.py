"""Settings: what can be set, in which bounds, and what holds where nobody set anything."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]
Dollars = Annotated[float, Meta(ge=0, le=1_000_000_000)]


class ConfigError(Exception):
    """The settings cannot be used; the message names the place, the problem and the form."""


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where Sophia listens."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 listens on every network."""
    port: Port = 8080
    """Port to listen on; 0 takes a free one."""
    max_body_bytes: Annotated[int, Meta(ge=1024)] = 10 * 1024 * 1024
    """Longest request body; a longer one gets 413."""
    drain_s: Seconds = 30.0
    """Seconds that running requests get to finish when Sophia stops."""


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a key may spend when it says nothing else; None means no limit. US dollars."""

    daily_usd: Dollars | None = 100.0
    """Most that a key spends in a day (UTC)."""
    per_request_usd: Dollars | None = 0.10
    """Most that a single request may cost."""
    price_headroom_percent: Annotated[int, Meta(ge=0, le=900)] = 25
    """How much dearer than listed a provider may be; holds count it in."""


class Routing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How models are chosen."""

    rules: str | None = None
    """File with routing rules; the bundled ones otherwise. Read again when it changes."""
    models: tuple[str, ...] = ()
    """Models to choose from besides those with a profile. One that is new to the learned policy
    gets a trial: it is tried on some requests that can pay for it."""
    fallback_models: tuple[str, ...] = ()
    """Models to fall back on, first choice first."""
    max_attempts: Annotated[int, Meta(ge=1, le=15)] = 3
    """Most models that are tried for one request."""
    model_cache_size: Annotated[int, Meta(ge=0, le=1_000_000)] = 1000
    """How many model names are remembered with what they stand for."""
    cascade: Literal["off", "auto"] = "off"
    """Whether whole answers of models that Sophia chose are checked, and a better model asked when
    they fail; callers decide for themselves with `sophia.cascade`."""


class CascadeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How answers are checked before the caller has them."""

    value_usd: Dollars | None = None
    """What a good answer is worth in place of a bad one, in US dollars; unset: ten times what the
    best candidate costs. A better model is asked when it should bring more than it costs."""
    rubric_model: str | None = None
    """Small model that marks answers which pass all other checks; the request's key pays it."""
    webhooks: tuple[str, ...] = ()
    """URLs that callers may name to have their answers judged."""
    webhook_s: Seconds = 10.0
    """Seconds that a webhook has to answer; later, it is not heard."""


class Judging(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a model judges some of the answers that were chosen, where users say little."""

    share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of the answers of Sophia's choice that are judged, drawn by lot. The judge is sent the
    question and the answer, and the key that asked pays for it."""
    models: tuple[str, ...] = ()
    """Models that may judge. None judges its own family, so name some of two makers."""
    daily_budget_usd: Dollars = 1.0
    """Most that judging may cost in a day (UTC), all keys together; each key's own budget holds,
    too."""
    rubric: str | None = None
    """What makes a good answer here, in a sentence or two; told to the judge."""


class Learning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How Sophia learns from outcomes which model does what well."""

    enabled: bool = True
    """Learn from feedback, and let the learned policy choose once it knows enough."""
    after: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    """Outcomes of a key before the learned policy chooses for it; until then the heuristic does."""
    explore: bool = True
    """Now and then try a model that may be better than it looks. Without it nothing new is found,
    and what another policy would have scored cannot be told from the ledger."""
    pace: bool = False
    """Make money dearer to the learned policy when a key's daily budget would run out before the
    day, by how often it asked lately. For steady traffic: a burst is taken for the whole day."""
    share_keys: bool = False
    """Whether all keys belong to one team and learn together. Otherwise no key's feedback moves
    what another key gets."""
    keep_days: Annotated[float, Meta(ge=0, le=3660)] = 30.0
    """Days for which every learned decision can be made again: the snapshots that older ones rest
    on are deleted, but for the last ones."""
    keep_snapshots: Annotated[int, Meta(ge=1, le=10_000)] = 20
    """How many snapshots to go back to are kept, however old they are."""
    implicit: bool = True
    """Take note when a caller asks the same again, leaves a stream, or gets an answer that is cut
    off, filtered or calls a tool with broken arguments: weak signs, kept without any text."""
    judge: Judging = Judging()


class CatalogueSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the list of models is kept fresh; 0 switches the timer off."""

    refresh_hours: Annotated[float, Meta(ge=0, le=720)] = 6.0
    """Hours between two readings of the upstream's list of models."""


class Clocks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long to wait for what, in seconds."""

    connect_s: Seconds = 2.0
    """To a connection, TLS included."""
    content_s: Seconds = 60.0
    """From dispatch to the first content of a streamed answer."""
    whole_s: Seconds = 300.0
    """From dispatch to the end of a whole answer, which comes only once all of it is written."""
    stall_s: Seconds = 30.0
    """Between two pieces of content."""
    total_s: Seconds = 600.0
    """For one attempt."""
    request_s: Seconds = 600.0
    """For a request with all its attempts."""


class Telemetry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is told about requests; never their text."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least serious level that is logged."""
    log_format: Literal["text", "json"] = "text"
    """Lines for people, or JSON for machines."""
    request_log: bool = False
    """Write a JSON line for each settled request, without its text."""
    otel: bool | None = None
    """Export OpenTelemetry; unset: when OTEL_EXPORTER_OTLP_ENDPOINT is set."""


class Sandbox(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The OpenRouter that Sophia plays when there is no key."""

    enabled: bool | None = None
    """Play OpenRouter; unset: when there is no key and no upstream for the catalogue."""
    local_model: bool = True
    """Let the packaged small model write the text, where it is installed."""
    speed: Annotated[float, Meta(ge=0, le=1000)] = 1.0
    """How many times as fast as the real models; 0 never waits."""


class LocalModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model that an upstream serves beside OpenRouter's. Prices in US dollars per million."""

    id: Annotated[str, Meta(min_length=1)]
    """What callers ask for."""
    served_as: str | None = None
    """What the upstream calls it; the same name otherwise."""
    context_length: Annotated[int, Meta(ge=1)] = 32768
    """Longest prompt and answer together, in tokens."""
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    """Longest answer, in tokens; otherwise the context's length."""
    prompt_usd_per_mtok: Dollars = 0.0
    """US dollars per million prompt tokens."""
    completion_usd_per_mtok: Dollars = 0.0
    """US dollars per million answer tokens."""
    kind: Literal["chat", "embedding"] = "chat"
    """What it makes."""


class UpstreamSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place that answers calls; the first without `models` answers for the catalogue."""

    name: Annotated[str, Meta(min_length=1)]
    """What logs and metrics call it."""
    kind: Literal["openrouter", "openai_compatible"] = "openai_compatible"
    """Whether it speaks OpenRouter's extensions or only OpenAI's API."""
    base_url: Annotated[str, Meta(min_length=1)] = "https://openrouter.ai/api/v1"
    """Where its API begins, usually ending in /v1."""
    api_key: str | None = None
    """Its key; better named by api_key_env."""
    api_key_env: str | None = None
    """Environment variable that holds its key."""
    ca_file: str | None = None
    """Certificate authorities (PEM) to trust for it instead of the system's."""
    max_connections: Annotated[int, Meta(ge=1)] = 1000
    """Most connections to it at a time."""
    models: tuple[LocalModel, ...] = ()
    """Models that it serves beside the catalogue; without any it serves the catalogue."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set."""

    data_dir: str = "data"
    """Folder for the ledger, the keys and the kept catalogue."""
    server: Server = Server()
    budget: Budget = Budget()
    routing: Routing = Routing()
    cascade: CascadeSettings = CascadeSettings()
    learning: Learning = Learning()
    catalogue: CatalogueSettings = CatalogueSettings()
    deadlines: Clocks = Clocks()
    telemetry: Telemetry = Telemetry()
    sandbox: Sandbox = Sandbox()
    upstreams: tuple[UpstreamSettings, ...] = ()
    """Where calls go instead of OpenRouter, or beside it."""
