"""How one attempt at an upstream fails: a fact for the walk, never an answer to the caller."""

from enum import StrEnum


class FailureKind(StrEnum):
    """What happened, named after where it was noticed."""

    DNS = "dns"
    REFUSED = "refused"
    TLS = "tls"
    CONNECT_TIMEOUT = "connect_timeout"
    RESET = "reset"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    CONTENT_TIMEOUT = "content_timeout"
    STALL = "stall"
    TOTAL_TIMEOUT = "total_timeout"
    CUT = "cut"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    EMPTY = "empty"
    STATUS = "status"
    IN_BAND = "in_band"
    POOL_EXHAUSTED = "pool_exhausted"


class UpstreamFailure(Exception):
    """One attempt failed.

    Args:
        kind: where the failure was noticed.
        message: what the upstream said, or what went wrong; without secrets.
        status: HTTP status of the answer or of the in-band error, if there was one.
        error_type: OpenRouter's `metadata.error_type`, if known.
        retry_after: seconds the upstream asked us to wait, if it did.
        sent: whether any byte of the request may have reached the upstream (so it may bill).
        provider: the provider behind the upstream, if it was named.
    """

    def __init__(  # noqa: PLR0913 - the facts of one failure, each by name
        self,
        kind: FailureKind,
        message: str = "",
        *,
        status: int | None = None,
        error_type: str | None = None,
        retry_after: float | None = None,
        sent: bool = True,
        provider: str | None = None,
    ) -> None:
        self.kind = kind
        self.message = message or str(kind)
        self.status = status
        self.error_type = error_type
        self.retry_after = retry_after
        self.sent = sent
        self.provider = provider
        super().__init__(f"{kind}: {self.message}")
