"""Requests and settings that people met with gateways: each works, or is refused with its reason."""

import asyncio
import json
from typing import Any

import pytest
from odd_upstreams import OWN, own, whole

from gateway import FLASH, MINI, NEMO, Gateway, Start, chat
from sophia.adapters.upstreams.dialects import find_refused_fields
from sophia.catalogue.snapshot import parse_models
from sophia.config import RoutingSettings, ServerSettings, UpstreamModelSettings, UpstreamSettings
from sophia.sandbox import ScriptStep


@pytest.mark.parametrize("place", ["end", "middle"])
async def test_half_an_emoji_in_a_request_is_named(gateway: Gateway, place: str) -> None:
    """Row 13."""
    text = "half \\ud83d" if place == "end" else "half \\ud83d of it"
    body = json.dumps(chat(text="@")).replace("@", text).encode()
    answer = await gateway.client.post("/v1/chat/completions", body)
    assert answer.status == 400 and "\\ud83d at byte" in answer.error["message"]


async def test_an_upstream_that_refuses_max_tokens_gets_the_other_name(start: Start) -> None:
    """Row 14: the limit is Sophia's own, and the refusal is remembered."""
    words = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens'."
    async with own(start) as gateway:
        key = await gateway.new_key(each=0.01)
        gateway.up.script(MINI, ScriptStep(status=400, message=words))
        for tries in (2, 1):
            before = len(gateway.up.requests)
            assert (await gateway.client.chat(OWN, key=key)).status == 200
            sent = [request.json() for request in list(gateway.up.requests)[before:]]
            assert len(sent) == tries and "max_tokens" not in sent[-1]
            assert sent[-1]["max_completion_tokens"] > 0
        answer = await gateway.client.chat(
            OWN, key=key, max_completion_tokens=50_000, max_tokens=None
        )
        assert answer.status == 200
        assert not gateway.up.requests[-1].json().get("max_tokens")


async def test_own_models_may_take_pictures_by_a_setting(start: Start) -> None:
    """Row 15."""
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    messages = [{"role": "user", "content": parts}]
    async with own(start) as gateway:
        answer = await gateway.client.chat(OWN, messages=messages)
        assert answer.status == 400 and "image" in answer.error["message"]
    async with own(start, modalities=("text", "image")) as gateway:
        assert (await gateway.client.chat(OWN, messages=messages)).status == 200
        assert gateway.up.requests[-1].json()["messages"] == messages


async def test_an_upstream_that_refuses_stream_options_is_not_asked_again(start: Start) -> None:
    """Row 26."""
    problem = {"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}
    async with own(start) as gateway:
        gateway.up.script(MINI, ScriptStep(status=422, body={"detail": [problem]}))
        for tries in (2, 1):
            before = len(gateway.up.requests)
            answer = await gateway.client.chat(OWN, stream=True)
            assert answer.done and len(gateway.up.requests) == before + tries
            assert "stream_options" not in gateway.up.requests[-1].json()
    async with own(start, stream_options="never") as gateway:
        assert (await gateway.client.chat(OWN, stream=True)).done
        assert "stream_options" not in gateway.up.requests[-1].json()


async def test_fields_of_openrouter_and_those_to_drop_are_not_sent(start: Start) -> None:
    """Row 27: an effort of reasoning has a name in OpenAI's API too."""
    more = {
        "reasoning": {"effort": "low"},
        "include_reasoning": True,
        "preset": "x",
        "logit_bias": {},
        "x_own": 1,
    }
    async with own(start, drop=("logit_bias",)) as gateway:
        assert (await gateway.client.chat(OWN, **more)).status == 200
        sent = gateway.up.requests[-1].json()
        assert not {"reasoning", "include_reasoning", "preset", "logit_bias"} & sent.keys()
        assert (sent["reasoning_effort"], sent["x_own"]) == ("low", 1)


@pytest.mark.parametrize("content", ["", "\n", []])
async def test_an_empty_user_message_is_the_upstreams_to_judge(
    gateway: Gateway, content: object
) -> None:
    """Row 28."""
    messages = [{"role": "user", "content": content}, {"role": "user", "content": "Hello"}]
    answer = await gateway.client.post(
        "/v1/chat/completions", {"model": MINI, "messages": messages}
    )
    assert answer.status == 200
    assert gateway.up.requests[-1].json()["messages"] == messages


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": [15496, 995]},
        {"prompt": [[1, 2], [3]]},
        {"prompt": "x", "max_tokens": 0, "echo": True},
    ],
)
async def test_legacy_prompts_in_tokens_are_forwarded(
    gateway: Gateway, body: dict[str, Any]
) -> None:
    """Row 21."""
    gateway.up.script(MINI, ScriptStep(body={"choices": [{"text": "y", "finish_reason": "stop"}]}))
    answer = await gateway.client.post("/v1/completions", {"model": MINI, **body})
    sent = gateway.up.requests[-1].json()
    assert sent["prompt"] == body["prompt"] and answer.status in (200, 400)
    assert answer.status == 200 or "refused the request" in answer.error["message"]


