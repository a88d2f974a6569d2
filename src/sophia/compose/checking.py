"""How answers are checked, from the settings."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from sophia.adapters.upstreams.http1.heads import is_target
from sophia.adapters.webhook import Webhook
from sophia.compose.places import pool_of
from sophia.config import ConfigError, Settings, UpstreamSettings
from sophia.core.money import nano_from_usd
from sophia.serving.checking import Checking, Examiner, Verdicts
from sophia.serving.knowledge import Knowledge


def checking_of(
    settings: Settings, knowledge: Knowledge, webhooks: Mapping[str, Examiner], verdicts: Verdicts
) -> Checking:
    """Return how answers are checked. Raises ConfigError for a rubric model that does not exist."""
    wanted = settings.cascade
    if wanted.rubric_model is not None and knowledge.find(wanted.rubric_model) is None:
        raise ConfigError(f"`cascade.rubric_model`: there is no model {wanted.rubric_model!r}")
    return Checking(
        settings.routing.cascade == "auto",
        None if wanted.value_usd is None else nano_from_usd(wanted.value_usd),
        wanted.rubric_model,
        webhooks,
        verdicts,
    )


def webhooks_of(settings: Settings, environ: Mapping[str, str]) -> dict[str, Webhook]:
    """Return the judges that callers may name, by URL; close them. Raises ConfigError."""
    seconds = settings.cascade.webhook_s
    return {url: _webhook(url, seconds, environ) for url in settings.cascade.webhooks}


def _webhook(url: str, seconds: float, environ: Mapping[str, str]) -> Webhook:
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not is_target(path.encode()):
        raise ConfigError(f"`cascade.webhooks`: {url!r} may hold only printable ASCII, no spaces")
    origin = f"{parts.scheme}://{parts.netloc}"
    pool = pool_of(UpstreamSettings(f"webhook {url}", base_url=origin), environ)
    return Webhook(pool, path.encode(), seconds)
