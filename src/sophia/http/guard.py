"""Checks of a request's head before anything is kept of it: size, framing, host and target."""

import re
from collections.abc import Collection, Mapping, Sequence

from sophia.core.errors import BadRequest, BodyTooLarge, HeadersTooLarge
from sophia.http.wire import Headers

MAX_FIELDS = 100
MAX_HEAD_BYTES = 32 * 1024

_FRAMING = (b"host", b"content-length", b"transfer-encoding")
_HOST = re.compile(rb"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_ORIGIN = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_PATH = re.compile(rb"/[!-\[\]-~]*")
_QUERY = re.compile(rb"[!-~]*")
# A dot segment in any spelling, an empty one, or an escape that is none, or of a control character
# or a backslash.
_UNCLEAR = re.compile(
    rb"//|(?:/|%2f)(?:\.|%2e){1,2}(?:/|%2f|$)|%(?:[01][0-9a-f]|7f|5c|(?![0-9a-f]{2}))",
    re.IGNORECASE,
)
_ENCODED_SLASH = re.compile(rb"%2f", re.IGNORECASE)


def build_size_error() -> HeadersTooLarge:
    """Return the error for a head over the limits."""
    return HeadersTooLarge(
        f"The head of the request is over {MAX_FIELDS} fields or {MAX_HEAD_BYTES:,} bytes; send "
        "fewer or shorter headers, and what is long in the body."
    )


def check_size(target: bytes, headers: Headers) -> None:
    """Raise HeadersTooLarge for a head over the limits."""
    size = len(target) + sum([len(name) + len(value) + 4 for name, value in headers])
    if len(headers) > MAX_FIELDS or size > MAX_HEAD_BYTES:
        raise build_size_error()


def check_framing(
    headers: Headers, fields: Mapping[bytes, bytes], version: str, max_body_bytes: int
) -> None:
    """Raise BadRequest unless a head says in one way only where its body ends.

    `fields` are the headers by name. Raises BodyTooLarge for a length over the limit.
    """
    if len(fields) != len(headers):
        names = [name for name, _ in headers]
        if repeated := [name.decode() for name in _FRAMING if names.count(name) > 1]:
            raise BadRequest(f"The header {repeated[0]} is repeated; send it once.")
    length = fields.get(b"content-length")
    if b"transfer-encoding" in fields:
        if length is not None:
            raise BadRequest("Send Content-Length or Transfer-Encoding, not both.")
        if version != "1.1" or fields[b"transfer-encoding"].lower() != b"chunked":
            raise BadRequest("The only Transfer-Encoding is chunked, in HTTP/1.1; send no other.")
    if length is not None:
        if not length.isdigit():
            raise BadRequest("The Content-Length is not a number of bytes.")
        if int(length[:20]) > max_body_bytes:
            raise build_body_error(max_body_bytes)


def expects_continue(fields: Mapping[bytes, bytes], version: str) -> bool:
    """Return whether the client sends its body only after a word that it may."""
    return version == "1.1" and fields.get(b"expect", b"").lower() == b"100-continue"


def build_body_error(limit: int) -> BodyTooLarge:
    """Return the error for a body over the limit."""
    return BodyTooLarge(
        f"The request body is over {limit:,} bytes (setting server.max_body_bytes)."
    )


def check_host(host: bytes | None, version: str, allowed: Collection[str]) -> None:
    """Raise BadRequest unless `host` is valid and among the `allowed` names, any without these."""
    match = None if host is None else _HOST.fullmatch(host)
    if match is None:
        if host is None and version == "1.0" and not allowed:
            return
        raise BadRequest("The header Host must be one name or address, with a port or without.")
    if not allowed:
        return
    name = match[1].decode().lower().rstrip(".")
    if not any(_matches(name, pattern.lower()) for pattern in allowed):
        raise BadRequest(
            f"The host {name!r} is not served here; its name belongs into server.allowed_hosts."
        )


def _matches(name: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and len(name) >= len(pattern)
    return name == pattern


def split_target(target: bytes, stems: Sequence[bytes]) -> tuple[bytes | None, str, bytes]:
    """Return the host of a request target, if it names one, its path and its query.

    Slashes may be encoded below the `stems` only: OpenAI's clients send the ids of models so.
    Raises BadRequest for a path that others could read in another way.
    """
    host = None
    if origin := _ORIGIN.match(target):
        host, target = origin[1], target[origin.end() :]
    path, _, query = target.partition(b"?")
    path = path or b"/"
    if not _PATH.fullmatch(path) or not _QUERY.fullmatch(query) or b"#" in target:
        raise BadRequest("The request target must be a path of printable ASCII without a fragment.")
    slash = _ENCODED_SLASH.search(path)
    if _UNCLEAR.search(path) or (slash and not path.startswith(tuple(stems))):
        raise BadRequest(
            "The path is not canonical; send it without empty or dot segments, encoded slashes, "
            "backslashes and control characters."
        )
    return host, path.decode(), query
