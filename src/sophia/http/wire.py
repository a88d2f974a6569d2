"""One request in and one reply out, whichever server carries them."""

import http
from dataclasses import dataclass
from typing import Protocol

Headers = list[tuple[bytes, bytes]]

JSON = b"content-type: application/json\r\n"
EVENTS = (
    b"content-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\n"
    b"x-accel-buffering: no\r\n"
)
REASONS = {status.value: status.phrase.encode() for status in http.HTTPStatus}


@dataclass(slots=True)
class Incoming:
    """A request that has arrived in full; header names are in lower case."""

    method: bytes
    path: str
    query: bytes
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a header, or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Reply(Protocol):
    """Where the answer goes. `headers` are complete header lines, each ending in CRLF."""

    async def whole(self, status: int, headers: bytes, body: bytes) -> None:
        """Send a complete answer."""

    async def begin(self, status: int, headers: bytes) -> None:
        """Send the head of an answer whose length is not known."""

    async def write(self, data: bytes) -> None:
        """Send a part of the body; waits while the client reads too slowly."""

    async def end(self) -> None:
        """Say that the body is complete."""


def line(name: bytes, value: str) -> bytes:
    """Return one header line; control characters cannot split it."""
    clean = value.encode("ascii", "replace").translate(None, b"\r\n\0")
    return name + b": " + clean + b"\r\n"
