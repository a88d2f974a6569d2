"""Rows 29 to 35 of the failure table: callers, and Sophia itself."""

import asyncio
import json
import signal
from contextlib import AsyncExitStack
from typing import Any

from msgspec import structs
from stage import SSE_HEAD
from table_world import World, check_broken, row

from disk import full_disk
from gateway import MINI, SHORT, Answer, chat, prepare, running
from processes import Installation
from sophia.adapters.clock import SystemClock
from sophia.config import ServerSettings, Settings
from sophia.sandbox import ScriptedUpstream, ScriptStep
from stores import left_open


@row(29)
async def caller_leaves(world: World, stream: bool) -> None:
    async with world.gateway() as gateway:
        gateway.up.script(MINI, ScriptStep(chunk_delay=0.01, delay=0.0 if stream else 0.2))
        async with gateway.client.connection(gateway.client.request(chat(stream=stream))) as reader:
            if stream:
                await reader.readuntil(b"data: ")
            async with asyncio.timeout(3):
                while not gateway.up.requests:
                    await asyncio.sleep(0.005)
        (only,) = await gateway.settled(1)
        assert gateway.up.requests[0].aborted and only.failure == "client_gone"
        if stream:
            assert only.cost_nano == gateway.up.bill.total


@row(30)
async def caller_reads_slowly(world: World, stream: bool) -> None:
    server = ServerSettings(write_s=1.5)
    deadlines = structs.replace(SHORT, whole_s=10.0)
    async with world.gateway(server=server, deadlines=deadlines) as gateway:
        content = "x" * (8 * 1024 * 1024)
        if stream:
            piece = {"id": "g", "choices": [{"index": 0, "delta": {"content": "x" * 65_000}}]}
            event = b"data: %b\n\n" % json.dumps(piece).encode()
            gateway.up.script(MINI, ScriptStep(raw=(SSE_HEAD, *[event] * 400)))
        else:
            gateway.up.script(MINI, ScriptStep(text=content))
        body = gateway.client.request(chat(stream=stream))
        async with gateway.client.connection(body) as reader:
            reader._transport.pause_reading()  # type: ignore[attr-defined] # nothing is read at all
            (only,) = await gateway.settled(1, 12.0)
            assert only.failure == ("client_gone" if stream else None)
        assert (await gateway.client.chat(stream=stream)).status == 200


@row(31)
async def overload(world: World, stream: bool) -> None:
    async with (
        world.gateway(server=ServerSettings(max_in_flight=2)) as gateway,
        AsyncExitStack() as held,
    ):
        gateway.up.script(MINI, ScriptStep(no_answer="hang"), times=2)
        for _ in range(2):
            body = gateway.client.request(chat(MINI, stream=stream))
            await held.enter_async_context(gateway.client.connection(body))
        async with asyncio.timeout(3):
            while len(gateway.up.requests) < 2:
                await asyncio.sleep(0.005)
        answer = await gateway.client.chat(stream=stream)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert len(await gateway.rows("intents")) == 2


@row(32)
async def ledger_down(world: World, stream: bool) -> None:
    async with world.gateway() as gateway:
        gateway.up.script(MINI, ScriptStep(chunk_delay=0.02, delay=0.0 if stream else 0.2))
        running_one = asyncio.create_task(gateway.client.chat(stream=stream))
        async with asyncio.timeout(3):
            while not gateway.up.requests:
                await asyncio.sleep(0.005)
        with full_disk():
            assert (await running_one).status == 200
            async with asyncio.timeout(3):
                while (await gateway.client.get("/health/ready")).status == 200:
                    await asyncio.sleep(0.01)
            answer = await gateway.client.chat(stream=stream)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert len(gateway.up.requests) == 1
        (only,) = [each for each in await gateway.settled(2, 5.0) if each.failure is None]
        assert only.cost_nano == gateway.up.bill.total


async def begin(client: Any, up: ScriptedUpstream, stream: bool) -> asyncio.Task[Answer]:
    """Return a request that runs: its stream has begun, or it waits for its whole answer."""
    slow = ScriptStep(text="word " * 200, chunk_delay=0.05, delay=0.0 if stream else 20.0)
    up.script(MINI, slow)
    task = asyncio.create_task(client.chat(stream=stream))
    async with asyncio.timeout(5):
        while not up.requests:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.3)
    return task


@row(33)
async def asked_to_stop(world: World, stream: bool) -> None:
    installation = Installation(world.folder / "served", world.migrated, world.up)
    limits = {"SOPHIA_SERVER_LINGER_S": "0.1", "SOPHIA_SERVER_DRAIN_S": "0.5"}
    async with installation.served(**limits) as served:
        task = await begin(served.client, world.up, stream)
        served.process.send_signal(signal.SIGTERM)
        answer = await asyncio.wait_for(task, 5)
        if stream:
            check_broken(answer, "shutdown")
        else:
            assert answer.status == 503 and answer.error
        assert await served.ended() == 0
    (only,) = installation.outcomes()
    assert only.failure == "shutdown"


@row(34)
async def killed(world: World, stream: bool) -> None:
    installation = Installation(world.folder / "served", world.migrated, world.up)
    async with installation.served() as served:
        task = await begin(served.client, world.up, stream)
        served.process.send_signal(signal.SIGKILL)
        answer = await asyncio.wait_for(task, 5)
        assert not answer.complete
    assert not installation.outcomes() and len(left_open(installation.folder)) == 1
    async with installation.served():
        async with asyncio.timeout(10):
            state = "settled" if stream else "unknown"
            while [each.state for each in installation.outcomes()] != [state]:
                await asyncio.sleep(0.05)
    assert not stream or installation.outcomes()[0].cost_nano == world.up.bill.total


class JumpingClock(SystemClock):
    """A clock whose wall time can be set wrong."""

    def __init__(self) -> None:
        self.error = 0.0

    def wall(self) -> float:
        return super().wall() + self.error


@row(35)
async def clock_jumps(world: World, stream: bool) -> None:
    clock, folder = JumpingClock(), world.folder / "clock"
    prepare(folder, world.migrated)
    settings = Settings(data_dir=str(folder), deadlines=SHORT)
    async with running(folder, "native", settings, world.up, clock) as gateway:
        gateway.up.script(MINI, ScriptStep(first_delay=0.1, delay=0.0 if stream else 0.1))
        task = asyncio.create_task(gateway.client.chat(stream=stream))
        async with asyncio.timeout(3):
            while not gateway.up.requests:
                await asyncio.sleep(0.005)
        (intent,) = await gateway.rows("intents")
        for error in (7200.0, -3.0, 86_400.0):
            clock.error = error
        assert (await task).status == 200
        (only,) = await gateway.settled(1)
        assert only.window == intent["window"] and only.cost_nano == gateway.up.bill.total
        assert 0 < only.total_ms < 5000
