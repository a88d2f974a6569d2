"""How answers are checked, from the settings."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from sophia.adapters.upstreams.http1.heads import is_target
from sophia.adapters.webhook import Webhook
from sophia.compose.places import pool_of
from sophia.config import ConfigError, Settings, UpstreamSettings
from sophia.core.money import nano_from_usd
from sophia.core.ports import Store
from sophia.serving.checking import Checking, Hearer, Verdicts
from sophia.serving.knowledge import Knowledge


def checking_of(
    settings: Settings,
    environ: Mapping[str, str],
    knowledge: Knowledge,
    store: Store,
    hear: Hearer | None,
) -> Checking:
    """Return how answers are checked; `hear` learns from what is found. Raises ConfigError."""
    wanted = settings.cascade
    if wanted.rubric_model is not None and knowledge.find(wanted.rubric_model) is None:
        raise ConfigError(f"`cascade.rubric_model`: there is no model {wanted.rubric_model!r}")
    return Checking(
        settings.routing.cascade == "auto",
        None if wanted.value_usd is None else nano_from_usd(wanted.value_usd),
        wanted.rubric_model,
        {url: _webhook(url, wanted.webhook_s, environ) for url in wanted.webhooks},
        Verdicts(store, hear),
    )


def _webhook(url: str, seconds: float, environ: Mapping[str, str]) -> Webhook:
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not is_target(path.encode()):
        raise ConfigError(f"`cascade.webhooks`: {url!r} may hold only printable ASCII, no spaces")
    origin = f"{parts.scheme}://{parts.netloc}"
    pool = pool_of(UpstreamSettings(f"webhook {url}", base_url=origin), environ)
    return Webhook(pool, path.encode(), seconds)
