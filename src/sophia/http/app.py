"""State and authentication of the HTTP handlers, and the border where errors become answers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sophia.config import ServerSettings
from sophia.core.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    SophiaError,
    Unauthenticated,
    Unavailable,
)
from sophia.core.ids import IdGenerator, encode_id
from sophia.http.cors import PREFLIGHT_HEADERS, WriterWithHeaders, allow_origin, is_preflight
from sophia.http.errors import send_error
from sophia.http.idempotency import IdempotentAnswers
from sophia.http.wire import HttpRequest, ResponseWriter
from sophia.serving.feedback.recorder import FeedbackRecorder
from sophia.serving.runtime import Runtime
from sophia.tenants.keys import KeyRing, Principal, parse_key_id

log = logging.getLogger("sophia.http")

_KEY_REFRESH_SECONDS = 0.05

Handler = Callable[["App", HttpRequest, ResponseWriter], Awaitable[object]]


class Route(NamedTuple):
    """A handler, and whether it is for the owners of keys only."""

    handler: Handler
    needs_key: bool


@dataclass(slots=True, kw_only=True)
class App:
    """State of the running server.

    `render_metrics` returns the Prometheus page, `list_workers` a description of each process that
    serves. `not_ready_reason` and `ledger_problem` return a sentence, or an empty string while all
    is well; `is_stopping` says whether connections should be closed. `record_score` gets the
    scores of models from feedback, `feedback_recorder` all feedback with a score.
    """

    runtime: Runtime
    key_ring: KeyRing
    ids: IdGenerator
    render_metrics: Callable[[], Awaitable[bytes]]
    list_workers: Callable[[], Awaitable[list[object]]]
    ledger_problem: Callable[[], str]
    server: ServerSettings
    record_score: Callable[[str, float], None]
    feedback_recorder: FeedbackRecorder | None = None
    not_ready_reason: Callable[[], str] = lambda: ""
    is_stopping: Callable[[], bool] = lambda: False
    idempotent_answers: IdempotentAnswers = field(default_factory=IdempotentAnswers)
    _keys_refreshed_at: float = field(default=float("-inf"), init=False)
    _keys_lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def shutting_down(self) -> Unavailable:
        """Return the error for a request that is refused or interrupted because Sophia stops."""
        return Unavailable("Sophia is shutting down; try again.", retry_after=1)

    def new_request_id(self) -> str:
        """Return a fresh request id as text, for an answer that has none yet."""
        return encode_id("req", self.ids.next())

    def identify(self, incoming: HttpRequest) -> bool:
        """Set the owner of the key in `Authorization: Bearer` or `x-api-key`.

        Some clients send both headers: one valid key among them is enough. Returns False for a key
        that may have been created a moment ago, which `identify_new` looks up.

        Raises Unauthenticated without a valid key, BadRequest for two different valid ones, and
        Forbidden for an admin key, which never pays for inference.
        """
        fields = incoming.fields
        value = fields.get(b"authorization", b"")
        is_usual = value[:7] == b"Bearer " and b"x-api-key" not in fields
        if is_usual and len(fields) == len(incoming.headers) and (token := value[7:].strip()):
            tokens = [token]
            principal = self.key_ring.authenticate(token)
        else:
            tokens = _parse_keys(incoming)
            principal = self._find_principal(tokens)
        if principal is None:
            if any(map(parse_key_id, tokens)):
                return False
            raise _build_key_error()
        if principal.scope != "inference":
            raise Forbidden("An admin key cannot call models; use an inference key.")
        incoming.principal = principal
        return True

    async def identify_new(self, incoming: HttpRequest) -> None:
        """Set the owner of a key after the keys have been read again. Raises as `identify`."""
        await self._refresh_keys()
        if not self.identify(incoming):
            raise _build_key_error()

    def _find_principal(self, tokens: Sequence[bytes]) -> Principal | None:
        """Return the owner of the one valid key. Raises BadRequest for two of different owners."""
        found = {one.key_id: one for one in map(self.key_ring.authenticate, tokens) if one}
        if len(found) > 1:
            raise BadRequest("The request has two keys; send one, as Authorization or x-api-key.")
        return next(iter(found.values()), None)

    async def _refresh_keys(self) -> None:
        """Reload the keys, since one may have been created a moment ago.

        Wrong keys cannot make it a load: reloads are some time apart, and one serves all that wait.
        """
        ledger = self.runtime.ledger
        arrived = ledger.clock.monotonic()
        async with self._keys_lock:
            now = ledger.clock.monotonic()
            if self._keys_refreshed_at >= arrived:
                return
            await asyncio.sleep(max(self._keys_refreshed_at + _KEY_REFRESH_SECONDS - now, 0.0))
            self._keys_refreshed_at = ledger.clock.monotonic()
            self.key_ring.replace(await ledger.store.keys())


def _build_key_error() -> Unauthenticated:
    return Unauthenticated(
        "This key is not valid. Keys look like sk-sph-…; "
        "`sophia keys create --name NAME` makes one."
    )


def _parse_keys(incoming: HttpRequest) -> list[bytes]:
    """Return the keys that a request carries, each once. Raises Unauthenticated without any."""
    found = [_parse_key(name, value) for name, value in incoming.headers]
    tokens = [token for token in dict.fromkeys(found) if token]
    if tokens:
        return tokens
    if b"" in found:
        raise Unauthenticated(
            "The key is empty: send the one that begins with sk-sph-. Is SOPHIA_API_KEY set?"
        )
    raise Unauthenticated


def _parse_key(name: bytes, value: bytes) -> bytes | None:
    """Return the key in a header, which may be empty, or None if it is another header."""
    if name == b"authorization":
        scheme, _, token = value.partition(b" ")
        return token.strip() if scheme.lower() == b"bearer" else None
    return value.strip() if name == b"x-api-key" else None


async def run_handler(
    app: App,
    route: Route,
    incoming: HttpRequest,
    reply: ResponseWriter,
    receive_body: Callable[[], Awaitable[bytes]] | None = None,
) -> None:
    """Run the handler of `route`; an exception becomes an error answer.

    `receive_body` returns a body that has not arrived yet; before it the key is checked.
    """
    origins = app.server.cors_origins
    if origins and (headers := allow_origin(origins, incoming.headers)):
        if is_preflight(incoming):
            return await reply.send(204, headers + PREFLIGHT_HEADERS, b"")
        reply = WriterWithHeaders(reply, headers)
    try:
        if route.needs_key and incoming.principal is None and not app.identify(incoming):
            await app.identify_new(incoming)
        if receive_body is not None:
            incoming.body = await receive_body()
        await route.handler(app, incoming, reply)
    except SophiaError as error:
        await send_error(reply, error, app.new_request_id())
    except asyncio.CancelledError:
        # Otherwise the caller is gone, and there is nobody to answer.
        if not app.runtime.interrupted:
            raise
        await send_error(reply, app.shutting_down(), app.new_request_id())
    except Exception:
        # The border: our own mistake must reach the caller as a clean 500, and the log in full.
        request_id = app.new_request_id()
        log.exception("request failed", extra={"request_id": request_id})
        internal = InternalError("Internal error; the log has the details under this request id.")
        await send_error(reply, internal, request_id)
