"""A process that is asked to stop is not ready at once, loses no request, and books everything."""

import asyncio
import json
import select
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from stage import SSE_HEAD, sse

from gateway import MINI, NEMO, Answer, chat
from processes import Installation, Served
from sophia.sandbox import ScriptedUpstream, ScriptStep

TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.fixture
def installation(tmp_path: Path, migrated: Path, up: ScriptedUpstream) -> Installation:
    return Installation(tmp_path / "data", migrated, up)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@dataclass
class Load:
    """Streams that have begun and whole answers that have not, all of which take long."""

    streams: list[Answer]
    wholes: list[Answer]
    work: asyncio.Future[list[Answer]]

    @classmethod
    async def start(cls, served: Served, up: ScriptedUpstream, count: int = 4) -> "Load":
        up.script(MINI, ScriptStep(text="word " * 400, chunk_delay=0.05), times=None)
        up.script(NEMO, ScriptStep(delay=20.0), times=None)
        streams, wholes = ([Answer() for _ in range(count)] for _ in range(2))
        bodies = [chat(MINI, stream=True)] * count + [chat(NEMO)] * count
        requests = [served.client.request(body) for body in bodies]
        for number in range(0, 2 * count, 2):
            line = f"Idempotency-Key: {number}\r\nHost:".encode()
            requests[number] = requests[number].replace(b"Host:", line)
        work = asyncio.gather(*map(served.client.raw, requests, streams + wholes))
        await until(lambda: len(posts(up)) == 2 * count)
        await until(lambda: all(b"word" in each.body for each in streams))
        return cls(streams, wholes, work)

    async def check_interrupted(self, seconds: float) -> None:
        """Every caller is told within some seconds, in the shape that all errors have."""
        await asyncio.wait_for(self.work, seconds)
        for stream in self.streams:
            assert stream.status == 200 and stream.complete and not stream.done
            last = stream.chunks[-1]
            assert last["choices"][0]["finish_reason"] == "error"
            assert last["error"]["code"] == 503 and last["error"]["metadata"]["cause"] == "shutdown"
        for whole in self.wholes:
            assert (whole.status, whole.headers["retry-after"]) == (503, "1")
            assert "shutting down" in whole.error["message"]


def posts(up: ScriptedUpstream) -> list[object]:
    """Return the calls that the upstream has received."""
    return [seen for seen in up.requests if seen.method == "POST"]


async def unready(served: Served) -> None:
    """Wait until readiness is refused, by an answer or by the port."""
    async with asyncio.timeout(1):
        try:
            while (await served.client.get("/health/ready")).status == 200:
                pass
        except ConnectionRefusedError:
            return


def check_books(installation: Installation, up: ScriptedUpstream, count: int) -> None:
    """No attempt is open, and those with a bill cost what it says."""
    rows, bills = installation.outcomes(), {row.generation_id: row for row in up.bill.rows}
    assert len(rows) == len(installation.rows("intents")) == count
    assert {row.failure for row in rows} == {"shutdown"}
    streamed = [row for row in rows if row.generation_id is not None]
    assert [row.cost_nano for row in streamed] == [
        bills[row.generation_id].cost for row in streamed
    ]
    assert {row.cost_source for row in streamed} == {"upstream"}
    assert {row.state for row in rows if row.generation_id is None} == {"unknown"}


async def test_new_requests_are_served_while_it_lingers(
    installation: Installation, up: ScriptedUpstream
) -> None:
    """D21: whatever spreads the requests needs a moment to notice that it is not ready."""
    async with installation.served(SOPHIA_SERVER_LINGER_S="1.5") as served:
        client = served.client
        kept_reader, kept = await asyncio.open_connection("127.0.0.1", client.port)
        assert (await client.get("/health/ready")).status == 200
        served.process.send_signal(TERM)
        await unready(served)
        ready, live = await client.get("/health/ready"), await client.get("/health/live")
        assert (ready.status, ready.headers["retry-after"], live.status) == (503, "1", 200)
        for stream in (False, True):
            answer = await client.chat(stream=stream)
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        kept.write(client.request(chat()))
        assert b" 200 OK" in await kept_reader.readline()
        assert await served.ended() == 0
        assert (await kept_reader.read()).endswith(b"}")
        kept.close()
        with pytest.raises(ConnectionRefusedError):
            await client.get("/health/ready")


