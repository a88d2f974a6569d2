"""Errors in OpenAI's shape: an integer code, the kind of error, and whose fault it is."""

import msgspec

from sophia.core.errors import Fault, SophiaError
from sophia.http.wire import JSON, line

_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
encode = msgspec.json.Encoder().encode


def error_object(error: SophiaError, request_id: str) -> dict[str, object]:
    """Return the `error` object of a body or a chunk."""
    fault: Fault = error.fault
    return {
        "message": error.message,
        "type": _OPENAI_TYPES.get(error.status, "api_error"),
        "param": error.param,
        "code": error.status,
        "metadata": {
            "error_type": error.error_type,
            "fault": fault,
            "request_id": request_id,
            **error.details,
        },
    }


def error_reply(error: SophiaError, request_id: str) -> tuple[bytes, bytes]:
    """Return (header lines, body) of an error answer."""
    headers = JSON + line(b"x-request-id", request_id) + line(b"x-sophia-fault", error.fault)
    if error.retry_after is not None:
        headers += line(b"retry-after", str(max(1, round(error.retry_after))))
    if error.status == 401:
        headers += b"www-authenticate: Bearer\r\n"
    return headers, encode({"error": error_object(error, request_id)})
