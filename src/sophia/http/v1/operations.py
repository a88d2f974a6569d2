"""What operators look at: health, metrics, the OpenAPI document and a welcome."""

import asyncio

import msgspec

from sophia import __version__
from sophia.core.errors import Unavailable
from sophia.http.front import Front
from sophia.http.v1.openapi import document
from sophia.http.wire import JSON, Incoming, Reply

encode = msgspec.json.Encoder().encode
_METRICS = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"


async def live(front: Front, incoming: Incoming, reply: Reply) -> None:
    """Answer `GET /health/live`: the event loop turns."""
    await reply.whole(200, JSON, b'{"status":"live"}')


async def ready(front: Front, incoming: Incoming, reply: Reply) -> None:
    """Answer `GET /health/ready`: 200, or 503 with the reason."""
    reason = front.ready() or front.troubled()
    if reason:
        raise Unavailable(reason, retry_after=1)
    await reply.whole(200, JSON, b'{"status":"ready"}')


async def metrics(front: Front, incoming: Incoming, reply: Reply) -> None:
    """Answer `GET /metrics` in Prometheus' text format."""
    # A page of many series takes milliseconds to write: not on the loop that serves.
    page = await asyncio.get_running_loop().run_in_executor(None, front.metrics)
    await reply.whole(200, _METRICS, page)


async def openapi(front: Front, incoming: Incoming, reply: Reply) -> None:
    """Answer `GET /openapi.json`."""
    await reply.whole(200, JSON, encode(document()))


async def welcome(front: Front, incoming: Incoming, reply: Reply) -> None:
    """Answer `GET /`: where to go from here."""
    told = {
        "name": "Sophia",
        "version": __version__,
        "base_url": "/v1",
        "ask_for": "sophia/auto",
        "openapi": "/openapi.json",
        "models": len(front.desk.knowledge.catalogue.models),
    }
    await reply.whole(200, JSON, encode(told))
