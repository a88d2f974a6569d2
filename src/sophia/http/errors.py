"""Errors in OpenAI's shape: an integer code, the kind of error, and whose fault it is."""

from math import ceil

from sophia.core.errors import MethodNotAllowed, SophiaError
from sophia.http.wire import JSON_HEADERS, ResponseWriter, encode, render_header

_OPENAI_TYPES = dict.fromkeys((400, 405, 408, 413, 422, 431), "invalid_request_error") | {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def build_error_object(error: SophiaError, request_id: str) -> dict[str, object]:
    """Return the `error` object of a body or a chunk."""
    return {
        "message": error.message,
        "type": _OPENAI_TYPES.get(error.status, "api_error"),
        "param": error.param,
        "code": error.status,
        "metadata": {
            "error_type": error.error_type,
            "fault": error.fault,
            "request_id": request_id,
            **error.details,
        },
    }


def render_error(error: SophiaError, request_id: str) -> tuple[bytes, bytes]:
    """Return (header lines, body) of an error answer."""
    headers = JSON_HEADERS + render_header(b"x-request-id", request_id)
    headers += render_header(b"x-sophia-fault", error.fault)
    if error.retry_after is not None:
        # Rounded up: a client that comes back too early is refused again.
        headers += render_header(b"retry-after", str(max(1, ceil(error.retry_after))))
    if isinstance(error, MethodNotAllowed):
        headers += render_header(b"allow", ", ".join(error.allowed))
    if error.status == 401:
        headers += b"www-authenticate: Bearer\r\n"
    return headers, encode({"error": build_error_object(error, request_id)})


async def send_error(reply: ResponseWriter, error: SophiaError, request_id: str) -> None:
    """Send an error answer."""
    headers, body = render_error(error, request_id)
    await reply.send(error.status, headers, body)