async def test_running_streams_finish_and_nothing_else_is_waited_for(
    installation: Installation, up: ScriptedUpstream
) -> None:
    """D21: neither an idle connection nor a request that has not arrived delays the end."""
    async with installation.served(SOPHIA_SERVER_DRAIN_S="30") as served, AsyncExitStack() as stack:
        client = served.client
        up.script(MINI, ScriptStep(text="word " * 30, chunk_delay=0.02), times=None)
        streams = [asyncio.create_task(client.chat(stream=True)) for _ in range(8)]
        whole = client.request(chat())
        head, _, body = whole.partition(b"\r\n\r\n")
        expects = head + b"\r\nExpect: 100-continue\r\n\r\n"
        parts = (b"", whole[:12], head + b"\r\n\r\n", whole[:-5], expects + body[:-5])
        readers = [await stack.enter_async_context(client.connection(part)) for part in parts]
        await until(lambda: len(posts(up)) == 8)
        served.process.send_signal(TERM)
        async with asyncio.timeout(10):
            refused = [b" 503 " in await reader.read() for reader in readers]
        assert refused == [False, False, True, True, True]
        assert await served.ended(10) == 0
        for answer in [task.result() for task in streams]:
            assert answer.done and answer.complete
    rows = installation.outcomes()
    assert len(rows) == 8 and {row.failure for row in rows} == {None}
    assert sum(row.cost_nano for row in rows) == up.bill.total


async def test_answers_that_take_longer_end_with_an_error(
    installation: Installation, up: ScriptedUpstream
) -> None:
    """D21: never a bare cut, and booked as what it is."""
    async with installation.served(SOPHIA_SERVER_DRAIN_S="0.5") as served:
        load = await Load.start(served, up)
        served.process.send_signal(TERM)
        await load.check_interrupted(5)
        assert await served.ended() == 0
    check_books(installation, up, 8)


@pytest.mark.parametrize(
    ("linger", "signals"),
    [
        ("0", (TERM, TERM)),
        ("30", (TERM, INT)),
        ("30", (INT, INT)),
        ("30", (TERM, TERM, INT, TERM, TERM)),
    ],
)
async def test_a_second_signal_ends_the_drain_the_same_way(
    installation: Installation,
    up: ScriptedUpstream,
    linger: str,
    signals: tuple[signal.Signals, ...],
) -> None:
    """D21: at once, and with every row settled, whatever signals follow."""
    async with installation.served(SOPHIA_SERVER_LINGER_S=linger) as served:
        load = await Load.start(served, up)
        for number in signals:
            served.process.send_signal(number)
            await unready(served)
            await asyncio.sleep(0.05)
        await load.check_interrupted(2)
        assert await served.ended() == 0
    check_books(installation, up, 8)


@pytest.mark.parametrize("line", [b"", b"Idempotency-Key: one\r\n"])
async def test_a_caller_that_does_not_read_cannot_keep_it_from_ending(
    installation: Installation, up: ScriptedUpstream, line: bytes
) -> None:
    chunk = {"id": "gen-x", "choices": [{"index": 0, "delta": {"content": "word " * 100}}]}
    up.script(MINI, sse(*[json.dumps(chunk)] * 30_000))
    async with installation.served(SOPHIA_SERVER_DRAIN_S="0.3") as served:
        with socket.create_connection(("127.0.0.1", served.client.port)) as caller:
            data = served.client.request(chat(stream=True))
            caller.sendall(data.replace(b"Host:", line + b"Host:", 1))
            await until(lambda: bool(select.select([caller], [], [], 0)[0]))
            served.process.send_signal(TERM)
            assert await served.ended(8) == 0
    (row,) = installation.outcomes()
    assert (row.state, row.failure) == ("settled", "shutdown")


@pytest.mark.parametrize("size", [1_000_000, 6_000_000], ids=["kept", "too long to be kept"])
async def test_a_long_stream_that_could_be_repeated_ends_with_an_error_too(
    installation: Installation, up: ScriptedUpstream, size: int
) -> None:
    choice = {"index": 0, "delta": {"content": "word " * 3000}, "finish_reason": None}
    event = f"data: {json.dumps({'id': 'gen-x', 'choices': [choice]})}\n\n".encode()
    up.script(MINI, ScriptStep(raw=[SSE_HEAD + event * (size // len(event)), ("sleep", 20.0)]))
    async with installation.served(SOPHIA_SERVER_DRAIN_S="0.5") as served:
        data, answer = served.client.request(chat(stream=True)), Answer()
        data = data.replace(b"\r\n\r\n", b"\r\nIdempotency-Key: one\r\n\r\n", 1)
        asking = asyncio.create_task(served.client.raw(data, answer))
        await until(lambda: len(answer.body) > size * 0.9)
        served.process.send_signal(TERM)
        assert await served.ended() == 0
        await asyncio.wait_for(asking, 5)
    (row,) = installation.outcomes()
    assert row.failure == "shutdown" and row.cost_nano > 0
    assert answer.complete and answer.chunks[-1]["choices"][0]["finish_reason"] == "error"
