"""Callers that send or read slowly are cut after a time, as their own fault; all others are served."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from odd_upstreams import delta, events
from stage import SSE

from gateway import MINI, SHORT, Gateway, Start, chat
from sophia.config import ServerSettings
from sophia.sandbox import ScriptStep

NATIVE = pytest.mark.parametrize("server", ["native"])
pytestmark = NATIVE
QUICK = ServerSettings(head_s=0.3, body_s=0.3, write_s=0.4)
PIECE = "many words " * 20_000
LONG = [delta(content=PIECE) for _ in range(60)]
"""About 13 MB: more than the buffers of two sockets."""


def long_stream() -> ScriptStep:
    return ScriptStep(body=events(*LONG, delta("stop")), headers=SSE)


class SlowReader:
    """A client with a small receive buffer, which reads when it is told to."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.data = bytearray()

    async def read(self, size: int = 1 << 20) -> bytes:
        """Read some; b"" at the end, also of a connection that was reset."""
        try:
            some = await asyncio.get_running_loop().sock_recv(self._connection, size)
        except ConnectionResetError:
            return b""
        self.data += some
        return some

    async def read_some(self, size: int) -> None:
        """Read at least `size` bytes."""
        target = len(self.data) + size
        while len(self.data) < target:
            assert await self.read(), self.data[-500:]

    async def read_all(self) -> None:
        while await self.read():
            pass


