"""A stream of text that breaks off goes on where it stopped, if the caller wants that."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import SHORT, Answer, Gateway, Start
from sophia.config import BudgetSettings, UpstreamModelSettings, UpstreamSettings
from sophia.serving.attempts.overlap import MIN_OVERLAP, OverlapFilter
from sophia.serving.attempts.targets import health

ONE, TWO = "own/one", "own/two"
TEXT = "".join(
    f"Sentence {n} says that {n} times {n} is {n * n}; “fine”, naïve, 東京. " for n in range(14)
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@dataclass
class ContinuingUpstream:
    """Streams `TEXT`, from where the assistant's last message ends; `cuts` are bytes of each stream.

    `repeat` characters come again, a negative number begins anew; `tool_at` sends a tool call.
    """

    cuts: list[int] = field(default_factory=list)
    repeat: int = 0
    tool: bool = False
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = json.loads(await reader.readexactly(size))
        self.bodies.append(body)
        last = body["messages"][-1]
        before = last["content"] if last["role"] == "assistant" else ""
        assert TEXT.startswith(before)
        start = max(len(before) - self.repeat, 0) if self.repeat >= 0 else 0
        data = HEAD + b"".join(self._events(TEXT[start:]))
        cut = self.cuts.pop(0) if self.cuts else len(data)
        writer.write(data[: max(cut, len(HEAD))])
        await writer.drain()
        if cut < len(data) and cut % 2:
            writer.transport.abort()
        writer.close()

    def _events(self, text: str) -> list[bytes]:
        random_source = random.Random(len(text))
        events, at = [], 0
        while at < len(text):
            size = random_source.randint(1, 12)
            events.append(self._event({"content": text[at : at + size]}))
            at += size
        if self.tool:
            call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}
            events.insert(3, self._event({"tool_calls": [call]}))
        usage = {"prompt_tokens": 10, "completion_tokens": len(text) // 4}
        last = {"id": "gen", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        return [
            *events,
            f"data: {json.dumps(last | {'usage': usage})}\n\ndata: [DONE]\n\n".encode(),
        ]

    @staticmethod
    def _event(delta: dict[str, Any]) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        return f"data: {json.dumps({'id': 'gen', 'choices': [choice]})}\n\n".encode()


@asynccontextmanager
async def continued(start: Start, upstream: ContinuingUpstream) -> AsyncIterator[Gateway]:
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    models = [UpstreamModelSettings(id=id, completion_usd_per_mtok=1.0) for id in (ONE, TWO)]
    place = UpstreamSettings(name="own", base_url=f"http://127.0.0.1:{port}", models=tuple(models))
    try:
        budget = BudgetSettings(daily_usd=1000.0)
        async with start(upstreams=(place,), deadlines=SHORT, budget=budget) as gateway:
            yield gateway
    finally:
        server.close()


async def ask(gateway: Gateway, **more: Any) -> Answer:
    hints = {"on_cut": "continue", **more.pop("sophia", {})}
    return await gateway.client.chat(ONE, models=[ONE, TWO], stream=True, sophia=hints, **more)


def count_bytes() -> int:
    upstream = ContinuingUpstream()
    return len(HEAD + b"".join(upstream._events(TEXT)))


@pytest.mark.parametrize("repeat", [0, 20, -1], ids=["exact", "repeats", "begins anew"])
async def test_a_cut_anywhere_is_invisible(
    start: Start, repeat: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At random bytes, with a clean end or a reset; the text is whole to the byte."""
    monkeypatch.setattr(health, "FAILURES_IN_A_ROW", 10**6)
    monkeypatch.setattr(health, "MIN_SAMPLES", 10**6)
    upstream, size = ContinuingUpstream(repeat=repeat), count_bytes()
    random_source, whole, marked = random.Random(repeat), 0, 0
    async with continued(start, upstream) as gateway:
        for _ in range(85):
            upstream.cuts = [random_source.randint(len(HEAD), size - 1)]
            answer = await ask(gateway)
            assert answer.complete and answer.status == 200, answer.body
            whole += answer.done and answer.text == TEXT
            assert not answer.done or answer.text == TEXT, "a silent loss"
            marked += "continued" in answer.chunks[-1].get("sophia", {})
    assert whole >= 0.98 * 85
    assert marked >= 50


