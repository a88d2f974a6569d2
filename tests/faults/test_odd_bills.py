"""Bills of odd answers: what came is charged, whatever shape it has and whatever came with it."""

import asyncio
import json
from typing import Any

import pytest
from odd_upstreams import OWN, STREAMS, call, calls_of, delta, own, stream_of, whole

from gateway import MINI, NEMO, Gateway, Start
from sophia.adapters.upstreams.dialects import encode_openrouter
from sophia.adapters.upstreams.http1.origin import HttpOrigin
from sophia.adapters.upstreams.http1.pool import ConnectionPool
from sophia.adapters.upstreams.http_upstream import HttpUpstream
from sophia.sandbox import ScriptStep

FAILED_USAGE = {"prompt_tokens": 10, "completion_tokens": 1000, "total_tokens": 1010}
IN_BAND = {"error": {"code": 502, "message": "Provider disconnected"}, "choices": []}
HALF = {"role": "assistant", "content": "Half an ans"}
FAILED_WITH_USAGE: dict[str, ScriptStep] = {
    "whole error": whole(HALF, "error", usage=FAILED_USAGE),
    "whole abort": whole(HALF, "abort", usage=FAILED_USAGE),
    "whole in-band": whole(HALF, "stop", usage=FAILED_USAGE, error={"code": 502, "message": "x"}),
    "status": ScriptStep(
        status=500, body={"error": {"message": "late", "code": 500}, "usage": FAILED_USAGE}
    ),
    "stream abort": stream_of(delta(content="Half"), delta("abort") | {"usage": FAILED_USAGE}),
    "stream error with it": stream_of(delta(content="Half"), IN_BAND | {"usage": FAILED_USAGE}),
    "stream error after it": stream_of(
        delta(content="Half"), {"choices": [], "usage": FAILED_USAGE}, IN_BAND
    ),
}


@pytest.mark.parametrize("name", FAILED_WITH_USAGE)
async def test_usage_that_comes_with_an_error_is_booked(start: Start, name: str) -> None:
    async with own(start) as gateway:
        gateway.up.script(MINI, FAILED_WITH_USAGE[name])
        answer = await gateway.client.chat(OWN, stream=name.startswith("stream"))
        assert answer.status >= 500
        (row,) = await gateway.settled(1)
        assert (row.state, row.cost_nano) == ("settled", 10 * 1_000 + 1000 * 10_000)


async def test_a_cost_that_comes_with_an_error_is_booked_beside_the_next_answer(
    gateway: Gateway,
) -> None:
    gateway.up.script(MINI, whole(HALF, "error", usage=FAILED_USAGE | {"cost": 0.0123}))
    answer = await gateway.client.chat(models=[MINI, NEMO])
    assert answer.headers["x-sophia-model"] == NEMO
    rows = await gateway.settled(2)
    assert (rows[0].state, rows[0].cost_nano) == ("settled", 12_300_000)


@STREAMS
async def test_a_usage_that_counts_nothing_is_none(start: Start, stream: bool) -> None:
    """Servers and proxies that do not count say 0; the prompt's tokens are believed."""
    text = "word " * 800
    async with own(start) as gateway:
        for prompt, booked in ((0, None), (70, 70)):
            usage = {"prompt_tokens": prompt, "completion_tokens": 0, "total_tokens": prompt}
            end = {"id": "g", "choices": [], "usage": usage}
            gateway.up.script(
                MINI,
                stream_of(delta(content=text), delta("stop"), end)
                if stream
                else whole({"role": "assistant", "content": text}, usage=usage),
            )
            await gateway.client.chat(OWN, stream=stream)
            row = (await gateway.outcomes())[-1]
            assert row.cost_source == "estimated" and row.cost_nano > 5_000_000
            assert booked in (None, row.prompt_tokens)


CALL = {"name": "f", "arguments": "x" * 3000}
THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "x" * 3000}]}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
UNUSUAL_TEXT: dict[str, tuple[dict[str, Any], str]] = {
    "function_call": ({"content": None, "function_call": CALL}, "function_call"),
    "custom tool": (
        {"content": None, "tool_calls": [{"id": "a", "custom": {"input": "x" * 3000}}]},
        "tool_calls",
    ),
    "parts": ({"content": [THOUGHT, {"type": "text", "text": "y"}, PICTURE]}, "stop"),
}


