"""What the fault tests share: how they ask, and what an ordinary outcome looks like."""

from typing import Any

from gateway import MINI, NEMO, Answer, Gateway
from shapes import check_stream, check_whole
from sophia.core.rows import AttemptOutcome
from sophia.sandbox import ScriptStep

HTML = {"Content-Type": "text/html"}
SSE = {"Content-Type": "text/event-stream"}


SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def sse(*payloads: str) -> ScriptStep:
    body = "".join(f"data: {payload}\n\n" for payload in payloads)
    return ScriptStep(body=body, headers=SSE)


async def asked(gateway: Gateway, stream: bool, **more: Any) -> Answer:
    """Ask for MINI with NEMO as the substitute."""
    return await gateway.client.chat(models=[MINI, NEMO], stream=stream, **more)


def check_clean(answer: Answer, model: str = NEMO, attempts: int = 2) -> None:
    """The client sees an ordinary answer."""
    assert answer.status == 200 and answer.complete, answer
    if answer.headers["content-type"] == "application/json":
        check_whole(answer.json)
        told = answer.json
    else:
        assert answer.done
        check_stream(answer.chunks)
        told = answer.chunks[-1]
    assert told["model"] == model
    assert told["sophia"]["model"] == answer.headers["x-sophia-model"] == model
    assert told["sophia"]["attempts"] == attempts
    assert answer.headers["x-sophia-attempts"] == str(attempts)


async def check_books(gateway: Gateway, *states: str) -> list[AttemptOutcome]:
    """One row for each attempt, and of what is in doubt the probable cost stays held."""
    rows = await gateway.settled(len(states))
    assert [row.state for row in rows] == list(states)
    held = sum(row.cost_nano for row in rows if row.state == "unknown")
    spent = sum(row.cost_nano for row in rows if row.state != "unknown")
    assert await gateway.standing() == (spent / 1e9, held / 1e9)
    return rows
