"""Upstreams and webhooks by the settings and the environment, with their connections."""

import logging
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

from sophia.adapters.upstreams import dialects
from sophia.adapters.upstreams.http1.heads import is_request_target
from sophia.adapters.upstreams.http1.origin import HttpOrigin, PoolLimits
from sophia.adapters.upstreams.http1.pool import ConnectionPool
from sophia.adapters.upstreams.http1.proxy import find_proxy
from sophia.adapters.upstreams.http_upstream import HttpUpstream
from sophia.adapters.webhook import Webhook
from sophia.config import (
    CascadeSettings,
    ProviderSettings,
    Settings,
    UpstreamSettings,
    is_sandbox_used,
    resolve_upstreams,
)
from sophia.core.errors import ConfigError
from sophia.serving.attempts.targets.dispatch import Deployment, UpstreamsByModel

log = logging.getLogger("sophia.upstreams")

SANDBOX_VARIABLE = "SOPHIA_WORKER_SANDBOX"
"""Holds the address of the sandbox that a supervisor has started for its workers."""


@dataclass(frozen=True, slots=True)
class Connections:
    """Open upstreams, by model and by name, and the sandbox's address if it is one of them."""

    by_model: UpstreamsByModel
    by_name: Mapping[str, HttpUpstream]
    sandbox_url: str | None


async def open_connections(
    settings: Settings, environ: Mapping[str, str], stack: AsyncExitStack
) -> Connections:
    """Return the upstreams, which `stack` closes; must run inside a loop. Raises ConfigError."""
    url = environ.get(SANDBOX_VARIABLE)
    if url is None and is_sandbox_used(settings, environ):
        from sophia.sandbox.process import SandboxProcess  # a twentieth of the time to start

        sandbox = await SandboxProcess.start(
            settings.sandbox.speed, local_model=settings.sandbox.local_model
        )
        stack.push_async_callback(sandbox.close)
        url = sandbox.base_url
    all_settings = resolve_upstreams(settings, environ, url)
    by_name: dict[str, HttpUpstream] = {}
    for each in all_settings:
        if (name := each.api_key_env) and not (each.api_key or environ.get(name)):
            log.warning("%s is not set; %s is called without a key", name, each.name)
        upstream = build_upstream(each, environ, settings.routing.provider)
        by_name[each.name] = upstream
        stack.push_async_callback(upstream.close)
    by_model: dict[str, tuple[Deployment, ...]] = {}
    for each in all_settings:
        for model in each.models:
            known = by_model.get(model.id, ())
            served_as = model.served_as or model.id
            by_model[model.id] = (*known, Deployment(by_name[each.name], served_as, model.weight))
    # Without OpenRouter every model that can be asked for has an upstream of its own.
    default = next((each.name for each in all_settings if not each.models), all_settings[0].name)
    return Connections(UpstreamsByModel(by_name[default], by_model), by_name, url)


def build_connection_pool(upstream: UpstreamSettings, environ: Mapping[str, str]) -> ConnectionPool:
    """Return connections to an upstream, with its key. Raises ConfigError."""
    # Files of secrets often end in a newline.
    key = (upstream.api_key or environ.get(upstream.api_key_env or "", "")).strip()
    headers = [("Content-Type", "application/json"), ("Accept-Encoding", "identity")]
    headers.append(("User-Agent", "sophia-router"))
    if key:
        headers.append(("Authorization", f"Bearer {key}"))
    if upstream.kind == "openrouter":
        headers += [("HTTP-Referer", "https://sophia-ai.com"), ("X-OpenRouter-Title", "Sophia")]
    try:
        origin = HttpOrigin.parse(upstream.base_url)
        context = ssl.create_default_context(cafile=upstream.ca_file) if upstream.ca_file else None
        return ConnectionPool(
            origin,
            limits=PoolLimits(max_connections=upstream.max_connections),
            ssl_context=context,
            proxy=find_proxy(upstream.base_url, environ),
            static_headers=tuple(headers),
        )
    except (ValueError, OSError) as error:
        raise ConfigError(f"upstream {upstream.name!r}: {error}") from None


def describe_proxy(upstream: UpstreamSettings, environ: Mapping[str, str]) -> str | None:
    """Return host and port of the proxy towards an upstream, if any. Raises ValueError."""
    proxy = find_proxy(upstream.base_url, environ)
    return None if proxy is None else f"{proxy.host}:{proxy.port}"


def build_upstream(
    settings: UpstreamSettings, environ: Mapping[str, str], allowed: ProviderSettings
) -> HttpUpstream:
    """Return an upstream; must run inside a loop. Raises ConfigError."""
    is_openrouter = settings.kind == "openrouter"
    return HttpUpstream(
        settings.name,
        "OpenRouter" if is_openrouter else settings.name,
        build_connection_pool(settings, environ),
        dialects.build_openrouter_dialect(allowed)
        if is_openrouter
        else dialects.build_openai_dialect(
            settings.drop, ask_usage=settings.stream_options == "auto"
        ),
        billed_by_generation=is_openrouter,
        is_drained=settings.on_leave == "drain" and not is_openrouter,
    )


def build_webhooks(settings: CascadeSettings, environ: Mapping[str, str]) -> dict[str, Webhook]:
    """Return the webhooks that callers may name, by URL. Raises ConfigError."""
    webhooks = {}
    for url in settings.webhooks:
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not is_request_target(path.encode()):
            raise ConfigError(
                f"`cascade.webhooks`: {url!r} may hold only printable ASCII, no spaces"
            )
        origin = f"{parts.scheme}://{parts.netloc}"
        pool = build_connection_pool(
            UpstreamSettings(name=f"webhook {url}", base_url=origin), environ
        )
        webhooks[url] = Webhook(pool, path.encode(), settings.webhook_s)
    return webhooks
