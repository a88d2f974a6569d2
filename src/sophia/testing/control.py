"""The sandbox's own routes, by which another process scripts it and reads what it saw."""

from collections.abc import Iterable
from dataclasses import asdict
from urllib.parse import parse_qs

import msgspec

from sophia.testing.asked import read_body
from sophia.testing.bill import Bill
from sophia.testing.refusal import Refusal
from sophia.testing.script import ANY_MODEL, Script, step_from_json
from sophia.testing.shapes import Json
from sophia.testing.wire import Seen, Wire

JSON_HEADERS = {"Content-Type": "application/json"}
SECRET_HEADERS = frozenset({"authorization", "x-api-key", "cookie"})


async def control(
    wire: Wire, seen: Seen, scripts: Script, bill: Bill, requests: Iterable[Seen]
) -> None:
    """Answer one of `/sandbox/script`, `/sandbox/bill` and `/sandbox/requests`."""
    try:
        status, body = 200, _answer(seen, scripts, bill, requests)
    except Refusal as refusal:
        status, body = refusal.status, refusal.body()
    await wire.answer(status, JSON_HEADERS, msgspec.json.encode(body))


def _answer(seen: Seen, scripts: Script, bill: Bill, requests: Iterable[Seen]) -> Json:
    match seen.method, seen.path:
        case "POST", "/sandbox/script":
            return _add(scripts, seen.body)
        case "DELETE", "/sandbox/script":
            scripts.clear(next(iter(parse_qs(seen.query).get("model", [])), None))
            return {"cleared": True}
        case "GET", "/sandbox/bill":
            return {"total": bill.total, "rows": [asdict(row) for row in bill.rows]}
        case "GET", "/sandbox/requests":
            return {"requests": [_told(request) for request in requests]}
        case _:
            raise Refusal(404, "not_found", f"No route {seen.method} {seen.path}")


def _add(scripts: Script, data: bytes) -> Json:
    body = read_body(data)
    steps, times = body.get("steps"), body.get("times", 1)
    if not isinstance(steps, list) or not isinstance(times, (int, type(None))):
        raise Refusal(400, "invalid_request", "expected steps: a list, times: a number or null")
    try:
        read = [step_from_json(step) for step in steps]
        scripts.add(str(body.get("model", ANY_MODEL)), *read, times=times)
    except ValueError as error:
        raise Refusal(400, "invalid_request", str(error)) from None
    return {"added": len(read)}


def _told(seen: Seen) -> Json:
    headers = {
        name: "…" if name in SECRET_HEADERS else value for name, value in seen.headers.items()
    }
    return {
        "method": seen.method,
        "path": seen.path,
        "query": seen.query,
        "headers": headers,
        "body": seen.body.decode(errors="replace"),
        "model": seen.model,
        "finished": seen.finished,
        "aborted": seen.aborted,
    }
