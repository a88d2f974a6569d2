"""The sandbox answers as OpenRouter does: every field that some client insists on is there."""

import base64
import json
import math
import ssl
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trustme
from sandbox_client import MODELS, PLAIN, SMALL, THINKER, Client, chat

from sophia.sandbox import ScriptedUpstream, ScriptStep
from sophia.sandbox.text.template import NOTICE, build_template_text

FINISH_REASONS = {"stop", "length", "tool_calls", "content_filter", "error"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 3},
                "unit": {"enum": ["celsius", "fahrenheit"]},
                "note": {"type": "string"},
            },
            "required": ["city", "days", "unit"],
        },
    },
}


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with ScriptedUpstream(models=MODELS) as up:
        yield Client(up)


def check_usage(usage: dict[str, Any]) -> None:
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert type(usage[name]) is int
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert type(usage["cost"]) is float
    assert type(usage["completion_tokens_details"]["reasoning_tokens"]) is int


def check_whole(body: dict[str, Any]) -> None:
    assert body["id"].startswith("gen-")
    assert body["object"] == "chat.completion"
    assert type(body["created"]) is int
    assert body["provider"] == "Sandbox"
    assert "system_fingerprint" in body
    for index, choice in enumerate(body["choices"]):
        assert choice["index"] == index
        assert choice["finish_reason"] in FINISH_REASONS
        assert choice["native_finish_reason"]
        assert "logprobs" in choice
        assert choice["message"]["role"] == "assistant"
        assert "content" in choice["message"]
    check_usage(body["usage"])


def check_stream(chunks: list[Any], choices: int = 1) -> None:
    assert (
        len({(c["id"], c["provider"], c["model"], c["created"], c["object"]) for c in chunks}) == 1
    )
    assert chunks[0]["object"] == "chat.completion.chunk"
    assert all("system_fingerprint" not in chunk for chunk in chunks)
    opened = chunks[0]["choices"][0]["delta"]
    assert opened == {"role": "assistant", "content": ""}
    finishes = []
    for chunk in chunks[:-1]:
        assert len(chunk["choices"]) == 1
        assert "usage" not in chunk
        choice = chunk["choices"][0]
        assert {"index", "delta", "finish_reason", "native_finish_reason"} <= set(choice)
        if choice["finish_reason"] is not None:
            finishes.append(choice["finish_reason"])
    assert len(finishes) == choices
    assert set(finishes) <= FINISH_REASONS
    assert chunks[-1]["choices"] == []
    check_usage(chunks[-1]["usage"])


async def test_a_whole_answer_has_every_field(client: Client) -> None:
    answer = await client.post(chat())
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    check_whole(answer.json)
    assert answer.headers["x-generation-id"] == answer.json["id"]
    text = answer.json["choices"][0]["message"]["content"]
    assert text.startswith(NOTICE)
    assert "Why is the sky blue" in text


async def test_a_stream_says_the_same_as_the_whole_answer(client: Client) -> None:
    whole = await client.post(chat())
    stream = await client.post(chat(stream=True))
    assert stream.headers["content-type"] == "text/event-stream"
    assert stream.lines[0] == ": OPENROUTER PROCESSING"
    assert stream.data[-1] == "[DONE]"
    check_stream(stream.chunks)
    assert stream.text == whole.json["choices"][0]["message"]["content"]
    assert stream.chunks[-1]["usage"] == whole.json["usage"]


def test_the_template_is_deterministic_and_depends_on_model_and_prompt() -> None:
    assert build_template_text("a/b", "Sort a list") == build_template_text("a/b", "Sort a list")
    texts = {
        build_template_text(m, p) for m in ("a/b", "a/c") for p in ("Sort a list", "Bake bread")
    }
    assert len(texts) == 4


async def test_usage_cost_is_exact_and_equals_the_bill(client: Client) -> None:
    for model_id in (PLAIN, THINKER, SMALL):
        usage = (await client.post(chat(model_id, "Hi", max_tokens=20))).json["usage"]
        row = client.up.bill.rows[-1]
        assert (row.prompt_tokens, row.completion_tokens) == (usage["prompt_tokens"], 20)
        assert round(usage["cost"] * 1e9) == row.cost
    assert client.up.bill.rows[0].cost == usage["prompt_tokens"] * 150 + 20 * 600
    assert client.up.bill.total == sum(row.cost for row in client.up.bill.rows)


