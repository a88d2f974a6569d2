"""Where an answer's body ends when only its head is known."""

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