@STREAMS
@pytest.mark.parametrize("name", UNUSUAL_TEXT)
async def test_text_in_any_place_is_charged_without_usage(
    start: Start, stream: bool, name: str
) -> None:
    """Mistral's thinking models answer with a list of parts; pictures are no text."""
    message, finish = UNUSUAL_TEXT[name]
    async with own(start) as gateway:
        gateway.up.script(
            MINI, stream_of(delta(**message), delta(finish)) if stream else whole(message, finish)
        )
        await gateway.client.chat(OWN, stream=stream)
        (row,) = await gateway.settled(1)
        assert 1000 <= row.completion_tokens <= 1010


@pytest.mark.parametrize(
    "media", [{"images": [PICTURE]}, {"audio": {"data": "AAAA"}}, {"refusal": "No."}]
)
async def test_an_answer_without_text_is_not_empty(gateway: Gateway, media: dict[str, Any]) -> None:
    """Image models of OpenRouter answer with an empty text, otherwise in its exact shape."""
    step = whole(
        {"role": "assistant", "content": "", **media},
        created=1,
        model=MINI,
        provider="P",
        object="chat.completion",
        system_fingerprint=None,
        usage=FAILED_USAGE | {"cost": 0.0123},
    )
    step.body["choices"][0] |= {"native_finish_reason": "STOP", "logprobs": None}  # type: ignore[index,call-overload] # a JSON body
    gateway.up.script(MINI, step)
    answer = await gateway.client.chat(models=[MINI, NEMO])
    assert answer.headers["x-sophia-model"] == MINI
    assert answer.json["choices"][0]["message"].items() >= media.items()


@STREAMS
async def test_an_answer_of_calls_without_a_call_is_empty(gateway: Gateway, stream: bool) -> None:
    """The finish reason alone is no answer."""
    step = (
        stream_of(delta(content=""), delta("tool_calls"))
        if stream
        else whole({"role": "assistant", "content": "", "tool_calls": []}, "tool_calls")
    )
    gateway.up.script(MINI, step)
    answer = await gateway.client.chat(models=[MINI, NEMO], stream=stream)
    assert answer.headers["x-sophia-model"] == NEMO and answer.text


async def test_calls_of_a_server_that_does_not_stream_have_an_index(gateway: Gateway) -> None:
    """Clients build the calls of a stream by it."""
    message = {"role": "assistant", "content": None, "tool_calls": [call("a", "{}"), call("b")]}
    gateway.up.script(MINI, whole(message, "tool_calls"))
    built = calls_of(await gateway.client.chat(stream=True))
    assert [(index, one["id"]) for index, one in built.items()] == [(0, "a"), (1, "b")]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ([{"index": 0, "embedding": [1.0]}], 502),
        ([{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": None}], 502),
        ([{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": "AACAPw=="}], 200),
    ],
)
async def test_embeddings_have_a_vector_for_each_text(
    gateway: Gateway, data: list[Any], status: int
) -> None:
    """Fewer would shift all that follow."""
    body = {"object": "list", "data": data, "usage": {"prompt_tokens": 0, "total_tokens": 0}}
    gateway.up.script("*", ScriptStep(body=body), times=None)
    request = {"model": "openai/text-embedding-3-small", "input": ["a", "b"]}
    assert (await gateway.client.post("/v1/embeddings", request)).status == status
    row = (await gateway.outcomes())[-1]
    assert row.prompt_tokens > 0 or status == 502
    tokens = request | {"input": [1, 2, 3]}
    assert (await gateway.client.post("/v1/embeddings", tokens)).status == 200


async def test_a_late_bill_names_the_cost_at_a_key_of_ones_own() -> None:
    """The same as in an answer, where the bill comes from `/generation`."""
    data = {"total_cost": 0, "is_byok": True, "upstream_inference_cost": 0.0123}
    body = json.dumps({"data": data}).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1"
    pool = ConnectionPool(HttpOrigin.parse(url))
    upstream = HttpUpstream("o", "O", pool, encode_openrouter, billed_by_generation=True)
    usage = await upstream.fetch_usage("gen-1")
    await upstream.close()
    server.close()
    assert usage is not None and usage.cost_nano == 12_300_000
