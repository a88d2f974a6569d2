"""Chat completions, whole and streamed: every field that a client depends on."""

import base64
import json
from typing import Any

import msgspec
import pytest

from gateway import CODER, FLASH, MINI, NEMO, Answer, Gateway, chat
from shapes import check_stream, check_whole
from sophia.sandbox import ScriptStep

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG not really").decode()


def check(answer: Answer) -> None:
    assert answer.status == 200 and answer.complete
    if answer.headers["content-type"] == "application/json":
        check_whole(answer.json)
    else:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.done
        check_stream(answer.chunks)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/chat/completions"])
async def test_an_answer_has_the_shape_that_every_client_reads(
    sophia: Gateway, path: str, stream: bool
) -> None:
    answer = await sophia.client.post(path, chat(stream=stream))
    check(answer)
    assert "sandbox" in answer.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "drop",
    [
        ("system_fingerprint",),
        ("provider",),
        ("created",),
        ("id",),
        ("model",),
        ("object",),
        ("choices.index",),
        ("choices.native_finish_reason",),
        ("choices.logprobs",),
        ("id", "created", "object", "model", "provider", "choices.index"),
    ],
)
async def test_fields_that_an_upstream_leaves_out_are_filled_in(
    sophia: Gateway, drop: tuple[str, ...], stream: bool
) -> None:
    """An upstream's body never passes raw: a missing field is an exception in some client."""
    sophia.up.script(MINI, ScriptStep(drop=drop))
    check(await sophia.client.chat(stream=stream))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"),
        ("eos", "stop"),
        ("max_tokens", "length"),
        ("tool_use", "tool_calls"),
        ("safety", "content_filter"),
        ("MODEL_LENGTH", "length"),
        ("MAX_TOKENS", "length"),
        ("LENGTH", "length"),
        ("SAFETY", "content_filter"),
        ("STOP", "stop"),
        ("function_call", "tool_calls"),
    ],
)
async def test_finish_reasons_are_words_that_clients_know(
    sophia: Gateway, reason: str, expected: str, stream: bool
) -> None:
    sophia.up.script(MINI, ScriptStep(finish_reason=reason))
    answer = await sophia.client.chat(stream=stream)
    check(answer)
    bodies = answer.chunks if stream else [answer.json]
    reasons = [c["finish_reason"] for body in bodies for c in body["choices"] if c["finish_reason"]]
    assert reasons == [expected]


@pytest.mark.parametrize("stream", [False, True])
async def test_odd_values_of_an_upstream_do_not_reach_the_client(
    sophia: Gateway, stream: bool
) -> None:
    sophia.up.script(MINI, ScriptStep(extra={"created": 1.5e9, "system_fingerprint": None}))
    answer = await sophia.client.chat(stream=stream)
    check(answer)


@pytest.mark.parametrize(
    "step",
    [
        ScriptStep(usage_choice=True),
        ScriptStep(double_finish=True),
        ScriptStep(no_done=True),
        ScriptStep(dribble=7),
        ScriptStep(usage_choice=True, double_finish=True, no_done=True),
    ],
)
async def test_a_stream_in_any_dialect_ends_once(sophia: Gateway, step: ScriptStep) -> None:
    sophia.up.script(MINI, step)
    check(await sophia.client.chat(stream=True))


async def test_a_whole_and_a_streamed_answer_say_and_cost_the_same(sophia: Gateway) -> None:
    whole, streamed = await sophia.client.chat(), await sophia.client.chat(stream=True)
    assert whole.text == streamed.text
    assert whole.json["usage"] == streamed.chunks[-1]["usage"]


async def test_keep_alive_newlines_before_a_whole_answer_are_dropped(sophia: Gateway) -> None:
    sophia.up.script(MINI, ScriptStep(leading=b"\n  \n\n\n"))
    check(await sophia.client.chat())


