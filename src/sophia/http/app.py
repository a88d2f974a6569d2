"""State and authentication of the HTTP handlers, and the border where errors become answers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sophia.core.errors import (
    BadRequest,
    BodyTooLarge,
    Forbidden,
    InternalError,
    SophiaError,
    Unauthenticated,
)
from sophia.core.ids import IdGenerator, encode_id
from sophia.http.errors import send_error
from sophia.http.wire import HttpRequest, ResponseWriter
from sophia.serving.feedback.recorder import FeedbackRecorder
from sophia.serving.runtime import Runtime
from sophia.tenants.keys import KeyRing, Principal

log = logging.getLogger("sophia.http")

Handler = Callable[["App", HttpRequest, ResponseWriter], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class App:
    """State of the running server.

    `render_metrics` returns the Prometheus page. `not_ready_reason` and `ledger_problem` return a
    sentence, or an empty string while all is well. `record_score` gets the scores of models from
    feedback, `feedback_recorder` all feedback with a score.
    """

    runtime: Runtime
    key_ring: KeyRing
    ids: IdGenerator
    render_metrics: Callable[[], bytes]
    ledger_problem: Callable[[], str]
    max_body_bytes: int
    record_score: Callable[[str, float], None]
    feedback_recorder: FeedbackRecorder | None = None
    not_ready_reason: Callable[[], str] = lambda: ""
    _keys_refreshed_at: float = field(default=float("-inf"), init=False)
    _keys_lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def new_request_id(self) -> str:
        """Return a fresh request id as text, for an answer that has none yet."""
        return encode_id("req", self.ids.next())

    def body_too_large(self) -> BodyTooLarge:
        """Return the error for a body over the limit."""
        limit = f"{self.max_body_bytes:,} bytes (setting server.max_body_bytes)"
        return BodyTooLarge(f"The request body is over {limit}.")

    async def authenticate(self, incoming: HttpRequest) -> Principal:
        """Return the owner of the key in `Authorization: Bearer` or `x-api-key`.

        Raises Unauthenticated without a valid key, BadRequest for two keys at once, and Forbidden
        for an admin key, which never pays for inference.
        """
        token = _parse_bearer_key(incoming)
        principal = self.key_ring.authenticate(token)
        if principal is None:
            await self._refresh_keys()
            principal = self.key_ring.authenticate(token)
        if principal is None:
            raise Unauthenticated(
                "This key is not valid. Keys look like sk-sph-…; "
                "`sophia keys create --name NAME` makes one."
            )
        if principal.scope != "inference":
            raise Forbidden("An admin key cannot call models; use an inference key.")
        return principal

    async def _refresh_keys(self) -> None:
        """Reload the keys, at most once a second: one may have been created a moment ago."""
        ledger = self.runtime.ledger
        async with self._keys_lock:
            if ledger.clock.monotonic() - self._keys_refreshed_at >= 1.0:
                self._keys_refreshed_at = ledger.clock.monotonic()
                self.key_ring.replace(await ledger.store.keys())


def _parse_bearer_key(incoming: HttpRequest) -> bytes:
    """Return the one key that a request carries. Raises Unauthenticated or BadRequest."""
    keys = [pair for pair in incoming.headers if pair[0] in (b"authorization", b"x-api-key")]
    if not keys:
        raise Unauthenticated
    if len(keys) > 1:
        raise BadRequest("The request has two keys; send one, as Authorization or as x-api-key.")
    name, token = keys[0]
    if name == b"authorization":
        scheme, _, token = token.partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthenticated
    if not (token := token.strip()):
        raise Unauthenticated(
            "The key is empty: send the one that begins with sk-sph-. Is SOPHIA_API_KEY set?"
        )
    return token


async def run_handler(
    app: App, find: Callable[[bytes, str], Handler], incoming: HttpRequest, reply: ResponseWriter
) -> None:
    """Run the handler that `find` returns; an exception becomes an error answer."""
    try:
        await find(incoming.method, incoming.path)(app, incoming, reply)
    except SophiaError as error:
        await send_error(reply, error, app.new_request_id())
    except Exception:
        # The border: our own mistake must reach the caller as a clean 500, and the log in full.
        request_id = app.new_request_id()
        log.exception("request failed", extra={"request_id": request_id})
        internal = InternalError("Internal error; the log has the details under this request id.")
        await send_error(reply, internal, request_id)