@asynccontextmanager
async def slow_reader(gateway: Gateway, data: bytes) -> AsyncIterator[SlowReader]:
    """Yield a client that has sent `data` and read nothing."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        await loop.sock_connect(connection, ("127.0.0.1", gateway.client.port))
        await loop.sock_sendall(connection, data)
        async with asyncio.timeout(10):
            yield SlowReader(connection)


async def read_until_cut(gateway: Gateway, data: bytes, *more: bytes) -> tuple[bytes, float]:
    """Send `data`, then `more` with a wait before each; return the answer and when it ended."""
    began = time.monotonic()
    async with gateway.client.connection(data) as reader, asyncio.timeout(5):
        return await reader.read(-1), time.monotonic() - began


@pytest.mark.parametrize("data", [b"P", b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX: y"])
async def test_a_head_must_be_complete_in_time(start: Start, data: bytes) -> None:
    """The caller is told why; an open connection that never sent anything is closed silently."""
    async with start(server=QUICK) as gateway:
        seen, seconds = await read_until_cut(gateway, data)
        assert seen.startswith(b"HTTP/1.1 408") and b"server.head_s" in seen
        assert 0.3 <= seconds < 2
        seen, seconds = await read_until_cut(gateway, b"")
        assert seen == b"" and 0.3 <= seconds < 2


async def test_a_head_that_drips_is_cut_all_the_same(start: Start) -> None:
    """Every byte is progress, but the head is due as a whole."""
    async with start(server=QUICK) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.client.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        async with asyncio.timeout(2):
            while b"408" not in reader._buffer:
                writer.write(b"y")
                await asyncio.sleep(0.02)
        writer.close()


async def test_the_head_of_a_later_request_is_due_from_its_first_byte(start: Start) -> None:
    """A connection may be idle for longer than a head may take."""
    async with start(server=QUICK) as gateway:
        live = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.client.port)
        async with asyncio.timeout(3):
            for _ in range(2):
                writer.write(live)
                await reader.readuntil(b'"live"}')
                await asyncio.sleep(0.5)
            writer.write(live[:10])
            assert b"408" in await reader.read(-1)
        writer.close()


@pytest.mark.parametrize("sent", [0, 10])
async def test_a_body_must_be_complete_in_time(start: Start, sent: int) -> None:
    """D9: nothing was asked of the upstream, and nothing is booked."""
    async with start(server=QUICK) as gateway:
        data = gateway.client.request(chat())
        cut = data.index(b"\r\n\r\n") + 4 + sent
        seen, seconds = await read_until_cut(gateway, data[:cut])
        assert seen.startswith(b"HTTP/1.1 408") and b"server.body_s" in seen
        assert 0.3 <= seconds < 2
        assert await gateway.untouched()


async def test_a_long_body_may_take_longer(start: Start) -> None:
    """Every 16 KiB received add a second."""
    async with start(server=QUICK) as gateway:
        data = gateway.client.request(chat(text="word " * 5_000))
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.client.port)
        async with asyncio.timeout(5):
            for at in range(0, len(data), len(data) // 5):
                writer.write(data[at : at + len(data) // 5])
                await asyncio.sleep(0.15)
            assert b" 200 " in await reader.readuntil(b"\r\n")
        writer.close()


async def test_a_slow_reader_slows_the_upstream_and_gets_the_whole_stream(start: Start) -> None:
    """D8: the time that Sophia waits for the caller is no stall of the upstream."""
    async with start(deadlines=SHORT) as gateway:
        gateway.up.script(MINI, long_stream())
        async with slow_reader(gateway, gateway.client.request(chat(stream=True))) as client:
            await client.read()
            # More than three times deadlines.stall_s.
            await asyncio.sleep(1)
            while b"[DONE]" not in client.data[-100:]:
                assert await client.read(), client.data[-500:]
        assert client.data.count(b"many words ") == len(LONG) * 20_000
        (row,) = await gateway.settled(1)
        assert (row.state, row.failure) == ("settled", None)


async def test_an_upstream_that_stalls_is_still_noticed_behind_a_slow_reader(start: Start) -> None:
    """Once the caller has read everything, the clock runs again."""
    async with start(deadlines=SHORT) as gateway:
        gateway.up.script(MINI, ScriptStep(text="a few words", stall_after=2))
        began = time.monotonic()
        answer = await gateway.client.chat(stream=True)
        assert answer.chunks[-1]["error"]["metadata"]["cause"] == "stall"
        assert time.monotonic() - began < 2


async def test_a_caller_who_reads_nothing_of_a_stream_is_cut(start: Start) -> None:
    """D8: it is booked as a caller who left, and the upstream is not blamed."""
    async with start(server=QUICK, deadlines=SHORT) as gateway:
        gateway.up.script(MINI, long_stream())
        async with slow_reader(gateway, gateway.client.request(chat(stream=True))) as client:
            (row,) = await gateway.settled(1)
            assert row.failure == "client_gone"
            await client.read_all()
            assert b"[DONE]" not in client.data
        assert (await gateway.client.chat()).status == 200


async def test_a_caller_who_reads_nothing_of_a_whole_answer_is_cut(start: Start) -> None:
    """D11: the answer was complete, and is paid; its memory is free again."""
    async with start(server=QUICK, deadlines=SHORT) as gateway:
        message = {"role": "assistant", "content": PIECE * 60}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        gateway.up.script(MINI, ScriptStep(body={"id": "gen-x", "choices": [choice]}))
        async with slow_reader(gateway, gateway.client.request(chat())) as client:
            (row,) = await gateway.settled(1)
            assert row.failure is None
            await asyncio.sleep(1.5)
            await client.read_all()
            assert len(client.data) < len(PIECE) * 60


@pytest.mark.parametrize("stream", [False, True])
async def test_a_slow_but_steady_reader_is_not_cut(start: Start, stream: bool) -> None:
    """The clock starts again with everything that is read."""
    async with start(server=QUICK, deadlines=SHORT) as gateway:
        message = {"role": "assistant", "content": PIECE * 60}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        whole = ScriptStep(body={"id": "gen-x", "choices": [choice]})
        gateway.up.script(MINI, long_stream() if stream else whole)
        async with slow_reader(gateway, gateway.client.request(chat(stream=stream))) as client:
            for _ in range(10):
                await client.read_some(400_000)
                await asyncio.sleep(0.12)
            end = b"[DONE]" if stream else b'"attempts":1}}'
            while end not in client.data[-200:]:
                assert await client.read()


async def test_answers_that_are_not_read_do_not_pile_up(start: Start) -> None:
    """The next request of a connection waits until the answer before has been read."""
    async with start(server=QUICK, deadlines=SHORT) as gateway:
        message = {"role": "assistant", "content": PIECE * 60}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        gateway.up.script(MINI, ScriptStep(body={"id": "gen-x", "choices": [choice]}), times=None)
        async with slow_reader(gateway, gateway.client.request(chat())) as client:
            await gateway.settled(1)
            loop = asyncio.get_running_loop()
            for _ in range(3):
                await loop.sock_sendall(client._connection, gateway.client.request(chat()))
                await asyncio.sleep(0.02)
            await asyncio.sleep(1)
        assert len(await gateway.outcomes()) == 1
        assert sum(seen.method == "POST" for seen in gateway.up.requests) == 1


def keep_alives(count: int) -> list[Any]:
    return [(": thinking\n\n" * 3).encode() if at % 2 else ("sleep", 0.05) for at in range(count)]


async def test_keep_alives_count_from_the_last_content_and_without_the_caller(start: Start) -> None:
    """D8: an upstream that thinks is believed as long, however slow the caller was before."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    # One event, so that nothing is read after it while the caller reads nothing.
    begin = f"data: {json.dumps(delta(content=PIECE * 20))}\n\n".encode()
    end = events(delta(content="end"), delta("stop"))
    raw = [head + begin, ("sleep", 2.0), *keep_alives(10), end, "fin"]
    async with start(deadlines=SHORT) as gateway:
        gateway.up.script(MINI, ScriptStep(raw=raw))
        async with slow_reader(gateway, gateway.client.request(chat(stream=True))) as client:
            await client.read()
            # More than five times deadlines.stall_s.
            await asyncio.sleep(1.8)
            while b"[DONE]" not in client.data[-100:]:
                assert await client.read(), client.data[-500:]
