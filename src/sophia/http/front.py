"""What the handlers share: the desk, the keys and the few facts of the running server."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sophia.core.errors import BadRequest, Forbidden, InternalError, SophiaError, Unauthenticated
from sophia.core.ids import Ids, encode
from sophia.http.errors import error_reply
from sophia.http.wire import Incoming, Reply
from sophia.serving.desk import Desk
from sophia.serving.teach import Teacher
from sophia.tenants.keys import KeyRing, Principal

log = logging.getLogger("sophia.http")

Handler = Callable[["Front", Incoming, Reply], Awaitable[None]]
Finder = Callable[[bytes, str], Handler]
_KEY_REFRESH_SECONDS = 1.0


@dataclass(slots=True)
class Front:
    """The standing parts of the data plane.

    `metrics` renders the Prometheus page; `ready` says why the server is not ready, or nothing, and
    `troubled` why the ledger is not;
    `scored` hears of each model's score from feedback, `teacher` of every verdict.
    """

    desk: Desk
    keys: KeyRing
    ids: Ids
    metrics: Callable[[], bytes]
    ready: Callable[[], str]
    troubled: Callable[[], str]
    max_body_bytes: int = 10 * 1024 * 1024
    scored: Callable[[str, float], None] = lambda model, score: None
    teacher: Teacher | None = None
    keys_read_at: float = field(default=float("-inf"))
    reading_keys: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def principal(self, incoming: Incoming) -> Principal:
        """Return who asks, from `Authorization: Bearer` or `x-api-key`.

        Raises:
            Unauthenticated: no key, or one that is not valid.
            BadRequest: two keys at once.
            Forbidden: an admin key; those never pay for inference.
        """
        token = _token(incoming)
        found = self.keys.find(token)
        if found is None and not self.keys.knows(token):
            await self._read_keys()
            found = self.keys.find(token)
        if found is None:
            raise Unauthenticated(
                "This key is not valid. Keys look like sk-sph-…; "
                "`sophia keys create --name NAME` makes one."
            )
        if found.scope != "inference":
            raise Forbidden("An admin key cannot ask models; use an inference key.")
        return found

    async def _read_keys(self) -> None:
        """Read the keys again, at most once a second: one may have been made a moment ago."""
        clock = self.desk.books.clock
        async with self.reading_keys:
            if clock.monotonic() - self.keys_read_at >= _KEY_REFRESH_SECONDS:
                self.keys_read_at = clock.monotonic()
                self.keys.replace(await self.desk.books.store.keys())


def _token(incoming: Incoming) -> bytes:
    """Return the one key that a request carries. Raises Unauthenticated or BadRequest."""
    carrier, token = b"", b""
    for name, value in incoming.headers:
        if name == b"authorization" or name == b"x-api-key":
            if carrier:
                raise BadRequest(
                    "Two keys came at once; send one, as Authorization or as x-api-key."
                )
            carrier, token = name, value
    if carrier == b"authorization":
        scheme, _, token = token.partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthenticated
    if not carrier:
        raise Unauthenticated
    return token.strip()


async def answer(front: Front, find: Finder, incoming: Incoming, reply: Reply) -> None:
    """Run the handler that `find` names; what goes wrong before an answer began gets its shape."""
    try:
        await find(incoming.method, incoming.path)(front, incoming, reply)
    except SophiaError as error:
        headers, body = error_reply(error, encode("req", front.ids.next()))
        await reply.whole(error.status, headers, body)
    except Exception:
        # The border: a mistake of ours must reach the caller as a clean 500, and the log in full.
        request_id = encode("req", front.ids.next())
        log.exception("request failed", extra={"request_id": request_id})
        headers, body = error_reply(
            InternalError("Sophia made a mistake; the log has the details under this request id."),
            request_id,
        )
        await reply.whole(500, headers, body)
