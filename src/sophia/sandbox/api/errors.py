"""Errors in OpenRouter's shape."""

from collections.abc import Mapping

ERROR_TYPES: Mapping[int, str] = {
    400: "invalid_request",
    401: "authentication",
    402: "payment_required",
    403: "permission_denied",
    404: "not_found",
    405: "invalid_request",
    408: "timeout",
    412: "precondition_failed",
    413: "payload_too_large",
    422: "unprocessable",
    429: "rate_limit_exceeded",
    500: "server",
    502: "provider_unavailable",
    503: "provider_overloaded",
    504: "timeout",
    524: "timeout",
    529: "provider_overloaded",
}


class SandboxError(Exception):
    """An error answer; `error_type` follows from `status` unless it is given."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        error_type: str | None = None,
        metadata: Mapping[str, object] | None = None,
        availability: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type or ERROR_TYPES.get(status, "server")
        self._metadata = {"error_type": self.error_type, **(metadata or {})}
        self._availability = availability

    def body(self) -> dict[str, object]:
        """Return the JSON body, with the status as the integer `error.code`."""
        error = {"code": self.status, "message": str(self), "metadata": self._metadata}
        if self._availability is not None:
            error["availability"] = self._availability
        return {"error": error}
