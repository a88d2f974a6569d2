"""A caller who disconnects, at whatever point of a stream, pays what the upstream bills."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from odd_upstreams import OWN, own

from gateway import MINI, NEMO, Gateway, Start, chat
from sophia.sandbox import ScriptedUpstream, ScriptStep
from sophia.sandbox.response.generation import SimulatedAnswer

PIECES = 24
TEXT = " ".join(f"word{number}" for number in range(PIECES))
EVENTS = 1 + PIECES + 3
"""The role, the text, the finish reason, the usage and `[DONE]`."""


class FullBillUpstream(ScriptedUpstream):
    """Generates on after a disconnect and bills the whole answer, as some providers do."""

    def _book(self, generation: SimulatedAnswer, *, aborted: bool = False) -> None:
        if not aborted or generation.settled:
            super()._book(generation, aborted=aborted)
            return
        generation.settled = True
        asyncio.get_running_loop().call_later(0.03, self._book_all, generation)

    def _book_all(self, generation: SimulatedAnswer) -> None:
        generation.settled = False
        generation.completion_tokens = sum(choice.tokens for choice in generation.choices)
        super()._book(generation, aborted=True)


@pytest.fixture(params=[ScriptedUpstream, FullBillUpstream], ids=["stops", "bills all"])
async def up(request: pytest.FixtureRequest) -> AsyncIterator[ScriptedUpstream]:
    """An upstream that bills what it made until the disconnect, and one that bills everything."""
    async with request.param() as upstream:
        yield upstream


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(3):
        while not condition():
            await asyncio.sleep(0.002)


async def disconnect(gateway: Gateway, events: int, model: str = MINI) -> None:
    """Read the head and so many events of a stream, then leave."""
    request = gateway.client.request(chat(model, stream=True))
    async with gateway.client.connection(request) as reader:
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(events):
            while not (await reader.readline()).startswith(b"data: "):
                pass


async def check_books(gateway: Gateway, attempts: int) -> None:
    """Each attempt costs what the upstream bills for it, and nothing stays held."""
    rows = await gateway.settled(attempts)
    assert len(rows) == len(await gateway.rows("intents")) == attempts
    assert {(row.state, row.cost_source) for row in rows} == {("settled", "upstream")}
    assert {row.generation_id: row.cost_nano for row in rows} == {
        bill.generation_id: bill.cost for bill in gateway.up.bill.rows
    }
    assert await gateway.standing() == (gateway.up.bill.total / 1e9, 0.0)


async def test_a_disconnect_after_any_event_costs_what_the_upstream_bills(gateway: Gateway) -> None:
    """Row 29: the call is cancelled at once, and its bill is asked for."""
    gateway.up.script(MINI, ScriptStep(text=TEXT, chunk_delay=0.01), times=None)
    await asyncio.gather(*(disconnect(gateway, events) for events in range(EVENTS + 1)))
    await check_books(gateway, EVENTS + 1)
    posts = [seen for seen in gateway.up.requests if seen.method == "POST"]
    assert sum(seen.aborted for seen in posts) >= PIECES
    if type(gateway.up) is ScriptedUpstream:
        made = sorted(bill.completion_tokens for bill in gateway.up.bill.rows)
        least = [min(max(events - 1, 0), PIECES) for events in range(EVENTS + 1)]
        assert all(tokens >= read for tokens, read in zip(made, least, strict=True))
        assert sum(made) < PIECES * len(made)
    else:
        assert {bill.completion_tokens for bill in gateway.up.bill.rows} == {PIECES}


async def test_a_call_that_is_charged_in_full_anyway_is_read_to_its_end(start: Start) -> None:
    """Of an own upstream, which cannot be asked for the bill: `on_leave: drain`."""
    async with own(start, on_leave="drain") as gateway:
        gateway.up.script(MINI, ScriptStep(text=TEXT, chunk_delay=0.01), times=None)
        await asyncio.gather(*(disconnect(gateway, events, OWN) for events in range(EVENTS + 1)))
        await check_books(gateway, EVENTS + 1)
        assert not any(seen.aborted for seen in gateway.up.requests)
        assert {bill.completion_tokens for bill in gateway.up.bill.rows} == {PIECES}


async def test_a_cancelled_generation_says_so(gateway: Gateway) -> None:
    gateway.up.script(MINI, ScriptStep(text=TEXT, chunk_delay=0.01))
    await disconnect(gateway, 5)
    (row,) = await gateway.settled(1)
    assert row.failure == "client_gone"
    path = f"/v1/generation?id={row.generation_id}"
    assert (await gateway.client.get(path)).json["data"]["cancelled"] is True


async def test_a_disconnect_between_the_upstreams_head_and_its_content(sophia: Gateway) -> None:
    """The generation id came with the head, so the bill can be asked for."""
    sophia.up.script(MINI, ScriptStep(text=TEXT, first_delay=5.0))
    async with sophia.client.connection(sophia.client.request(chat(stream=True))):
        async with asyncio.timeout(3):
            while not await sophia.rows("generations"):
                await asyncio.sleep(0.005)
    await check_books(sophia, 1)
    assert sophia.up.requests[0].aborted


@pytest.mark.parametrize("stream", [False, True])
async def test_a_disconnect_before_the_upstreams_head(sophia: Gateway, stream: bool) -> None:
    """Nothing names the call, so its probable cost stays held."""
    sophia.up.script(MINI, ScriptStep(delay=5.0))
    async with sophia.client.connection(sophia.client.request(chat(stream=stream))):
        await until(lambda: bool(sophia.up.requests))
    (row,) = await sophia.settled(1)
    assert (row.state, row.failure) == ("unknown", "client_gone")
    assert await sophia.standing() == (0.0, row.cost_nano / 1e9)


async def test_a_disconnect_between_attempts_stops_the_failover(gateway: Gateway) -> None:
    gateway.up.script(MINI, ScriptStep(status=503, delay=0.05))
    async with gateway.client.connection(gateway.client.request(chat(models=[MINI, NEMO]))):
        await until(lambda: bool(gateway.up.requests))
    await gateway.settled(1)
    await asyncio.sleep(0.1)
    assert {seen.json()["model"] for seen in gateway.up.requests if seen.method == "POST"} == {MINI}
