"""An upstream that knows the text of each prompt, goes on from any beginning, and breaks off."""

import asyncio
import json
from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random
from typing import Any

from sophia.sandbox.response.connection import ConnectionWriter, RecordedRequest, ServerConnection

CUTS = ("fin", "rst", "stall", "bad chunk", "malformed", "error")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
MALFORMED = b'data: {"id":"gen","choices":[{"index":0,"delta":{"con\n\n'
ERROR = b'data: {"error":{"code":502,"message":"Provider disconnected"},"choices":[]}\n\n'
PAUSE = 0.01
"""Seconds in which what was sent reaches the caller."""
ARGUMENTS = ('{"city"', ': "Par', 'is", "days": ', "3}")


@dataclass(frozen=True, slots=True)
class Cut:
    """`place` is a share of the bytes up to the finish reason, or of those after a tool call."""

    kind: str
    place: float


@dataclass(slots=True, kw_only=True)
class Script:
    """The answer to one prompt: its text, a tool call if it makes one, and a cut per dispatch."""

    text: str
    cuts: list[Cut]
    seed: int
    tool: str | None = None
    """`tool_calls` or `function_call`."""
    gap: bool = False
    """An event of the first dispatch is malformed."""
    dispatches: int = 0

    def events(self, before: str, source: Random) -> list[bytes]:
        """Return the events of an answer that goes on from `before`; the last two end it."""
        ascii_only, at = source.random() < 0.5, len(before)
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        while at < len(self.text):
            size = source.randint(1, 12)
            deltas.append({"content": self.text[at : at + size]})
            at += size
        for number, piece in enumerate(("", *ARGUMENTS) if self.tool else ()):
            function = {"arguments": piece} | ({} if number else {"name": "weather"})
            call = {"index": 0, "function": function} | ({} if number else {"id": "call_1"})
            deltas.append(
                {"tool_calls": [call]} if self.tool == "tool_calls" else {self.tool: function}
            )
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        bodies = [
            {"id": f"gen-{self.seed}-{self.dispatches}", "choices": [choice]} for choice in choices
        ]
        texts = [json.dumps(body, ensure_ascii=ascii_only) for body in bodies]
        events = [f"data: {text}\n\n".encode() for text in texts]
        if self.gap and self.dispatches == 1:
            events.insert(2, MALFORMED)
        return [*events, b"data: [DONE]\n\n"]

    def find_place(self, events: list[bytes], place: float) -> tuple[int, int]:
        """Return the event in which a cut falls, and how many of its bytes are still sent."""
        ends = list(accumulate(map(len, events)))
        first = next((at for at, event in enumerate(events) if b"weather" in event), -1)
        low = ends[first] if first >= 0 else 0
        at = low + int(place * (ends[-2] - low))
        number = bisect_right(ends, at)
        return number, at - (ends[number - 1] if number else 0)


@dataclass(slots=True)
class CuttingUpstream:
    """Plays the script of each prompt."""

    scripts: dict[str, Script] = field(default_factory=dict)

    async def serve(self, wire: ConnectionWriter, recorded: RecordedRequest) -> None:
        """Answer one request. Raises ConnectionEnded."""
        messages: Any = recorded.json()["messages"]
        script, last = self.scripts[messages[0]["content"]], messages[-1]
        before = last["content"] if last["role"] == "assistant" else ""
        script.dispatches += 1
        source = Random(f"{script.seed}/{script.dispatches}")
        # A beginning that is not of this text gets all of it.
        events = script.events(before if script.text.startswith(before) else "", source)
        wire.dribble = source.choice((None, 40, 400))
        cut = script.cuts.pop(0) if script.cuts else None
        chunked = source.random() < 0.5 or (cut is not None and cut.kind == "bad chunk")
        number, size = script.find_place(events, cut.place) if cut else (len(events), 0)
        framing = b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n"
        whole = b"".join(_frame(event, chunked) for event in events[:number])
        await wire.send(HEAD + framing + whole)
        if cut:
            # Half of them come together with what broke.
            await asyncio.sleep(source.choice((0.0, PAUSE)) if script.tool is None else PAUSE)
            await _send_cut(wire, cut.kind, events[number], size, chunked)
        elif chunked:
            await wire.send(b"0\r\n\r\n")
        await wire.close()


async def _send_cut(
    wire: ConnectionWriter, kind: str, broken: bytes, size: int, chunked: bool
) -> None:
    """Send the first `size` bytes of an event, and what follows of the cut."""
    end = b"0\r\n\r\n" if chunked else b""
    match kind:
        case "bad chunk":
            await wire.send(b"zz\r\nno chunk\r\n")
        case "malformed":
            for event in (broken[:size] + b"\n\n", MALFORMED):
                await wire.send(_frame(event, chunked))
            await wire.send(end)
        case "error":
            await wire.send(_frame(ERROR, chunked) + end)
        case _:
            await wire.send(_frame(broken, chunked)[:size])
    if kind == "rst":
        await wire.reset()
    if kind == "stall":
        await wire.hang()


def _frame(event: bytes, chunked: bool) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event) if chunked else event


@asynccontextmanager
async def serving(upstream: CuttingUpstream) -> AsyncIterator[str]:
    """Serve on loopback; yield the base URL."""
    connections: set[ServerConnection] = set()
    server = await asyncio.get_running_loop().create_server(
        lambda: ServerConnection(upstream.serve, connections), "127.0.0.1", 0
    )
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in tuple(connections):
            connection.transport.abort()
        await asyncio.sleep(0)