async def test_a_token_limit_ends_with_length(client: Client) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        answer = await client.post(chat(**{name: 7}))
        assert answer.json["choices"][0]["finish_reason"] == "length"
        assert answer.json["usage"]["completion_tokens"] == 7


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"tool_choice": "required"}, "Hello"),
        ({"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}, "Hello"),
        ({}, "Please use get_weather for Oslo"),
        ({}, "What will the weather be like in Oslo?"),
    ],
)
async def test_a_tool_call_fits_its_schema(client: Client, how: dict[str, Any], text: str) -> None:
    body = chat(text=text, tools=[WEATHER], **how)
    whole = await client.post(body)
    check_whole(whole.json)
    choice = whole.json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["function"]["name"] == "get_weather"
    arguments = json.loads(call["function"]["arguments"])
    assert arguments["days"] == 3
    assert arguments["unit"] == "celsius"
    assert set(arguments) == {"city", "days", "unit"}
    assert arguments["city"] == "Oslo" or "Oslo" not in text

    stream = await client.post({**body, "stream": True})
    check_stream(stream.chunks)
    deltas = [c["choices"][0]["delta"] for c in stream.chunks if c["choices"]]
    fragments = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert fragments[0]["id"] == call["id"]
    assert fragments[0]["function"]["name"] == "get_weather"
    assert all(fragment["index"] == 0 for fragment in fragments)
    assert all("id" not in later and "name" not in later["function"] for later in fragments[1:])
    pieces = "".join(fragment["function"]["arguments"] for fragment in fragments)
    assert json.loads(pieces) == arguments


async def test_an_unrequested_tool_is_not_called(client: Client) -> None:
    for how in ({}, {"tool_choice": "none"}):
        answer = await client.post(chat(tools=[WEATHER], **how))
        assert "tool_calls" not in answer.json["choices"][0]["message"]


async def test_structured_output_fits_its_schema(client: Client) -> None:
    schema = {
        "$defs": {
            "step": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        },
        "type": "object",
        "properties": {
            "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 2},
            "when": {"type": ["string", "null"], "format": "date"},
            "share": {"type": "number", "minimum": 0, "maximum": 1},
        },
        "required": ["steps", "when", "share"],
    }
    plan = {"type": "json_schema", "json_schema": {"name": "plan", "schema": schema}}
    answer = await client.post(chat(response_format=plan))
    value = json.loads(answer.json["choices"][0]["message"]["content"])
    assert value == {"steps": [{"n": 1}, {"n": 1}], "when": "2026-01-31", "share": 0.5}
    plain = await client.post(chat(response_format={"type": "json_object"}, stream=True))
    assert isinstance(json.loads(plain.text), dict)


SCORE = 'Reply with one JSON object: {"flaws": "at most 20 words", "score": N}.'
DESCRIBED = f"Reply in JSON. {json.dumps({'properties': {'title': {'type': 'string'}}})}"


@pytest.mark.parametrize(
    ("instruction", "how", "fields"),
    [
        (SCORE, {}, {"flaws": str, "score": int}),
        (SCORE, {"response_format": {"type": "json_object"}}, {"flaws": str, "score": int}),
        (DESCRIBED, {"response_format": {"type": "json_object"}}, {"title": str}),
    ],
)
async def test_json_has_the_fields_that_the_prompt_describes(
    client: Client, instruction: str, how: dict[str, Any], fields: dict[str, type]
) -> None:
    """A judge's prompt and clients without structured output describe the object in words."""
    turns = [("system", instruction), ("user", "Judge this.")]
    messages = [{"role": role, "content": text} for role, text in turns]
    answer = await client.post({**chat(), "messages": messages, **how})
    value = json.loads(answer.json["choices"][0]["message"]["content"])
    assert {name: type(one) for name, one in value.items()} == fields
    assert 5 <= value.get("score", 5) <= 9


