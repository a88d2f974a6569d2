"""An error that the sandbox answers, in OpenRouter's shape."""

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


class Refusal(Exception):
    """The request is answered with `status` and an error object that carries `error_type`."""

    def __init__(
        self,
        status: int,
        error_type: str | None,
        message: str,
        *,
        metadata: Mapping[str, object] | None = None,
        availability: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type or ERROR_TYPES.get(status, "server")
        self.message = message
        self.metadata = dict(metadata or {})
        self.availability = availability

    def body(self) -> dict[str, object]:
        """Return the JSON body, with the status as integer `error.code`."""
        metadata = {"error_type": self.error_type, **self.metadata}
        error: dict[str, object] = {
            "code": self.status,
            "message": self.message,
            "metadata": metadata,
        }
        if self.availability is not None:
            error["availability"] = self.availability
        return {"error": error}