async def test_a_key_may_come_in_both_headers(gateway: Gateway) -> None:
    """Row 20; two valid keys of different owners are still two."""
    key = gateway.client.key
    for headers in (
        {"Authorization": f"Bearer {key}", "x-api-key": key},
        {"Authorization": "Basic dTpw", "x-api-key": key},
        {"Authorization": "Bearer ", "x-api-key": key},
        {"Authorization": f"Bearer {key}", "x-api-key": "sk-or-another"},
    ):
        assert (await gateway.client.get("/v1/key", headers)).status == 200
    other = await gateway.new_key()
    both = {"Authorization": f"Bearer {key}", "x-api-key": other}
    await gateway.client.get("/v1/key", key=other)
    assert (await gateway.client.get("/v1/key", both)).status == 400


async def test_a_new_key_works_at_once_whoever_sends_wrong_ones(gateway: Gateway) -> None:
    """Row 22."""
    for _ in range(4):
        unknown = (await gateway.new_key())[:-1] + "0"
        await gateway.client.get("/v1/key", key=unknown)
        assert (await gateway.client.get("/v1/key", key=await gateway.new_key())).status == 200


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_a_compressed_body_is_named(gateway: Gateway, coding: str) -> None:
    """Row 23."""
    headers = {"Authorization": f"Bearer {gateway.client.key}", "Content-Encoding": coding}
    answer = await gateway.client.post("/v1/chat/completions", b"\x1f\x8b\x08\x00", headers)
    assert answer.status == 415 and coding in answer.error["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/models", "GET, HEAD"),
        ("OPTIONS", "/v1/chat/completions", "POST"),
    ],
)
async def test_a_wrong_method_is_answered_with_the_right_ones(
    gateway: Gateway, method: str, path: str, allowed: str
) -> None:
    """Row 10."""
    answer = await gateway.client.send(method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (("https://app.example",), "https://app.example", True),
        (("*",), "https://any.example", True),
        (("https://app.example",), "https://evil.example", False),
        ((), "https://app.example", False),
    ],
)
async def test_pages_of_the_allowed_origins_may_call(
    start: Start, origins: tuple[str, ...], origin: str, allowed: bool
) -> None:
    """Row 9."""
    async with start(server=ServerSettings(cors_origins=origins)) as gateway:
        ask = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = await gateway.client.send("OPTIONS", "/v1/chat/completions", b"", ask)
        assert answer.status == (204 if allowed else 405)
        key = {"Origin": origin, "Authorization": f"Bearer {gateway.client.key}"}
        for request in (chat(), chat(stream=True), {"model": MINI}):
            answer = await gateway.client.post("/v1/chat/completions", request, key)
            told = answer.headers.get("access-control-allow-origin")
            assert told == (origin if allowed else None)


@pytest.mark.parametrize("ending", ["\n", "\r\n", " "])
async def test_a_secret_that_ends_in_a_newline_is_used_without_it(
    start: Start, ending: str
) -> None:
    """Row 29."""
    model = UpstreamModelSettings(id=OWN, served_as=MINI)
    async with start() as plain:
        url = plain.up.base_url
    place = UpstreamSettings(name="own", base_url=url, api_key=f"k{ending}", models=(model,))
    async with start(upstreams=(place,)) as gateway:
        assert (await gateway.client.chat(OWN)).status == 200
        assert gateway.up.requests[-1].headers["authorization"] == "Bearer k"


async def test_a_full_upstream_is_told_as_overload(start: Start) -> None:
    """D24."""
    async with own(start, max_connections=1) as gateway:
        gateway.up.script(MINI, ScriptStep(no_answer="hang"))
        async with gateway.client.connection(gateway.client.request(chat(OWN))):
            async with asyncio.timeout(3):
                while not gateway.up.requests:
                    await asyncio.sleep(0.01)
            answer = await gateway.client.chat(OWN)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")


async def test_an_id_with_a_line_break_is_not_listed() -> None:
    """D17: it would become a header of answers."""
    rows = [
        {"id": id, "pricing": {"prompt": "0", "completion": "0"}} for id in ("a/b", "a\r\nx: y")
    ]
    models = parse_models(json.dumps({"data": rows}).encode())
    assert [model.id for model in models] == ["a/b"]


