"""The upstream of a run, in its own process: answers, faults, a log of dispatches, and a bill.

python -m bench.chaos.upstream --port 19100 --seed 1
"""

import argparse
import asyncio
import time
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, cast

import msgspec
import uvloop

from bench.chaos.faults import MARK, Fault, Framing, Phase, choose_fault, list_words
from sophia.sandbox.api.bill import BilledGeneration, SandboxBill
from sophia.sandbox.api.errors import SandboxError
from sophia.sandbox.api.listing import read_listing
from sophia.sandbox.api.pages import answer_get_request
from sophia.sandbox.response.connection import ConnectionWriter, RecordedRequest, ServerConnection

LOG_PATH = "/chaos/log"
PROMPT_TOKENS = 20
CREATED = 1_790_000_000
PIECES, PIECE_SECONDS = 4, 0.002
"""A stream is written in this many pieces, with this pause between them."""
COMMIT_SECONDS = 0.05
"""Pause after the first content of a stream that is cut, so that the gateway has passed it on."""
HELD_SECONDS = 30.0
"""A silent connection is closed at last, for a gateway that has no limit of its own."""
JSON, SSE = "application/json", "text/event-stream"
JsonObject = dict[str, Any]
encode = msgspec.json.encode


@dataclass(slots=True, kw_only=True)
class Dispatch:
    """A request that arrived; times are in seconds, `failed_at` is when its fault was complete."""

    phase: Phase
    number: int
    model: str
    fault: str | None
    arrived_at: float
    failed_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The answer to one dispatch; `words` continue the text that the request brought, if any."""

    id: str
    model: str
    words: list[str]
    is_stream: bool

    def body(self, *choices: JsonObject, **more: object) -> JsonObject:
        """Return a whole answer or a chunk."""
        kind = "chat.completion.chunk" if self.is_stream else "chat.completion"
        head = {"id": self.id, "object": kind, "created": CREATED, "model": self.model}
        return {**head, "provider": "Chaos", "choices": list(choices), **more}

    def event(self, finish: str | None = None, **delta: object) -> bytes:
        """Return an event with one choice."""
        return _event(self.body({"index": 0, "delta": delta, "finish_reason": finish}))

    def pieces(self) -> list[bytes]:
        """Return the events of the stream, with the role before the words, or the whole answer."""
        counts = (PROMPT_TOKENS, len(self.words), PROMPT_TOKENS + len(self.words))
        names = ("prompt_tokens", "completion_tokens", "total_tokens")
        usage = dict(zip(names, counts, strict=True))
        if not self.is_stream:
            message = {"role": "assistant", "content": "".join(self.words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return [encode(self.body(choice, usage=usage))]
        words = [self.event(content=word) for word in self.words]
        end = [self.event("stop"), _event(self.body(usage=usage)), b"data: [DONE]\n\n"]
        return [self.event(role="assistant", content=""), *words, *end]

    def head(self, framing: Framing, pieces: list[bytes]) -> bytes:
        """Return the head of an answer that consists of `pieces`."""
        lines = {
            "chunked": "Transfer-Encoding: chunked",
            "length": f"Content-Length: {sum(map(len, pieces))}",
            "close": "Connection: close",
        }
        kind = SSE if self.is_stream else JSON
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nX-Generation-Id: {self.id}\r\n"
        return f"{head}{lines[framing]}\r\n\r\n".encode()


def _event(body: JsonObject) -> bytes:
    return b"data: " + encode(body) + b"\n\n"


def frame(framing: Framing, pieces: list[bytes]) -> list[bytes]:
    """Return pieces as the framing writes them, with its last chunk if it has one."""
    if framing != "chunked":
        return pieces
    return [*(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces), b"0\r\n\r\n"]


class ChaosUpstream:
    """Serves every model of the catalogue, and plays the faults that a seed demands."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._listing = read_listing()
        self._counts: Counter[tuple[Phase, int]] = Counter()
        self._bill = SandboxBill()
        self._dispatches: list[Dispatch] = []

    async def serve(self, wire: ConnectionWriter, recorded: RecordedRequest) -> None:
        """Answer one request. Raises ConnectionEnded when its fault ends the connection."""
        path = recorded.path.removeprefix("/api")
        try:
            if recorded.method == "POST" and path == "/v1/chat/completions":
                await self._complete(wire, msgspec.json.decode(recorded.body))
                return
            page: JsonObject = {"bill_nano": self._bill.total, "dispatches": self._dispatches}
            if path != LOG_PATH:
                page = answer_get_request(path, recorded.query, self._listing, self._bill)
            await wire.send_response(200, {"Content-Type": JSON}, encode(page))
        except SandboxError as error:
            await wire.send_response(error.status, {"Content-Type": JSON}, encode(error.body()))

    async def _complete(self, wire: ConnectionWriter, body: JsonObject) -> None:
        mark = MARK.search(str(body["messages"]))
        phase = cast("Phase", mark[1] if mark else "warm-up")
        number = int(mark[2]) if mark else 0
        attempt, model = self._counts[phase, number], body["model"]
        self._counts[phase, number] += 1
        fault = choose_fault(self._seed, phase, number, attempt, model)
        kind, now = fault.kind if fault else None, time.monotonic()
        entry = Dispatch(phase=phase, number=number, model=model, fault=kind, arrived_at=now)
        self._dispatches.append(entry)
        answer = Generation(
            id=f"gen-chaos-{len(self._dispatches)}",
            model=model,
            words=_remaining_words(list_words(phase, number), body["messages"]),
            is_stream=bool(body.get("stream")),
        )
        if fault is None:
            self._book(answer, len(answer.words), "stop")
            framing: Framing = "chunked" if answer.is_stream else "length"
            await _send_framed(wire, answer, framing, answer.pieces())
            return
        try:
            if phase == "cuts":
                await self._send_cut(wire, answer, fault)
            elif kind == "empty":
                answer.words.clear()
                self._book(answer, 0, "stop")
                await _send_framed(wire, answer, fault.framing, answer.pieces())
            else:
                await _send_failure(wire, answer, fault)
        finally:
            entry.failed_at = time.monotonic()

    async def _send_cut(self, wire: ConnectionWriter, answer: Generation, fault: Fault) -> None:
        """Send a stream up to a random byte between its first content and its finish reason."""
        pieces = answer.pieces()
        if fault.kind == "in-band":
            words = 1 + int(fault.place * (len(answer.words) - 1))
            choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
            error = {"code": 502, "message": "Provider disconnected"}
            pieces = [*pieces[: words + 1], _event(answer.body(choice, error=error))]
        framed = frame(fault.framing, pieces)
        ends = list(accumulate(map(len, framed)))
        at = ends[-1]
        if fault.kind != "in-band":
            at = ends[1] + int(fault.place * (ends[len(answer.words) + 1] - ends[1]))
            words = bisect_right(ends, at) - 1
        if fault.kind == "bad-chunk":
            at = ends[words]
        self._book(answer, words, None)
        data = b"".join(framed)
        await wire.send(answer.head(fault.framing, pieces) + data[: ends[1]])
        await asyncio.sleep(COMMIT_SECONDS)
        await wire.send(data[ends[1] : at])
        match fault.kind:
            case "rst":
                await wire.reset()
            case "stall":
                await asyncio.sleep(HELD_SECONDS)
            case "bad-chunk":
                await wire.send(b"zz\r\nno chunk\r\n")
        await wire.close()

    def _book(self, answer: Generation, completion: int, finish: str | None) -> None:
        self._bill.book(
            BilledGeneration(
                generation_id=answer.id,
                model=answer.model,
                prompt_tokens=PROMPT_TOKENS,
                completion_tokens=completion,
                cost=self._listing.find(answer.model).cost(PROMPT_TOKENS, completion),
                streamed=answer.is_stream,
                finish_reason=finish,
                created=CREATED,
            )
        )


