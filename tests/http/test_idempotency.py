"""`Idempotency-Key`: a repetition costs nothing, and never gets another request's answer."""

import asyncio
from typing import Any

import pytest

from gateway import MINI, Answer, Gateway, Start, chat
from sophia.sandbox import ScriptStep

PATH = "/v1/chat/completions"
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
