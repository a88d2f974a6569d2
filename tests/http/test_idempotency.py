"""`Idempotency-Key`: a repetition costs nothing, and never gets another request's answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from gateway import MINI, Answer, Gateway, Start, chat
from sophia.config import UpstreamModelSettings, UpstreamSettings
from sophia.http.idempotency import MAX_ANSWER_BYTES
from sophia.sandbox import ScriptStep

PATH = "/v1/chat/completions"
OWN = "own/model"
STREAMS = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture
async def gateway(start: Start) -> Any:
    async with start() as running:
        yield running


async def post(
    gateway: Gateway, idempotency_key: str = "one", key: str | None = None, **more: Any
) -> Answer:
    headers = {
        "Authorization": f"Bearer {key or gateway.client.key}",
        "Idempotency-Key": idempotency_key,
    }
    return await gateway.client.post(PATH, chat(MINI, **more), headers)


@STREAMS
async def test_a_repetition_gets_the_same_answer_and_pays_nothing(
    gateway: Gateway, stream: bool
) -> None:
    first = await post(gateway, stream=stream)
    again = await post(gateway, stream=stream)
    assert first.status == 200 and again.body == first.body
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-request-id"] == first.headers["x-request-id"]
    assert len(gateway.up.requests) == 1 and len(await gateway.settled(1)) == 1


@STREAMS
async def test_repetitions_at_the_same_time_share_one_call(gateway: Gateway, stream: bool) -> None:
    gateway.up.script(MINI, ScriptStep(first_delay=0.1, chunk_delay=0.01))
    answers = await asyncio.gather(*(post(gateway, stream=stream) for _ in range(5)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert len(gateway.up.requests) == 1


@STREAMS
async def test_the_call_goes_on_when_its_caller_leaves(gateway: Gateway, stream: bool) -> None:
    gateway.up.script(MINI, ScriptStep(first_delay=0.1, chunk_delay=0.005))
    data = gateway.client.request(chat(MINI, stream=stream))
    data = data.replace(b"\r\n\r\n", b"\r\nIdempotency-Key: one\r\n\r\n", 1)
    async with gateway.client.connection(data):
        await asyncio.sleep(0.05)
    answer = await post(gateway, stream=stream)
    assert answer.status == 200 and answer.complete
    assert len(gateway.up.requests) == 1
    (row,) = await gateway.settled(1)
    assert row.failure is None and row.state == "settled"


async def test_another_body_under_the_same_key_is_refused(gateway: Gateway) -> None:
    await post(gateway)
    answer = await post(gateway, text="Another question")
    assert answer.status == 422
    assert answer.error["metadata"]["error_type"] == "idempotency_conflict"
    assert len(gateway.up.requests) == 1


async def test_keys_of_different_owners_have_nothing_in_common(gateway: Gateway) -> None:
    other = await gateway.new_key()
    await gateway.catch_up()
    await post(gateway)
    answer = await post(gateway, key=other)
    assert answer.status == 200 and "idempotent-replayed" not in answer.headers
    assert len(gateway.up.requests) == 2


@STREAMS
@pytest.mark.parametrize("step", [ScriptStep(status=503), ScriptStep(status=429)])
async def test_an_outage_is_not_kept(gateway: Gateway, step: ScriptStep, stream: bool) -> None:
    gateway.up.script(MINI, step)
    assert (await post(gateway, stream=stream)).status == 429
    answer = await post(gateway, stream=stream)
    assert answer.status == 200 and "idempotent-replayed" not in answer.headers


async def test_a_stream_that_broke_off_is_told_and_the_refusal_of_a_request_is_kept(
    gateway: Gateway,
) -> None:
    gateway.up.script(MINI, ScriptStep(status=400, message="bad field"))
    assert (await post(gateway)).status == 400
    again = await post(gateway)
    assert again.status == 400 and again.headers["idempotent-replayed"] == "true"
    gateway.up.script(MINI, ScriptStep(cut_after=3))
    answer = await post(gateway, "two", stream=True)
    assert not answer.done and "error" in answer.chunks[-1]
    again = await post(gateway, "two", stream=True)
    assert again.done and "idempotent-replayed" not in again.headers


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_malformed_key_is_refused(gateway: Gateway, key: str) -> None:
    answer = await post(gateway, key)
    assert answer.status == 400 and answer.error["param"] == "Idempotency-Key"
    assert await gateway.untouched()


CHUNK = {"index": 0, "delta": {"content": "word " * 3000}, "finish_reason": None}
EVENT = f"data: {json.dumps({'id': 'gen-x', 'choices': [CHUNK]})}\n\n".encode()
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class EndlessUpstream:
    """A server whose streams are as fast as the other side takes them."""

    def __init__(self) -> None:
        self.sent = self.calls = self.running = 0

    @asynccontextmanager
    async def serve(self, start: Start) -> AsyncIterator[Gateway]:
        """Yield a Sophia that asks it for the model OWN."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        model = UpstreamModelSettings(id=OWN, completion_usd_per_mtok=10.0)
        place = UpstreamSettings(name="own", base_url=url, models=(model,))
        async with start(upstreams=(place,)) as gateway:
            yield gateway
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        self.running += 1
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(SSE_HEAD)
            while self.sent < 100_000_000:
                writer.write(EVENT)
                await writer.drain()
                self.sent += len(EVENT)
        self.running -= 1
        writer.close()