async def test_reasoning_comes_first_and_is_counted(client: Client) -> None:
    body = chat(THINKER, reasoning={"effort": "low"})
    whole = await client.post(body)
    message = whole.json["choices"][0]["message"]
    (detail,) = message["reasoning_details"]
    assert detail == {
        "type": "reasoning.text",
        "text": message["reasoning"],
        "format": "unknown",
        "index": 0,
    }
    assert whole.json["usage"]["completion_tokens_details"]["reasoning_tokens"] == 16
    stream = await client.post({**body, "stream": True})
    deltas = [c["choices"][0]["delta"] for c in stream.chunks if c["choices"]][1:]
    thinking = [bool(delta.get("reasoning")) for delta in deltas]
    assert thinking[0]
    assert thinking == sorted(thinking, reverse=True)
    assert "".join(delta.get("reasoning", "") for delta in deltas) == message["reasoning"]


async def test_reasoning_can_be_hidden_or_off(client: Client) -> None:
    hidden = await client.post(chat(THINKER, reasoning={"max_tokens": 9, "exclude": True}))
    assert "reasoning" not in hidden.json["choices"][0]["message"]
    assert hidden.json["usage"]["completion_tokens_details"]["reasoning_tokens"] == 9
    for body in (chat(THINKER, reasoning_effort="none"), chat(PLAIN, reasoning_effort="high")):
        answer = await client.post(body)
        assert answer.json["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0


async def test_n_choices_differ_and_are_numbered(client: Client) -> None:
    whole = await client.post(chat(n=3))
    check_whole(whole.json)
    assert len({c["message"]["content"] for c in whole.json["choices"]}) == 3
    stream = await client.post(chat(n=3, stream=True))
    check_stream(stream.chunks, choices=3)


async def test_logprobs_cover_the_text(client: Client) -> None:
    whole = await client.post(chat(logprobs=True, top_logprobs=2, max_tokens=9))
    choice = whole.json["choices"][0]
    tokens = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == choice["message"]["content"]
    assert all(len(token["top_logprobs"]) == 2 and token["logprob"] <= 0 for token in tokens)
    stream = await client.post(chat(logprobs=True, max_tokens=9, stream=True))
    marked = [c for chunk in stream.chunks for c in chunk["choices"] if c["logprobs"]]
    assert len(marked) == 9


async def test_text_completions_are_served(client: Client) -> None:
    body = {"model": PLAIN, "prompt": "Once upon a time", "max_tokens": 12}
    whole = await client.post(body, "/v1/completions")
    assert whole.json["object"] == "text_completion"
    stream = await client.post({**body, "stream": True}, "/v1/completions")
    texts = [choice["text"] for chunk in stream.chunks for choice in chunk["choices"]]
    assert "".join(texts) == whole.json["choices"][0]["text"]


async def test_embeddings_are_unit_vectors_and_near_for_shared_words(client: Client) -> None:
    body = {
        "model": "acme/embed-1",
        "input": ["a blue sky", "a blue sea", "tax law"],
        "dimensions": 64,
    }
    answer = await client.post(body, "/v1/embeddings")
    vectors = [row["embedding"] for row in answer.json["data"]]
    assert [row["index"] for row in answer.json["data"]] == [0, 1, 2]
    for vector in vectors:
        assert len(vector) == 64
        assert math.isclose(math.hypot(*vector), 1.0)
    assert _dot(vectors[0], vectors[1]) > _dot(vectors[0], vectors[2])
    coded = await client.post({**body, "encoding_format": "base64"}, "/v1/embeddings")
    first = struct.unpack("<64f", base64.b64decode(coded.json["data"][0]["embedding"]))
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(first, vectors[0], strict=True))
    assert client.up.bill.rows[-1].prompt_tokens == answer.json["usage"]["prompt_tokens"]


def _dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


async def test_models_are_listed_paged_and_found_by_id(client: Client) -> None:
    listed = await client.get("/api/v1/models")
    assert listed.json == {"data": MODELS, "total_count": 3, "links": {"next": None}}
    page = await client.get("/v1/models?offset=0&limit=2")
    assert page.json["data"] == MODELS[:2]
    assert page.json["links"]["next"] == "/api/v1/models?offset=2&limit=2"
    assert (await client.get(f"/api/v1/models/{PLAIN}")).json == {"data": MODELS[0]}
    endpoints = await client.get(f"/api/v1/models/{PLAIN}/endpoints")
    assert endpoints.json["data"]["endpoints"][0]["provider_name"] == "Sandbox"