async def test_the_answer_says_who_went_on_and_every_part_is_billed(start: Start) -> None:
    upstream = ContinuingUpstream(cuts=[3001, 2500])
    async with continued(start, upstream) as gateway:
        answer = await ask(gateway)
        assert answer.done and answer.text == TEXT
        told = answer.chunks[-1]
        assert [each["model"] for each in told["sophia"]["continued"]] == [ONE, ONE]
        assert told["sophia"]["attempts"] == 3 and len(upstream.bodies) == 3
        assert len({chunk["id"] for chunk in answer.chunks}) == 1
        assert sum("role" in c["choices"][0]["delta"] for c in answer.chunks if c["choices"]) == 1
        rows = await gateway.settled(3)
        assert [row.failure for row in rows] == ["cut", "cut", None]
        assert told["usage"]["completion_tokens"] == sum(row.completion_tokens for row in rows)
        assert told["usage"]["cost"] == pytest.approx(sum(row.cost_nano for row in rows) / 1e9)


async def test_after_three_dispatches_the_error_is_told(start: Start) -> None:
    upstream = ContinuingUpstream(cuts=[3000, 3000, 3000, 3000])
    async with continued(start, upstream) as gateway:
        answer = await ask(gateway)
        assert not answer.done and answer.chunks[-1]["error"]["code"] == 502
        assert TEXT.startswith(answer.text) and answer.text
        assert len(upstream.bodies) == 3


@pytest.mark.parametrize(
    "more",
    [
        {"sophia": {"on_cut": "terminate"}},
        {"n": 2},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
    ],
    ids=["terminate", "n", "logprobs", "json", "tools"],
)
async def test_other_streams_end_with_an_error(start: Start, more: dict[str, Any]) -> None:
    upstream = ContinuingUpstream(cuts=[3000])
    async with continued(start, upstream) as gateway:
        answer = await ask(gateway, **more)
        assert not answer.done and "error" in answer.chunks[-1]
        assert len(upstream.bodies) == 1


async def test_nothing_goes_on_after_a_tool_call(start: Start) -> None:
    upstream, size = ContinuingUpstream(tool=True), count_bytes()
    async with continued(start, upstream) as gateway:
        for cut in range(1500, size, size // 20):
            upstream.cuts, upstream.bodies = [cut], []
            answer = await ask(gateway)
            assert not answer.done and len(upstream.bodies) == 1


async def test_nothing_goes_on_after_a_tool_call_of_a_continuation(start: Start) -> None:
    upstream = ContinuingUpstream(tool=True, cuts=[len(HEAD) + 150, 1500])
    async with continued(start, upstream) as gateway:
        answer = await ask(gateway)
        assert not answer.done and "tool_calls" in answer.body.decode()
        assert len(upstream.bodies) == 2


def test_one_more_of_equal_lines_is_new_text() -> None:
    line = "  </div>\n"
    overlap = OverlapFilter("<div>\n" + line * 2)
    assert overlap.feed(line + "</body>") + overlap.flush() == line + "</body>"
    overlap = OverlapFilter("<div>\n" + line)
    assert overlap.feed(line + "</body>") + overlap.flush() == "</body>"


@given(st.text("ab ", max_size=60), st.text("ab c", max_size=60), st.data())
def test_an_overlap_is_taken_away_however_it_arrives(
    before: str, after: str, data: st.DataObject
) -> None:
    """What is left out is a repeated end of the text before, and nothing else."""
    text, pieces, at = after, [], 0
    while at < len(text):
        size = data.draw(st.integers(1, 9))
        pieces.append(text[at : at + size])
        at += size
    overlap = OverlapFilter(before)
    new = "".join(map(overlap.feed, pieces)) + overlap.flush()
    assert text.endswith(new)
    removed = text[: len(text) - len(new)]
    assert before.endswith(removed)
    assert not removed or len(removed) >= MIN_OVERLAP or removed == before
