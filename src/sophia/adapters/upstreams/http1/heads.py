"""Heads of requests, checked and joined once for all calls, and facts from heads of responses."""

import re
from collections.abc import Iterable, Sequence

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(rb"/[!-\"$-~]*")
_RESERVED_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection"})


def is_request_target(path: bytes) -> bool:
    """Return whether `path` is valid in a request line: a slash, printable ASCII, no `#`."""
    return _TARGET.fullmatch(path) is not None


def header_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    r"""Join headers into lines that each end with \r\n.

    Raises ValueError, with the header's name but never its value, which may be a key.
    """
    lines = []
    for name, value in headers:
        if _HEADER_NAME.fullmatch(name) is None:
            raise ValueError("A header's name holds a character that HTTP does not allow.")
        if name.lower() in _RESERVED_HEADERS:
            raise ValueError(f"The header {name} is set by the client itself; leave it out.")
        if _HEADER_VALUE.fullmatch(value) is None:
            raise ValueError(f"The header {name} holds a control character or is not Latin-1.")
        lines.append(f"{name}: {value}\r\n".encode("latin-1"))
    return b"".join(lines)


class RequestHead:
    """The part of the head that all requests to one origin share.

    `target` is the prefix of each path: the base path, or for a plain proxy the base URL.
    `authority` is the value of Host; each of the header `lines` ends with CRLF.
    """

    __slots__ = ("_block", "_cached_call", "_cached_start", "_target")

    def __init__(self, target: str, authority: str, lines: bytes) -> None:
        self._target = target.encode()
        self._block = b" HTTP/1.1\r\nHost: " + authority.encode() + b"\r\n" + lines
        self._cached_call = (b"", b"")
        self._cached_start = b""

    def render(self, method: bytes, path: bytes, size: int | None) -> bytes:
        """Return the head with its blank line; `size` is the body's, None if there is no body.

        Raises ValueError if `path` or `method` would break the request apart.
        """
        if self._cached_call != (method, path):
            # Most calls have the path of the call before: they share one check and one join.
            if _TARGET.fullmatch(path) is None or not method.isalpha():
                raise ValueError("A request path must be printable ASCII that starts with a slash.")
            self._cached_start = b"".join((method, b" ", self._target, path, self._block))
            self._cached_call = method, path
        length = b"\r\n" if size is None else b"Content-Length: %d\r\n\r\n" % size
        return self._cached_start + length


def is_close_delimited(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Return whether the body runs until the connection ends (RFC 9112, section 6.3).

    Over TLS such an end cannot be distinguished from a cut; event loops hide close_notify.
    """
    coding = b""
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"content-length":
            return False
        if lowered == b"transfer-encoding":
            coding = value.rpartition(b",")[2].strip().lower()
    return coding != b"chunked"
