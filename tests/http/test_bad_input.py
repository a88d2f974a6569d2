"""Bad input is answered in OpenAI's shape, says what to change, costs nothing and goes nowhere."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway import (
    CODER,
    MINI,
    NEMO,
    NO_TIMERS,
    Answer,
    Gateway,
    ServerKind,
    Start,
    chat,
    prepare,
    running,
)
from sophia.config import ServerSettings, Settings
from sophia.sandbox import ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
own_loop = pytest.mark.asyncio(loop_scope="function")

BIG = 1 << 22


@pytest.fixture(scope="module", params=["native", "asgi"])
def server(request: pytest.FixtureRequest) -> ServerKind:
    kind: ServerKind = request.param
    return kind


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sophia(
    tmp_path_factory: pytest.TempPathFactory, migrated: Path, server: ServerKind
) -> AsyncIterator[Gateway]:
    """One Sophia for all: a request that is refused leaves nothing behind, as each test checks."""
    folder = tmp_path_factory.mktemp(server)
    prepare(folder, migrated)
    settings = Settings(data_dir=str(folder), catalogue=NO_TIMERS)
    async with ScriptedUpstream() as up, running(folder, server, settings, up) as gateway:
        yield gateway


def but(**changes: Any) -> dict[str, Any]:
    return chat() | changes


def message(content: Any, role: str = "user") -> dict[str, Any]:
    return but(messages=[{"role": role, "content": content}])


async def refused(
    gateway: Gateway, answer: Answer, status: int, param: str | None, kind: str | None = None
) -> dict[str, Any]:
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    error = answer.error
    assert error["param"] == param
    assert kind is None or error["metadata"]["error_type"] == kind
    assert error["metadata"]["fault"] in ("caller", "policy")
    assert answer.headers["x-sophia-fault"] == error["metadata"]["fault"]
    assert answer.headers["x-request-id"] == error["metadata"]["request_id"]
    assert await gateway.untouched()
    return error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"hi"',
        b"42",
        b"{'model': 1}",
        b"\xff\xfe{}",
        b"{}}",
        b'{"messages":[{"role":"user","content":"a"}],}',
        b"[" * 5000,
        b'{"messages":[{"role":"user","content":"\xff"}]}',
        b'{"messages":[{"role":"user","content":"a"}],"unread":"\xff"}',
        b'{"messages":[{"role":"user","content":"a"}],"unread":["\xed\xa0\xbd"]}',
        b'{"messages":' + b"[" * 3000 + b"]" * 3000 + b"}",
    ],
    ids=lambda body: repr(body[:12]),
)
async def test_a_body_that_is_no_json_object(sophia: Gateway, body: bytes) -> None:
    answer = await sophia.client.post("/v1/chat/completions", body)
    assert answer.status == 400 and answer.error["type"] == "invalid_request_error"
    assert await sophia.untouched()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ({"model": MINI}, None),
        (but(messages=[]), "messages"),
        (but(messages=None), "messages"),
        (but(messages="hi"), "messages"),
        (but(messages=["hi"]), "messages[0]"),
        (but(messages=[{"content": "hi"}]), "messages[0]"),
        (message("hi", role="wizard"), "messages[0].role"),
        (message(7), "messages[0].content"),
        (message([{"type": 3}]), "messages[0].content[0].type"),
        (but(model=""), "model"),
        (but(model=7), "model"),
        (but(model="x" * 300), "model"),
        (but(models=[""]), "models[0]"),
        (but(models=[MINI] * 17), "models"),
        (but(max_tokens=0), "max_tokens"),
        (but(max_tokens=-5), "max_tokens"),
        (but(max_tokens=1.5), "max_tokens"),
        (but(max_tokens="many"), "max_tokens"),
        (but(max_tokens=10**30), "max_tokens"),
        (but(max_completion_tokens=0), "max_completion_tokens"),
        (but(temperature=3), "temperature"),
        (but(temperature="hot"), "temperature"),
        (but(top_p=1.5), "top_p"),
        (but(n=0), "n"),
        (but(n=129), "n"),
        (but(stream="yes"), "stream"),
        (but(stream_options=[]), "stream_options"),
        (but(tools={}), "tools"),
        (but(reasoning="deep"), "reasoning"),
        (but(response_format="json"), "response_format"),
        (but(logprobs=3), "logprobs"),
        (but(sophia=[]), "sophia"),
        (but(sophia={"complexity": 2}), "sophia.complexity"),
        (but(sophia={"task_type": "magic"}), "sophia.task_type"),
        (but(sophia={"taks_type": "coding"}), "sophia"),
        (but(sophia={"max_cost_usd": -1}), "sophia.max_cost_usd"),
        (but(sophia={"max_latency_ms": 0}), "sophia.max_latency_ms"),
    ],
    ids=lambda value: json.dumps(value)[-40:] if isinstance(value, dict) else "",
)
async def test_a_chat_body_that_is_wrong(
    sophia: Gateway, body: dict[str, Any], param: str | None
) -> None:
    error = await refused(
        sophia, await sophia.client.post("/v1/chat/completions", body), 400, param
    )
    if param is not None:
        assert param.split("[")[0].split(".")[-1] in error["message"]


@pytest.mark.parametrize(
    ("hint", "suggestion"),
    [
        ("max_cost", " Did you mean max_cost_usd?"),
        ("taks_type", " Did you mean task_type?"),
        ("dial", " Did you mean quality_bias?"),
        ("colour", ""),
    ],
)
async def test_an_unknown_hint_gets_the_nearest_name(
    sophia: Gateway, hint: str, suggestion: str
) -> None:
    """A misspelt or renamed hint is refused, because ignoring it would change the choice."""
    answer = await sophia.client.chat(sophia={hint: 1})
    error = await refused(sophia, answer, 400, "sophia")
    expected = f"`sophia`: object contains unknown field `{hint}`.{suggestion}"
    assert error["message"] == expected


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"model": MINI}, None),
        ("/v1/completions", {"model": MINI, "prompt": ""}, "prompt"),
        ("/v1/completions", {"model": MINI, "prompt": []}, "prompt"),
        ("/v1/completions", {"model": MINI, "prompt": ["a", ""]}, "prompt"),
        ("/v1/completions", {"model": MINI, "prompt": 3}, "prompt"),
        ("/v1/completions", {"model": MINI, "prompt": "a", "max_tokens": -1}, "max_tokens"),
        ("/v1/embeddings", {"model": MINI}, None),
        ("/v1/embeddings", {"model": MINI, "input": ""}, "input"),
        ("/v1/embeddings", {"model": MINI, "input": []}, "input"),
        ("/v1/embeddings", {"model": MINI, "input": ["a", ""]}, "input"),
        ("/v1/embeddings", {"model": MINI, "input": "a", "stream": True}, "stream"),
        ("/v1/embeddings", {"model": MINI, "input": "a", "dimensions": 0}, "dimensions"),
        (
            "/v1/embeddings",
            {"model": MINI, "input": "a", "encoding_format": "x"},
            "encoding_format",
        ),
        ("/v1/route", {"messages": []}, "messages"),
        ("/v1/feedback", {"decision_id": ""}, "decision_id"),
        ("/v1/feedback", {"decision_id": "dec-0", "score": 2}, "score"),
        ("/v1/feedback", {"decision_id": "dec-0", "thumbs": "sideways"}, "thumbs"),
        ("/v1/feedback", {"decision_id": "dec-0", "stars": 5}, None),
        ("/v1/feedback", {"decision_id": "dec-0"}, None),
    ],
)
async def test_another_body_that_is_wrong(
    sophia: Gateway, path: str, body: dict[str, Any], param: str | None
) -> None:
    await refused(sophia, await sophia.client.post(path, body), 400, param)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("complexity", "2"),
        ("complexity", "high"),
        ("task-type", "magic"),
        ("min-quality", "-1"),
        ("max-latency-ms", "soon"),
        ("cost-sensitive", "perhaps"),
        ("max-cost-usd", "free"),
    ],
)
async def test_a_hint_header_that_is_wrong_is_named(sophia: Gateway, name: str, value: str) -> None:
    headers = {"Authorization": f"Bearer {sophia.client.key}", f"X-Sophia-{name}": value}
    answer = await sophia.client.post("/v1/chat/completions", chat(), headers)
    await refused(sophia, answer, 400, f"x-sophia-{name}")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
async def test_an_unknown_model_gets_the_nearest_names(sophia: Gateway, path: str) -> None:
    body = {"model": "openai/gpt-4o-minni", "prompt": "a", "input": "a"} | chat(
        "openai/gpt-4o-minni"
    )
    answer = await sophia.client.post(path, body)
    error = await refused(sophia, answer, 404, "model", "model_not_found")
    assert MINI in error["message"] and MINI in error["metadata"]["nearest"]


async def test_an_unknown_substitute_is_refused_too(sophia: Gateway) -> None:
    answer = await sophia.client.chat(models=[MINI, "no/such"])
    await refused(sophia, answer, 404, "model", "model_not_found")


@pytest.mark.parametrize("model", ["sophia/nonsense", "sophia/auto:loud", "sophia/"])
async def test_an_unknown_name_of_sophia_gets_the_list(sophia: Gateway, model: str) -> None:
    answer = await sophia.client.chat(model)
    error = await refused(sophia, answer, 404, "model", "model_not_found")
    assert "sophia/auto:cheap" in error["message"]


@own_loop
async def test_a_name_of_sophia_may_end_with_a_colon(start: Start) -> None:
    async with start() as gateway:
        assert (await gateway.client.chat("sophia/auto:")).status == 200


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (chat("meta-llama/llama-3-8b-instruct", tools=[{"type": "function"}]), None),
        (chat(NEMO, messages=[{"role": "user", "content": [{"type": "image_url"}]}]), None),
        (chat(NEMO, logprobs=True), None),
        (chat(NEMO, text="word " * 200_000), "context_length_exceeded"),
    ],
    ids=["tools", "image", "logprobs", "context"],
)
async def test_a_model_that_cannot_do_it(
    sophia: Gateway, body: dict[str, Any], kind: str | None
) -> None:
    models = sophia.sophia.app.runtime.knowledge.catalogue.models
    if "tools" in body:
        body["model"] = next(m.id for m in models if not m.supports("tools") and m.prices.known)
    answer = await sophia.client.post("/v1/chat/completions", body)
    error = await refused(sophia, answer, 400, answer.json["error"]["param"], kind)
    assert body["model"] in error["message"]


async def test_sophia_does_not_choose_embedding_models(sophia: Gateway) -> None:
    body = {"model": "sophia/auto", "input": "a"}
    await refused(sophia, await sophia.client.post("/v1/embeddings", body), 404, "model")


async def test_a_chat_model_does_not_embed(sophia: Gateway) -> None:
    answer = await sophia.client.post("/v1/embeddings", {"model": MINI, "input": "a"})
    error = await refused(sophia, answer, 400, answer.json["error"]["param"])
    assert "chat" in error["message"]


@own_loop
async def test_a_body_over_the_limit(start: Start) -> None:
    async with start(server=ServerSettings(max_body_bytes=2000)) as gateway:
        for chunked in (False, True):
            data = json.dumps(chat(text="x" * 3000)).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer {gateway.client.key}\r\n"
            if chunked:
                request = (
                    head.encode()
                    + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
                )
            else:
                request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(data) + data
            answer = await gateway.client.raw(request)
            await refused(gateway, answer, 413, None, "payload_too_large")
        fits = await gateway.client.chat(text="x" * 1500)
        assert fits.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer sk-wrong"},
        {"Authorization": "Bearer sk-sph-0123456789-01234567890123456789012345678901-00000000"},
        {"Authorization": "Basic c29waGlhOmg="},
        {"Authorization": "Bearer \u00e9\u00ff"},
        {"x-api-key": ""},
        {"x-api-key": "sk-or-v1-somebody"},
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/route"),
        ("POST", "/v1/feedback"),
        ("GET", "/v1/models"),
        ("GET", "/v1/key"),
        ("GET", "/v1/generation?id=a"),
        ("GET", "/v1/decisions/dec-0"),
        ("GET", "/v1/models/openai/gpt-4o-mini"),
    ],
)
async def test_a_missing_or_wrong_key(
    sophia: Gateway, headers: dict[str, str], method: str, path: str
) -> None:
    answer = await sophia.client.send(method, path, json.dumps(chat()).encode(), headers)
    await refused(sophia, answer, 401, None, "authentication")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "sk-sph-" in answer.error["message"]
    # An unset variable is no reason to make another key.
    is_empty = (
        headers.get("Authorization", "").strip() == "Bearer" or headers.get("x-api-key") == ""
    )
    assert ("is empty" in answer.error["message"]) == is_empty


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/chat/completion", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v1", 404),
        ("POST", "/chat/completions", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("PUT", "/v1/key", 405),
        ("POST", "/health/live", 405),
        ("POST", "/v1/decisions/dec-1", 405),
        ("PATCH", "/v1/models/openai/gpt-4o-mini", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
    ],
)
async def test_an_unknown_route_or_method(
    sophia: Gateway, method: str, path: str, status: int
) -> None:
    answer = await sophia.client.send(method, path)
    kind = "not_found" if status == 404 else "method_not_allowed"
    error = await refused(sophia, answer, status, None, kind)
    assert path.split("?", maxsplit=1)[0] in error["message"]


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n{}",
        b"POST /v1/key HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_bytes_that_are_no_http(sophia: Gateway, data: bytes) -> None:
    answer = await sophia.client.raw(data)
    assert answer.status == 400
    assert await sophia.untouched()
    assert (await sophia.client.get("/health/live")).status == 200


@pytest.mark.parametrize(
    "query",
    ["?limit=-1", "?limit=x", "?offset=1.5", "?limit=", "?offset=99999999999", "?limit=%00"],
)
async def test_a_page_that_is_no_number(sophia: Gateway, query: str) -> None:
    answer = await sophia.client.get("/v1/models" + query)
    if query == "?limit=":
        assert answer.status in (200, 400)
    else:
        await refused(sophia, answer, 400, query[1:].split("=", maxsplit=1)[0])


@own_loop
async def test_a_request_that_is_refused_leaves_the_next_alone(start: Start) -> None:
    """A kept connection goes on after an error."""
    async with start() as gateway:
        bad, good = gateway.client.request({"messages": []}), gateway.client.request(chat(CODER))
        async with gateway.client.connection(bad + good) as reader:
            seen = b""
            while b"HTTP/1.1 200" not in seen:
                some = await reader.read(65536)
                assert some
                seen += some
        assert seen.startswith(b"HTTP/1.1 400")
