"""A user's own judge of answers, called over HTTP."""

import logging

import msgspec

from sophia.adapters.upstreams.http1.pool import ConnectionPool
from sophia.core.calls import Deadlines
from sophia.core.failures import UpstreamFailure

log = logging.getLogger("sophia.webhook")

_MAX_RESPONSE_BYTES = 64 * 1024


class _ScoreResponse(msgspec.Struct):
    score: float


_decode = msgspec.json.Decoder(_ScoreResponse).decode


class Webhook:
    """Posts a question with its answer and reads `{"score": 0..1}`.

    `seconds` is the time limit, connecting included.
    """

    def __init__(self, pool: ConnectionPool, path: bytes, seconds: float) -> None:
        self._pool = pool
        self._path = path
        self._deadlines = Deadlines(seconds, seconds, seconds, seconds)

    async def __call__(self, question: bytes) -> float | None:
        """Return the score, from 0 to 1; None when there is none in time."""
        try:
            response = await self._pool.send(b"POST", self._path, question, self._deadlines)
            try:
                body = await response.body(_MAX_RESPONSE_BYTES)
            finally:
                response.close()
            if response.status != 200:
                log.warning("a webhook answered with HTTP %d", response.status)
                return None
            return min(max(_decode(body).score, 0.0), 1.0)
        except (UpstreamFailure, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("a webhook gave no score: %s", error)
            return None

    async def close(self) -> None:
        """Close its connections."""
        await self._pool.close()