@pytest.mark.parametrize("stream", [False, True])
async def test_unknown_fields_reach_the_upstream_byte_for_byte(
    sophia: Gateway, stream: bool
) -> None:
    """Numbers keep their digits, strings their escapes, objects their order and spaces."""
    odd = {
        b"seed": b"12345678901234567890123",
        b"temperature": b"0.30000000000000004",
        b"logit_bias": b'{ "50256" : -1.0e+2,"1":0 }',
        b"future_field": b'[1,  {"z": "\\u00e9\\/", "a":null }]',
        b"user": b'"\\uD83D\\uDE00 caf\xc3\xa9"',
        b"stop": b'["\\n\\n"]',
        b"plugins": b'[{"id":"web"}]',
    }
    more = b",".join(b'"%b":%b' % item for item in odd.items())
    flag = b"true" if stream else b"false"
    body = b'{"model":"%b","stream":%b,%b,"messages":[{"role":"user","content":"a\\u0062c"}]}' % (
        MINI.encode(),
        flag,
        more,
    )
    assert (await sophia.client.post("/v1/chat/completions", body)).status == 200
    sent = msgspec.json.decode(sophia.up.requests[-1].body, type=dict[str, msgspec.Raw])
    for name, value in odd.items():
        assert bytes(sent[name.decode()]) == value
    assert bytes(sent["messages"]) == b'[{"role":"user","content":"a\\u0062c"}]'


async def test_sophias_own_fields_stay_here(sophia: Gateway) -> None:
    hints = {"task_type": "coding", "session_id": "s1"}
    await sophia.client.chat(sophia=hints, models=[MINI, NEMO], route="fallback")
    sent = sophia.up.requests[-1].json()
    assert not {"sophia", "models", "route"} & set(sent)
    assert sent["model"] == MINI


async def test_attribution_and_the_upstreams_own_key_are_sent(sophia: Gateway) -> None:
    await sophia.client.chat()
    headers = sophia.up.requests[-1].headers
    assert headers["authorization"] == "Bearer sk-or-test"
    assert headers["http-referer"] and headers["x-openrouter-title"]
    assert sophia.client.key not in str(headers)


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_pass_and_calls_come_back(sophia: Gateway, stream: bool) -> None:
    answer = await sophia.client.chat(tools=[TOOL], tool_choice="required", stream=stream)
    check(answer)
    assert sophia.up.requests[-1].json()["tools"] == [TOOL]
    if stream:
        parts = [
            call
            for chunk in answer.chunks
            for choice in chunk["choices"]
            for call in choice["delta"].get("tool_calls") or ()
        ]
        assert parts[0]["id"] and parts[0]["function"]["name"] == "weather"
        arguments = "".join(part["function"]["arguments"] for part in parts)
    else:
        (call,) = answer.json["choices"][0]["message"]["tool_calls"]
        assert call["function"]["name"] == "weather"
        arguments = call["function"]["arguments"]
    assert "city" in json.loads(arguments)


async def test_a_tool_conversation_passes(sophia: Gateway) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    answer = await sophia.client.post(
        "/v1/chat/completions", {"model": MINI, "messages": messages, "tools": [TOOL]}
    )
    check(answer)
    assert sophia.up.requests[-1].json()["messages"] == messages


