"""What an answer's head says about its size and about where its body ends."""

from collections.abc import Sequence


def ends_with_connection(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether the body runs until the connection ends (RFC 9112, section 6.3).

    Over TLS such an end cannot be told from an attacker's cut; event loops hide close_notify.
    """
    coding = b""
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"content-length":
            return False
        if lowered == b"transfer-encoding":
            coding = value.rpartition(b",")[2].strip().lower()
    return coding != b"chunked"


def size_of(headers: Sequence[tuple[bytes, bytes]]) -> int:
    """Bytes that `headers` took on the wire, to within optional spaces."""
    return sum(len(name) + len(value) + 4 for name, value in headers)
