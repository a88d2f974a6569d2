"""Routes for operators: health, metrics and an index."""

from sophia import __version__
from sophia.core.errors import Unavailable
from sophia.http.app import App
from sophia.http.wire import HttpRequest, ResponseWriter, send_json


async def get_liveness(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
    """Answer `GET /health/live`: the event loop runs."""
    await send_json(reply, {"status": "live"})


async def get_readiness(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
    """Answer `GET /health/ready`: 200, or 503 with the reason."""
    reason = app.not_ready_reason() or app.ledger_problem()
    if reason:
        raise Unavailable(reason, retry_after=1)
    await send_json(reply, {"status": "ready"})


async def get_health(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
    """Answer `GET /health`: the state of every process that serves, always with 200."""
    reason = app.not_ready_reason() or app.ledger_problem()
    health = {"status": reason or "ready", "version": __version__}
    await send_json(reply, health | {"workers": await app.list_workers()})


async def get_metrics(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
    """Answer `GET /metrics` in Prometheus' text format."""
    page = await app.render_metrics()
    await reply.send(200, b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n", page)


async def get_index(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
    """Answer `GET /` with the version and the entry points."""
    index = {
        "name": "Sophia",
        "version": __version__,
        "base_url": "/v1",
        "ask_for": "sophia/auto",
        "openapi": "/openapi.json",
        "models": len(app.runtime.knowledge.catalogue.models),
    }
    await send_json(reply, index)