@pytest.mark.parametrize("stream", [False, True])
async def test_images_pass(sophia: Gateway, stream: bool) -> None:
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
    ]
    body = {"model": FLASH, "messages": [{"role": "user", "content": content}], "stream": stream}
    check(await sophia.client.post("/v1/chat/completions", body))
    assert sophia.up.requests[-1].json()["messages"] == body["messages"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_json_schema_passes(sophia: Gateway, stream: bool) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = await sophia.client.chat(response_format=form, stream=stream)
    check(answer)
    assert type(json.loads(answer.text)["n"]) is int


@pytest.mark.parametrize("stream", [False, True])
async def test_several_choices_pass(sophia: Gateway, stream: bool) -> None:
    answer = await sophia.client.chat(n=3, stream=stream)
    check(answer)
    bodies = answer.chunks if stream else [answer.json]
    assert {choice["index"] for body in bodies for choice in body["choices"]} == {0, 1, 2}


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_pass(sophia: Gateway, stream: bool) -> None:
    answer = await sophia.client.chat(logprobs=True, top_logprobs=2, stream=stream)
    check(answer)
    bodies = answer.chunks if stream else [answer.json]
    marks = [c["logprobs"] for body in bodies for c in body["choices"] if c["logprobs"]]
    assert marks and "token" in marks[0]["content"][0]


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_passes(sophia: Gateway, stream: bool) -> None:
    answer = await sophia.client.chat(FLASH, reasoning={"effort": "low"}, stream=stream)
    check(answer)
    if stream:
        deltas = [c["delta"] for chunk in answer.chunks for c in chunk["choices"]]
        assert any(delta.get("reasoning") for delta in deltas)
        assert any(delta.get("reasoning_details") for delta in deltas)
    else:
        message = answer.json["choices"][0]["message"]
        assert message["reasoning"] and message["reasoning_details"]


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_name_their_model_the_reason_and_the_cost(
    sophia: Gateway, stream: bool
) -> None:
    answer = await sophia.client.chat("sophia/auto", stream=stream)
    annotation = (answer.chunks[-1] if stream else answer.json)["sophia"]
    assert annotation["decision_id"] == answer.headers["x-sophia-decision-id"]
    assert annotation["model"] == answer.headers["x-sophia-model"]
    assert annotation["policy"] == answer.headers["x-sophia-policy"]
    assert annotation["reason"] and annotation["attempts"] == 1 and annotation["saved_usd"] >= 0
    assert answer.headers["x-sophia-attempts"] == "1"
    assert answer.headers["x-request-id"].removeprefix("req-") == annotation["decision_id"][4:]
    (row,) = sophia.up.bill.rows
    assert round(annotation["cost_usd"] * 1e9) == row.cost
    if not stream:
        assert float(answer.headers["x-sophia-cost-usd"]) == annotation["cost_usd"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("by", ["body", "header"])
async def test_sophias_account_can_be_left_out(sophia: Gateway, by: str, stream: bool) -> None:
    body = chat(stream=stream, **({"sophia": {"annotate": False}} if by == "body" else {}))
    headers = {"Authorization": f"Bearer {sophia.client.key}"}
    if by == "header":
        headers["x-sophia-annotate"] = "false"
    answer = await sophia.client.post("/v1/chat/completions", body, headers)
    check(answer)
    assert b'"sophia"' not in answer.body
    assert answer.headers["x-sophia-decision-id"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [(None, True), ({"include_usage": True}, True), ({}, True), ({"include_usage": False}, False)],
)
async def test_the_usage_chunk_comes_unless_it_is_refused(
    sophia: Gateway, options: dict[str, bool] | None, expected: bool
) -> None:
    more = {} if options is None else {"stream_options": options}
    answer = await sophia.client.chat(stream=True, **more)
    assert answer.done
    check_stream(answer.chunks, usage=expected)
    assert any("usage" in chunk for chunk in answer.chunks) is expected
    # Whoever did not ask for a chunk without choices reads the first choice of every chunk.
    asked = bool(options and options.get("include_usage"))
    assert all(chunk["choices"] for chunk in answer.chunks) is not asked


async def test_a_connection_serves_one_request_after_another(sophia: Gateway) -> None:
    request = sophia.client.request(chat(stream=True))
    async with sophia.client.connection(request) as reader:
        first = await reader.readuntil(b"0\r\n\r\n")
        assert b"[DONE]" in first
    body = sophia.client.request(chat())
    async with sophia.client.connection(body + body + body) as reader:
        seen = b""
        while seen.count(b"HTTP/1.1 200") < 3 or not seen.endswith(b"}"):
            some = await reader.read(65536)
            assert some
            seen += some
    assert len(sophia.up.requests) == 4


@pytest.mark.parametrize("split", [1, 30, 120, 200])
async def test_a_request_may_come_in_pieces(sophia: Gateway, split: int) -> None:
    request = sophia.client.request(chat())
    host, port = "127.0.0.1", sophia.client.port
    import asyncio

    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request[:split])
    await asyncio.sleep(0.01)
    writer.write(request[split:])
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


async def test_expect_continue_and_head_and_chunked_bodies_are_understood(sophia: Gateway) -> None:
    body = json.dumps(chat()).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer {sophia.client.key}\r\n"
    chunked = head.encode() + b"Transfer-Encoding: chunked\r\n\r\n"
    for start in range(0, len(body), 20):
        part = body[start : start + 20]
        chunked += b"%x\r\n%b\r\n" % (len(part), part)
    check(await sophia.client.raw(chunked + b"0\r\n\r\n"))
    expecting = head.encode() + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with sophia.client.connection(expecting + body) as reader:
        seen = b""
        while b"HTTP/1.1 200" not in seen:
            some = await reader.read(65536)
            assert some
            seen += some


async def test_a_variant_is_sent_as_it_was_asked(sophia: Gateway) -> None:
    await sophia.client.chat(f"{CODER}:nitro")
    assert sophia.up.requests[-1].json()["model"] == f"{CODER}:nitro"