async def test_a_generation_can_be_looked_up_and_the_key_knows_the_sum(client: Client) -> None:
    answer = await client.post(chat())
    generation = (await client.get(f"/api/v1/generation?id={answer.json['id']}")).json["data"]
    assert generation["total_cost"] == answer.json["usage"]["cost"]
    assert generation["native_tokens_completion"] == answer.json["usage"]["completion_tokens"]
    assert (await client.get("/api/v1/key")).json["data"]["usage"] == generation["total_cost"]
    assert (await client.get("/api/v1/generation?id=gen-no")).status == 404


@pytest.mark.parametrize(
    ("body", "status", "kind", "part"),
    [
        (chat("acme/none"), 400, "invalid_request", "acme/none is not a valid model ID"),
        (chat(SMALL, "word " * 400), 400, "context_length_exceeded", "maximum context length"),
        (chat(provider={"max_price": {"prompt": 0.1}}), 404, "not_found", "No endpoints found"),
        (chat(max_tokens=0), 400, "invalid_request", "max_tokens"),
        ({"model": PLAIN}, 400, "invalid_request", "messages"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, 400, "invalid_request", "No models"),
        ([], 400, "invalid_request", "JSON object"),
    ],
)
async def test_a_bad_request_gets_a_typed_error_and_costs_nothing(
    client: Client, body: Any, status: int, kind: str, part: str
) -> None:
    answer = await client.post(body)
    error = answer.json["error"]
    assert (answer.status, error["code"], error["metadata"]["error_type"]) == (status, status, kind)
    assert part in error["message"]
    assert not client.up.bill.rows


async def test_a_price_limit_at_the_price_is_accepted(client: Client) -> None:
    answer = await client.post(chat(provider={"max_price": {"prompt": 0.15, "completion": 0.6}}))
    assert answer.status == 200


@pytest.mark.parametrize("key", [None, ""])
async def test_a_key_is_needed(client: Client, key: str | None) -> None:
    answer = await client.post(chat(), key=key)
    error = answer.json["error"]
    assert (answer.status, error["code"]) == (401, 401)
    assert error["metadata"]["error_type"] == "authentication"


async def test_fallback_models_are_tried_in_order(client: Client) -> None:
    body = chat("acme/none", models=[SMALL, THINKER, PLAIN])
    client.up.script(SMALL, ScriptStep(status=503))
    answer = await client.post(body)
    assert answer.json["model"] == THINKER
    assert client.up.requests[-1].model == THINKER
    assert [row.model for row in client.up.bill.rows] == [THINKER]


async def test_the_last_fallback_lists_the_other_errors(client: Client) -> None:
    client.up.script("*", ScriptStep(status=503), times=2)
    answer = await client.post(chat(models=[THINKER]))
    assert answer.status == 503
    assert [e["code"] for e in answer.json["error"]["metadata"]["previous_errors"]] == [503]


async def test_requests_are_recorded(client: Client) -> None:
    await client.post(chat(text="Remember me"))
    request = client.up.requests[-1]
    assert (request.method, request.path, request.finished, request.aborted) == (
        "POST",
        "/api/v1/chat/completions",
        True,
        False,
    )
    assert request.headers["authorization"] == "Bearer any"
    assert request.json() == chat(text="Remember me")


async def test_it_speaks_tls() -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with ScriptedUpstream(models=MODELS, tls=server) as up:
        assert up.base_url.startswith("https://")
        answer = await Client(up, trusting).post(chat(stream=True))
        check_stream(answer.chunks)


async def test_the_shipped_snapshot_is_played_by_default() -> None:
    async with ScriptedUpstream() as up:
        listed = (await Client(up).get("/api/v1/models")).json
        assert listed["total_count"] == len(listed["data"]) > 100
        answer = await Client(up).post(chat(listed["data"][0]["id"]))
        check_whole(answer.json)


async def test_a_long_prompt_has_the_higher_price() -> None:
    higher = {"min_prompt_tokens": 100, "prompt": "0.000002"}
    pricing = {"prompt": "0.000001", "completion": "0.000005", "overrides": [higher]}
    async with ScriptedUpstream(models=[{**MODELS[0], "pricing": pricing}]) as up:
        for text, price in (("short", 1000), ("long " * 100, 2000)):
            usage = (await Client(up).post(chat(text=text, max_tokens=1))).json["usage"]
            assert up.bill.rows[-1].cost == usage["prompt_tokens"] * price + 5000