def keyed(gateway: Gateway) -> bytes:
    data = gateway.client.request(chat(OWN, stream=True))
    return data.replace(b"\r\n\r\n", b"\r\nIdempotency-Key: one\r\n\r\n", 1)


async def read_beyond_limit(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(10):
        await reader.readexactly(MAX_ANSWER_BYTES * 3 // 2)


@pytest.mark.parametrize("server", ["native"])
async def test_no_more_is_read_from_the_upstream_than_the_caller_takes(start: Start) -> None:
    """Beyond what is kept for a repetition."""
    up = EndlessUpstream()
    async with up.serve(start) as gateway, gateway.client.connection(keyed(gateway)):
        await asyncio.sleep(1.5)
        assert MAX_ANSWER_BYTES < up.sent < 5 * MAX_ANSWER_BYTES


@pytest.mark.parametrize("server", ["native"])
async def test_a_repetition_of_a_long_answer_that_runs_is_not_paid(start: Start) -> None:
    """Its beginning is no longer there; the first caller goes on."""
    up = EndlessUpstream()
    async with up.serve(start) as gateway, gateway.client.connection(keyed(gateway)) as first:
        await read_beyond_limit(first)
        async with gateway.client.connection(keyed(gateway)) as second:
            assert b" 409 " in await second.readuntil(b"\r\n")
        await read_beyond_limit(first)
        assert up.calls == 1


@pytest.mark.parametrize("server", ["native"])
async def test_a_long_answer_is_cancelled_when_its_last_caller_leaves(start: Start) -> None:
    """Nobody could get all of it."""
    up = EndlessUpstream()
    async with up.serve(start) as gateway:
        async with gateway.client.connection(keyed(gateway)) as first:
            await read_beyond_limit(first)
        (row,) = await gateway.settled(1)
        assert row.failure == "client_gone" and row.cost_nano > 0
        assert not up.running


@STREAMS
async def test_a_long_answer_is_given_to_all_that_wait_and_not_again(
    gateway: Gateway, stream: bool
) -> None:
    text = "word " * 3000
    end = b'data: {"id":"g","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    count = 2 * MAX_ANSWER_BYTES // len(text)
    message = {"role": "assistant", "content": text * count}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    streamed = ScriptStep(raw=[SSE_HEAD, ("sleep", 0.1), EVENT * count + end, "fin"])
    whole = ScriptStep(body={"id": "g", "choices": [choice]}, delay=0.1)
    gateway.up.script(MINI, streamed if stream else whole)
    answers = await asyncio.gather(*(post(gateway, stream=stream) for _ in range(3)))
    assert all(answer.complete and answer.text == text * count for answer in answers)
    again = await post(gateway, stream=stream)
    assert again.status == 409 and again.error["metadata"]["error_type"] == "answer_too_long"
    assert len(gateway.up.requests) == 1