def _remaining_words(words: list[str], messages: list[JsonObject]) -> list[str]:
    """Return the rest of an answer whose beginning is in the request, as that of an assistant."""
    begun = next((m["content"] for m in reversed(messages) if m["role"] == "assistant"), None)
    text = "".join(words)
    return [text[len(begun) :]] if begun and text.startswith(begun) else words


async def _send_framed(
    wire: ConnectionWriter, answer: Generation, framing: Framing, pieces: list[bytes]
) -> None:
    """Send an answer with its proper end, in a few pieces."""
    framed = frame(framing, pieces)
    step = -(-len(framed) // PIECES)
    await wire.send(answer.head(framing, pieces) + b"".join(framed[:step]))
    for start in range(step, len(framed), step):
        await asyncio.sleep(PIECE_SECONDS)
        await wire.send(b"".join(framed[start : start + step]))
    if framing == "close":
        await wire.close()


async def _send_failure(wire: ConnectionWriter, answer: Generation, fault: Fault) -> None:
    """Fail before any content."""
    pieces = answer.pieces()
    error = {"error": {"code": 502, "message": "Provider returned error"}}
    match fault.kind:
        case "reset":
            await wire.reset()
        case "silence":
            await asyncio.sleep(HELD_SECONDS)
            await wire.close()
        case "html":
            page = b"<!doctype html><title>Down for maintenance</title>"
            await wire.send_response(200, {"Content-Type": "text/html"}, page)
        case "json-error":
            await wire.send_response(200, {"Content-Type": JSON}, encode(error))
        case "half-json":
            whole = pieces[1 if answer.is_stream else 0]
            await _send_framed(wire, answer, fault.framing, [whole[: len(whole) // 2]])
        case "cut":
            sent = frame(fault.framing, pieces)[0]
            sent = sent if answer.is_stream else sent[: len(sent) // 2]
            await wire.send(answer.head(fault.framing, pieces) + sent)
            await wire.close()
        case status:
            wait = {"Retry-After": "1"} if status == "429" else {}
            error["error"]["code"] = int(status)
            await wire.send_response(int(status), {"Content-Type": JSON, **wait}, encode(error))


async def serve(port: int, seed: int) -> None:
    """Serve until the process is stopped."""
    upstream, connections = ChaosUpstream(seed), set[ServerConnection]()
    server = await asyncio.get_running_loop().create_server(
        lambda: ServerConnection(upstream.serve, connections), "127.0.0.1", port, backlog=1000
    )
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.seed))
