"""Upstreams that send too much, or what would break an answer apart, do no harm."""

import asyncio
import gzip
import json
from typing import Any

import pytest
from odd_upstreams import OWN, STREAMS, delta, events, own, stream_of, whole
from stage import HTML, SSE_HEAD, asked, check_clean

from gateway import MINI, NEMO, Gateway, Start
from sophia.sandbox import ScriptStep

KEY = "sk-or-test"
"""Of the scripted upstream."""
INJECTED = 'a"\n\ndata: [DONE]\n\ndata: {"x":1}\r\n\r\nX-Evil: 1\0\u2028'


def choice(index: int, text: str = "x", part: str = "delta") -> dict[str, Any]:
    content = {"role": "assistant", "content": text}
    finish = "stop" if part == "message" else None
    more = {"native_finish_reason": finish, "logprobs": None}
    return {"index": index, part: content, "finish_reason": finish, **more}


def conforming(count: int) -> ScriptStep:
    """Return an answer in OpenRouter's exact shape, which needs no change."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "cost": 0.00001}
    body = {
        "id": "gen-x",
        "created": 1,
        "model": MINI,
        "provider": "p",
        "object": "chat.completion",
        "system_fingerprint": None,
        "choices": [choice(index, part="message") for index in range(count)],
        "usage": usage,
    }
    return ScriptStep(body=body)


def answers(count: int) -> dict[str, tuple[bool, ScriptStep]]:
    """Return answers of `count` choices, and whether they stream."""
    choices = [choice(index) for index in range(count)]
    each = [{"id": "gen-x", "choices": [one]} for one in choices]
    message = {"role": "assistant", "content": "x"}
    many = [{"message": message, "finish_reason": "stop"} for _ in range(count)]
    ends = {"id": "gen-x", "choices": [one | {"finish_reason": "stop"} for one in choices]}
    return {
        "whole": (False, ScriptStep(body={"id": "gen-x", "choices": many})),
        "conforming": (False, conforming(count)),
        "one event": (True, stream_of({"id": "gen-x", "choices": choices}, ends)),
        "many events": (True, stream_of(*each, ends)),
    }


@pytest.mark.parametrize("kind", list(answers(1)))
async def test_many_more_choices_than_requested_are_malformed(gateway: Gateway, kind: str) -> None:
    """Some servers give a few more; a million would fill the memory."""
    for count, attempts in ((9, 1), (10, 2)):
        stream, step = answers(count)[kind]
        gateway.up.script(MINI, step)
        answer = await asked(gateway, stream)
        assert answer.headers["x-sophia-attempts"] == str(attempts)
        rows = await gateway.outcomes()
        assert [row.failure for row in rows[-attempts:]] == ["malformed", None][-attempts:]


async def test_tool_calls_without_end_are_malformed(gateway: Gateway) -> None:
    """Each one is remembered, so that there is a limit."""
    calls = [{"id": f"c{number}", "function": {"name": "f"}} for number in range(10_001)]
    gateway.up.script(MINI, stream_of(delta(tool_calls=calls), delta("stop")))
    check_clean(await asked(gateway, stream=True))


async def test_chunks_without_content_are_held_back_to_a_limit(gateway: Gateway) -> None:
    """They wait for the first content, and a million of them would fill the memory."""
    gateway.up.script(MINI, stream_of(*[delta(role="assistant")] * 10_000, delta(content="late")))
    check_clean(await asked(gateway, stream=True))
    gateway.up.script(
        MINI, stream_of(*[delta(role="assistant")] * 100, delta(content="a"), delta("stop"))
    )
    assert (await asked(gateway, stream=True)).text == "a"


@STREAMS
async def test_a_compressed_answer_is_malformed(gateway: Gateway, stream: bool) -> None:
    """Sophia never asks for one, and never expands one: a bomb stays as small as it came."""
    body = events(delta(content="x"), delta("stop")) if stream else b'{"choices":[]}'
    bomb = gzip.compress(body + b" " * 10_000_000).decode("latin-1")
    raw = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n"
    raw += b"Content-Type: text/event-stream\r\n\r\n" + bomb.encode("latin-1")
    gateway.up.script(MINI, ScriptStep(raw=[raw, "fin"]))
    check_clean(await asked(gateway, stream))
    assert gateway.up.requests[0].headers["accept-encoding"] == "identity"


@STREAMS
async def test_text_of_an_upstream_is_no_event_and_no_header(
    gateway: Gateway, stream: bool
) -> None:
    """Whatever stands in its strings, the caller gets events of one JSON object each."""
    names = {"model": INJECTED, "provider": INJECTED, "system_fingerprint": INJECTED}
    if stream:
        step = stream_of(
            delta(content=INJECTED) | names | {"id": INJECTED},
            delta(reasoning=INJECTED) | names,
            delta("stop") | names,
            {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "x": INJECTED}},
        )
    else:
        step = whole({"role": INJECTED, "content": INJECTED}, **names)
    gateway.up.script(MINI, step)
    answer = await asked(gateway, stream)
    assert answer.status == 200 and "x-evil" not in answer.headers
    if stream:
        assert all(isinstance(chunk, dict) for chunk in answer.chunks)
        assert answer.data.count("[DONE]") <= 1
    assert answer.text == INJECTED


async def test_a_whole_answer_in_place_of_a_stream_becomes_one_event(gateway: Gateway) -> None:
    """Its line breaks would end the event."""
    body = json.loads(json.dumps(conforming(1).body))
    spread = json.dumps(body, indent=2).replace("\n", "\n\n")
    gateway.up.script(MINI, ScriptStep(body=spread))
    answer = await asked(gateway, stream=True)
    assert answer.done and answer.text == "x"


@STREAMS
async def test_an_error_page_with_line_breaks_is_no_header(gateway: Gateway, stream: bool) -> None:
    error = {"error": {"code": 400, "message": INJECTED, "metadata": {"error_type": INJECTED}}}
    gateway.up.script("*", ScriptStep(status=400, body=error, headers=HTML), times=None)
    answer = await asked(gateway, stream)
    assert answer.status == 400 and "x-evil" not in answer.headers


PART = b'{"msg":"a","loc":[1]},'
LARGE: dict[str, bytes] = {
    "choices": b'{"id":"g","choices":[' + b"{}," * 1_000_000 + b"{}]}",
    "fields": b'{"choices":[],' + b",".join(b'"k%d":1' % n for n in range(400_000)) + b"}",
    "error": b'{"error":{"message":[' + PART * 150_000 + b"{}]}}",
    "lists": b'{"choices":[{"delta":{"content":[' + b"[]," * 1_000_000 + b"[]]}}]}",
}


@STREAMS
@pytest.mark.parametrize("name", LARGE)
async def test_large_json_does_not_stop_everybody(
    gateway: Gateway, name: str, stream: bool
) -> None:
    """3 MB of JSON take seconds where each part costs a little; 32 MB of an event are allowed."""
    data = b"data: " + LARGE[name] + b"\n\n" if stream else LARGE[name]
    head = SSE_HEAD if stream else b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    gateway.up.script(MINI, ScriptStep(raw=[head + data, "fin"]))
    loop = asyncio.get_running_loop()
    asking = asyncio.create_task(asked(gateway, stream))
    longest = 0.0
    while not asking.done():
        began = loop.time()
        await asyncio.sleep(0.002)
        longest = max(longest, loop.time() - began)
    assert (await asking).headers["x-sophia-model"] == NEMO
    assert longest < 0.4, f"blocked for {longest:.2f} s"


@STREAMS
async def test_a_limit_under_a_name_that_means_nothing_ends_the_renaming(
    start: Start, stream: bool
) -> None:
    """A server that refuses `max_tokens` and ignores the other name may not write without end."""
    words = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens'."
    refusal, long = ScriptStep(status=400, message=words), "word " * 20_000
    async with own(start) as gateway:
        gateway.up.script(MINI, refusal)
        first, rest = events(delta(content="One "))[:-14], events(delta(content=long))
        raw = [SSE_HEAD + first, ("sleep", 0.05), rest, "fin"]
        step = ScriptStep(raw=raw) if stream else whole({"content": long})  # type: ignore[arg-type] # bytes and waits
        gateway.up.script(MINI, step)
        answer = await gateway.client.chat(OWN, stream=stream, max_tokens=500)
        assert not stream or (not answer.done and answer.text == "One ")
        (row,) = await gateway.settled(1)
        assert row.completion_tokens > 1000
        gateway.up.script(MINI, refusal)
        assert (await gateway.client.chat(OWN, stream=stream, max_tokens=500)).status == 400
        assert gateway.up.requests[-1].json()["max_tokens"] == 500


@pytest.mark.parametrize("status", [200, 400, 403, 404, 500])
@STREAMS
async def test_the_key_of_an_upstream_is_never_repeated(
    gateway: Gateway, stream: bool, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Some servers and proxies quote the header that they refuse, in an answer of any status."""
    message = f"no model with Authorization: Bearer {KEY}"
    error = {"message": message, "type": "forbidden_thing", "code": max(status, 400)}
    gateway.up.script(MINI, ScriptStep(status=status, body={"error": error}), times=None)
    answer = await gateway.client.chat(stream=stream)
    assert answer.status >= 400 and b"Bearer ***" in answer.body
    assert KEY.encode() not in answer.body and KEY not in caplog.text


async def test_the_key_of_an_upstream_is_not_repeated_in_mid_stream(gateway: Gateway) -> None:
    error = {"error": {"message": f"Bearer {KEY} has expired", "code": 502}}
    first, rest = events(delta(content="One"))[:-14], events(error)
    gateway.up.script(MINI, ScriptStep(raw=[SSE_HEAD + first, ("sleep", 0.05), rest, "fin"]))
    answer = await gateway.client.chat(stream=True)
    assert "Bearer *** has expired" in answer.chunks[-1]["error"]["message"]
