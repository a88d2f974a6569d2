"""Where calls go: the upstreams that the settings and the environment name."""

import asyncio
import ssl
from collections.abc import Mapping

from sophia.adapters.upstreams import dialects
from sophia.adapters.upstreams.http1 import Limits as PoolLimits
from sophia.adapters.upstreams.http1 import Origin, Pool, proxy_for
from sophia.adapters.upstreams.http_upstream import HttpUpstream
from sophia.config import ConfigError, Settings, UpstreamSettings
from sophia.core.ports import Upstream

OPENROUTER = "https://openrouter.ai/api/v1"


def wants_sandbox(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Say whether Sophia plays OpenRouter itself: no key and no upstream of one's own."""
    if settings.sandbox.enabled is not None:
        return settings.sandbox.enabled
    return not environ.get("OPENROUTER_API_KEY") and not any(
        not place.models for place in settings.upstreams
    )


def places_of(
    settings: Settings, environ: Mapping[str, str], sandbox: str | None
) -> tuple[UpstreamSettings, ...]:
    """Return every upstream, the one that serves the catalogue by default first."""
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
    for place in places_of(settings, environ, None):
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
            ("HTTP-Referer", "https://sophia-ai.com"),
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


def proxy_to(place: UpstreamSettings, environ: Mapping[str, str]) -> str | None:
    """Return host and port of the proxy on the way to an upstream, None when there is none.

    Raises ValueError when the variable that names it holds no address.
    """
    proxy = proxy_for(place.base_url, environ)
    return None if proxy is None else f"{proxy.host}:{proxy.port}"


def upstream_of(place: UpstreamSettings, environ: Mapping[str, str]) -> HttpUpstream:
    """Return the upstream itself; must run inside a loop. Raises ConfigError."""
    is_openrouter = place.kind == "openrouter"
    return HttpUpstream(
        place.name,
        "OpenRouter" if is_openrouter else place.name,
        pool_of(place, environ),
        dialects.OpenRouter() if is_openrouter else dialects.openai_compatible,
        asyncio.get_running_loop().time,
        billed_by_generation=is_openrouter,
    )


def by_model(
    places: tuple[UpstreamSettings, ...], built: Mapping[str, HttpUpstream]
) -> dict[str, tuple[Upstream, str]]:
    """Return the models that have a place of their own, with the id they have there."""
    return {
        model.id: (built[place.name], model.served_as or model.id)
        for place in places
        for model in place.models
    }
