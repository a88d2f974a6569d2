"""An upstream that sits an exam: who is asked decides whether the answer is right, wrong or none."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sophia.learning.online.packaged import load_probes
from sophia.learning.priors.probes import Probe

Knows = Callable[[str, int], bool | None]
"""Says of a model and the number of a question whether it is answered right; None: with an error."""

QUESTIONS = {probe.prompt: (number, probe) for number, probe in enumerate(load_probes())}


def right(probe: Probe) -> str:
    """Return the right answer as a chatty model gives it."""
    check = probe.check
    if check.answer_type == "json":
        return f"```json\n{json.dumps(check.json)}\n```"
    told = getattr(check, check.answer_type)
    return f"The answer is:\n**{told}**"


def _message(probe: Probe, *, knows: bool) -> dict[str, Any]:
    if probe.tool is None:
        return {"role": "assistant", "content": right(probe) if knows else "I cannot tell."}
    arguments = json.dumps(probe.check.call if knows else {})
    call = {
        "id": "c",
        "type": "function",
        "function": {"name": probe.tool.name, "arguments": arguments},
    }
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@asynccontextmanager
async def sitting(knows: Knows) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Serve on a free port; gives the base URL and the bodies of the requests that came."""
    seen: list[dict[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            ),
            0,
        )
        asked = json.loads(await reader.readexactly(length) or b"{}")
        seen.append(asked)
        number, probe = QUESTIONS[asked["messages"][-1]["content"]]
        found = knows(asked["model"], number)
        status, body = 200, {}
        if found is None:
            status, body = 503, {"error": {"code": 503, "message": "out of order"}}
        else:
            finish = "stop" if probe.tool is None else "tool_calls"
            choice = {"index": 0, "message": _message(probe, knows=found), "finish_reason": finish}
            usage = {
                "prompt_tokens": 60,
                "completion_tokens": 12,
                "total_tokens": 72,
                "cost": 0.0001,
            }
            body = {
                "id": f"gen-1790000000-{len(seen)}",
                "object": "chat.completion",
                "created": 1,
                "model": asked["model"],
                "provider": "Exam",
                "choices": [choice],
                "usage": usage,
            }
        data = json.dumps(body).encode()
        writer.write(
            f"HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + data
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1", seen
    finally:
        server.close()
