"""The sandbox's own routes, for another process that scripts it and reads its bill and requests."""

from collections.abc import Iterable
from dataclasses import asdict
from urllib.parse import parse_qs

from sophia.sandbox.api.bill import SandboxBill
from sophia.sandbox.api.errors import SandboxError
from sophia.sandbox.api.request import parse_body
from sophia.sandbox.api.shapes import JsonObject
from sophia.sandbox.response.connection import RecordedRequest
from sophia.sandbox.script import ANY_MODEL, UpstreamScript, parse_script_step

SECRET_HEADERS = frozenset({"authorization", "x-api-key", "cookie"})


def answer_control_request(
    command: RecordedRequest,
    scripts: UpstreamScript,
    bill: SandboxBill,
    requests: Iterable[RecordedRequest],
) -> JsonObject:
    """Return the answer to one of `/sandbox/script`, `/sandbox/bill` and `/sandbox/requests`.

    Raises SandboxError: there is no such route (404), or the script is wrong (400).
    """
    match command.method, command.path:
        case "POST", "/sandbox/script":
            return _add_script(scripts, command.body)
        case "DELETE", "/sandbox/script":
            scripts.clear(next(iter(parse_qs(command.query).get("model", [])), None))
            return {"cleared": True}
        case "GET", "/sandbox/bill":
            return {"total": bill.total, "rows": [asdict(row) for row in bill.rows]}
        case "GET", "/sandbox/requests":
            return {"requests": [_render_request(request) for request in requests]}
        case _:
            raise SandboxError(404, f"No route {command.method} {command.path}")


def _add_script(scripts: UpstreamScript, data: bytes) -> JsonObject:
    body = parse_body(data)
    steps, times = body.get("steps"), body.get("times", 1)
    if not isinstance(steps, list) or not isinstance(times, (int, type(None))):
        raise SandboxError(400, "expected steps: a list, times: a number or null")
    try:
        scripts.add(str(body.get("model", ANY_MODEL)), *map(parse_script_step, steps), times=times)
    except ValueError as error:
        raise SandboxError(400, str(error)) from None
    return {"added": len(steps)}


def _render_request(request: RecordedRequest) -> JsonObject:
    fields = asdict(request)
    del fields["keep_alive"]
    headers = {
        name: "…" if name in SECRET_HEADERS else request.headers[name] for name in request.headers
    }
    return {**fields, "headers": headers, "body": request.body.decode(errors="replace")}
