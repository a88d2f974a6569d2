"""Requests, response writers and headers, independent of the server that carries them."""

from typing import Protocol

import msgspec
from msgspec import Struct

from sophia.core.errors import Unauthenticated
from sophia.tenants.keys import Principal

Headers = list[tuple[bytes, bytes]]

JSON_HEADERS = b"content-type: application/json\r\n"
EVENT_STREAM_HEADERS = (
    b"content-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\n"
    b"x-accel-buffering: no\r\n"
)
_CONTROL_CHARACTERS = bytes([*range(32), 127])
encode = msgspec.json.Encoder().encode


class HttpRequest(Struct, kw_only=True):
    """A request that has arrived in full; header names are in lower case.

    `fields` are the headers by name, of repeated ones the last. `principal` is the owner of the
    key, on routes that need one.
    """

    method: bytes
    path: str
    query: bytes
    headers: Headers
    fields: dict[bytes, bytes]
    body: bytes = b""
    principal: Principal | None = None

    def require_principal(self) -> Principal:
        """Return the owner of the key. Raises Unauthenticated when no key was checked."""
        if self.principal is None:
            raise Unauthenticated
        return self.principal


class ResponseWriter(Protocol):
    """Destination of the answer. `headers` are complete header lines, each ending in CRLF.

    An answer is sent at once, or by `begin`, `write`s and `end` when its length is unknown. `write`
    waits while the client reads too slowly.
    """

    async def send(self, status: int, headers: bytes, body: bytes) -> None: ...
    async def begin(self, status: int, headers: bytes) -> None: ...
    async def write(self, data: bytes) -> None: ...
    async def end(self) -> None: ...


async def send_json(reply: ResponseWriter, value: object) -> None:
    """Send `value` as JSON with status 200."""
    await reply.send(200, JSON_HEADERS, encode(value))


def render_header(name: bytes, value: str) -> bytes:
    """Return one header line; control characters cannot split it."""
    clean = value.encode("ascii", "replace")
    if not value.isprintable():
        clean = clean.translate(None, _CONTROL_CHARACTERS)
    return b"%b: %b\r\n" % (name, clean)