@pytest.mark.parametrize("price", ['"nan"', '"inf"', "1e999", "-1", "9" * 5000, "true", '"much"'])
async def test_no_price_of_a_caller_lifts_the_ceiling(gateway: Gateway, price: str) -> None:
    """D5 and D6: the ceiling that the reservation counts on is sent, whatever the caller's is."""
    body = json.dumps(chat(provider={"max_price": {"prompt": "@"}})).replace('"@"', price)
    answer = await gateway.client.post("/v1/chat/completions", body.encode())
    _, held = await gateway.standing()
    assert held == 0.0 and answer.status in (200, 400)
    if answer.status == 200:
        sent = gateway.up.requests[-1].json()["provider"]["max_price"]
        assert 0 < sent["prompt"] < 1 and sent["completion"] > 0
    else:
        assert not gateway.up.requests


async def test_a_refused_field_is_learned_where_no_repetition_is_left(start: Start) -> None:
    model = UpstreamModelSettings(id=OWN, served_as=MINI)
    async with start() as plain:
        url = plain.up.base_url
    place = UpstreamSettings(name="own", base_url=url, api_key="k", models=(model,))
    async with start(upstreams=(place,), routing=RoutingSettings(max_attempts=1)) as gateway:
        message = "Unrecognized request argument: stream_options"
        gateway.up.script(MINI, ScriptStep(status=400, message=message))
        assert (await gateway.client.chat(OWN, stream=True)).status == 400
        assert (await gateway.client.chat(OWN, stream=True)).done
        assert "stream_options" not in gateway.up.requests[-1].json()


async def test_a_limit_whose_value_is_refused_keeps_its_name(start: Start) -> None:
    """It would be dropped in vain, and with it the limit."""
    message = "max_tokens=500 is not allowed: this server generates at most 400 tokens"
    async with own(start) as gateway:
        gateway.up.script(MINI, ScriptStep(status=400, message=message))
        answer = await gateway.client.chat(OWN, max_tokens=500)
        assert answer.status == 400 and len(gateway.up.requests) == 1


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.", {"max_tokens"}),
        ("unknown field `max_tokens`, expected `max_completion_tokens`", {"max_tokens"}),
        (
            "Unrecognized request arguments supplied: max_tokens, stream_options",
            {"max_tokens", "stream_options"},
        ),
        (
            "body.stream_options: Extra inputs are not permitted; "
            "body.max_tokens: Extra inputs are not permitted",
            {"max_tokens", "stream_options"},
        ),
        ("max_tokens is not supported by gpt-5", {"max_tokens"}),
        ("Invalid parameter: max_tokens. It must be at most 400.", set()),
        ("Unsupported value: 'max_tokens' does not support 500 with this model.", set()),
        ("max_tokens: 500 > 400, which is not allowed", set()),
        ("unknown field `x_max_tokens`", set()),
        ("max_tokens is missing", set()),
    ],
)
def test_a_refused_field_is_told_from_a_refused_value(message: str, fields: set[str]) -> None:
    assert find_refused_fields(message) == fields


async def test_refusals_of_fields_count_among_the_calls_of_a_request(start: Start) -> None:
    """At most three in all; what helped is remembered for the model."""
    refused = [
        "Unrecognized request argument: stream_options",
        "Unsupported parameter: 'max_tokens' is not supported; use 'max_completion_tokens'",
        "Unsupported parameter: 'max_completion_tokens' is not supported",
    ]
    names = {"own/a": MINI, "own/b": NEMO, "own/c": FLASH}
    models = tuple(
        UpstreamModelSettings(
            id=id, served_as=name, prompt_usd_per_mtok=1.0, completion_usd_per_mtok=1.0
        )
        for id, name in names.items()
    )
    async with start() as plain:
        url = plain.up.base_url
    place = UpstreamSettings(name="own", base_url=url, api_key="k", models=models)
    async with start(upstreams=(place,)) as gateway:
        for name in names.values():
            steps = [ScriptStep(status=400, message=message) for message in refused]
            gateway.up.script(name, *steps)
        await gateway.client.chat("own/a", models=[*names], stream=True, max_tokens=100)
        assert len(gateway.up.requests) == 3
        gateway.up.script(NEMO, ScriptStep(status=503))
        await gateway.client.chat("own/a", stream=True, max_tokens=100)
        sent = gateway.up.requests[3].json()
        assert "stream_options" not in sent and sent["max_completion_tokens"] == 100


@pytest.mark.parametrize("name", ["functions", "documents"])
async def test_a_prompt_outside_of_the_messages_is_charged_without_usage(
    start: Start, name: str
) -> None:
    async with own(start) as gateway:
        gateway.up.script(MINI, whole({"content": "ok"}))
        more = {name: [{"name": "f", "description": "one two three " * 2000}]}
        assert (await gateway.client.chat(OWN, **more)).status == 200
        (row,) = await gateway.settled(1)
        assert row.prompt_tokens > 3000
