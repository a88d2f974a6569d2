"""The head of a request as bytes: checked and joined once, completed for each call."""

import re
from collections.abc import Iterable

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(rb"/[!-\"$-~]*")
_OWN = frozenset({"host", "content-length", "transfer-encoding", "connection"})


def is_target(path: bytes) -> bool:
    """Whether `path` may stand in a request line: printable ASCII from a slash on, no `#`."""
    return _TARGET.fullmatch(path) is not None


def header_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    r"""Join headers into lines that each end with \r\n.

    Raises ValueError naming the header, never its value, which may be a key.
    """
    lines = []
    for name, value in headers:
        if _TOKEN.fullmatch(name) is None:
            raise ValueError("A header's name holds a character that HTTP does not allow.")
        if name.lower() in _OWN:
            raise ValueError(f"The header {name} is set by the client itself; leave it out.")
        if _VALUE.fullmatch(value) is None:
            raise ValueError(f"The header {name} holds a control character or is not Latin-1.")
        lines.append(f"{name}: {value}\r\n".encode("latin-1"))
    return b"".join(lines)


class RequestHead:
    """What every request to one origin has in common.

    Args:
        target: what stands before the path of each call: the base path, or for a plain proxy the
            whole base URL.
        authority: the value of Host.
        lines: header lines, each ending with CRLF.
    """

    __slots__ = ("_block", "_known", "_start", "_target")

    def __init__(self, target: str, authority: str, lines: bytes) -> None:
        self._target = target.encode()
        self._block = b" HTTP/1.1\r\nHost: " + authority.encode() + b"\r\n" + lines
        self._known = (b"", b"")
        self._start = b""

    def render(self, method: bytes, path: bytes, size: int | None, lines: bytes) -> bytes:
        """Return the head with its blank line; `size` is the body's, None if there is no body.

        Raises ValueError if `path`, `method` or `lines` would break the request apart.
        """
        if self._known != (method, path):
            # Nearly every call goes where the last one went: one check and one join do for all.
            if _TARGET.fullmatch(path) is None or not method.isalpha():
                raise ValueError("A request path must be printable ASCII that starts with a slash.")
            self._start = b"".join((method, b" ", self._target, path, self._block))
            self._known = method, path
        if lines and (lines[-2:] != b"\r\n" or b"\r\n\r\n" in lines or b"\0" in lines):
            raise ValueError("Extra header lines must each end with CRLF and hold no blank line.")
        length = b"\r\n" if size is None else b"Content-Length: %d\r\n\r\n" % size
        return b"".join((self._start, lines, length))
