"""Failures of one attempt at an upstream, handled by the failover."""

from asyncio import CancelledError
from dataclasses import dataclass, field
from enum import StrEnum

from sophia.core.calls import ChunkBatch


class FailureKind(StrEnum):
    """Kind of a failure, named after the point where it was noticed."""

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
    REPETITION = "repetition"


class CancelledBeforeSending(CancelledError):
    """The caller left while the connection was made: nothing was sent, and nothing is billed."""


@dataclass(eq=False, kw_only=True)
class UpstreamFailure(Exception):
    """Failure of one attempt.

    `message` holds no secrets. `status` and `error_type` (OpenRouter's) are those of the answer or
    of the in-band error, `reason` is the typed cause in OpenRouter's `availability`, of a spending
    limit or in Google's `details`, else the error's own code, `retry_after` is in seconds. `sent`:
    the upstream may have received a part of the request, and may bill it. `stale`: a connection
    that had been kept open ended as it was used again, most likely before the upstream read the
    request. `received` is what came with the failure and was not returned: usage and text that the
    upstream may bill.
    """

    kind: FailureKind = field(kw_only=False)
    message: str = field(default="", kw_only=False)
    status: int | None = None
    error_type: str | None = None
    reason: str = ""
    retry_after: float | None = None
    sent: bool = True
    stale: bool = False
    provider: str | None = None
    received: ChunkBatch | None = None

    def __post_init__(self) -> None:
        self.message = self.message or str(self.kind)

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"
