"""Permission for web pages of other origins to call Sophia from a browser (WHATWG Fetch, CORS)."""

from collections.abc import Collection
from dataclasses import dataclass

from sophia.http.wire import Headers, HttpRequest, ResponseWriter, render_header

PREFLIGHT_HEADERS = (
    b"access-control-allow-methods: GET, HEAD, POST\r\n"
    b"access-control-allow-headers: *, Authorization\r\n"
    b"access-control-max-age: 600\r\n"
)


def allow_origin(origins: Collection[str], request_headers: Headers) -> bytes:
    """Return the header lines that let the page read the answer; none without permission."""
    origin = next((value for name, value in request_headers if name == b"origin"), b"")
    text = origin.decode("latin-1")
    if not text or ("*" not in origins and text not in origins):
        return b""
    return (
        render_header(b"access-control-allow-origin", text)
        + b"vary: origin\r\naccess-control-expose-headers: *\r\n"
    )


def is_preflight(incoming: HttpRequest) -> bool:
    """Return whether the browser asks beforehand what it may send."""
    names = {name for name, _ in incoming.headers}
    return incoming.method == b"OPTIONS" and b"access-control-request-method" in names


@dataclass(frozen=True, slots=True)
class WriterWithHeaders:
    """A response writer that adds header lines to every head."""

    writer: ResponseWriter
    lines: bytes

    async def send(self, status: int, headers: bytes, body: bytes) -> None:
        await self.writer.send(status, headers + self.lines, body)

    async def begin(self, status: int, headers: bytes) -> None:
        await self.writer.begin(status, headers + self.lines)

    async def write(self, data: bytes) -> None:
        await self.writer.write(data)

    async def end(self) -> None:
        await self.writer.end()
