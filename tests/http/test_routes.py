"""Every route besides chat, under both prefixes."""

import re
from pathlib import Path
from typing import Any

import pytest

from gateway import FLASH, KNOWN_POOL, MINI, NEMO, SONNET, Gateway, Start, chat
from shapes import MODEL_FIELDS, check_stream, check_usage, check_whole
from sophia.config import RoutingSettings, UpstreamModelSettings, UpstreamSettings
from sophia.sandbox import ScriptedUpstream, ScriptStep

EMBEDDER = "local/embedder"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_legacy_completions(sophia: Gateway, prefix: str, stream: bool) -> None:
    body = {"model": MINI, "prompt": "Once upon a time", "stream": stream, "best_of": 1}
    answer = await sophia.client.post(f"{prefix}/completions", body)
    assert answer.status == 200
    if stream:
        assert answer.done
        check_stream(answer.chunks, chat=False)
    else:
        check_whole(answer.json, chat=False)
    assert sophia.up.requests[-1].json()["best_of"] == 1
    assert sophia.up.requests[-1].path == "/api/v1/completions"


@pytest.fixture
async def embedding(start: Start, up: ScriptedUpstream) -> Any:
    model = UpstreamModelSettings(
        id=EMBEDDER,
        served_as="openai/text-embedding-3-small",
        kind="embedding",
        prompt_usd_per_mtok=0.02,
    )
    place = UpstreamSettings(name="vectors", base_url=up.base_url, api_key="local", models=(model,))
    async with start(upstreams=(place,)) as gateway:
        yield gateway


@pytest.mark.parametrize("given", ["hello", ["hello", "world"], [1, 2, 3], [[1, 2], [3]]])
@pytest.mark.parametrize("form", ["float", "base64"])
async def test_embeddings_come_from_a_configured_upstream(
    embedding: Gateway, given: object, form: str
) -> None:
    body = {"model": EMBEDDER, "input": given, "encoding_format": form, "dimensions": 8}
    answer = await embedding.client.post("/v1/embeddings", body)
    assert answer.status == 200
    reply = answer.json
    assert reply["object"] == "list" and reply["model"] and reply["provider"]
    assert [row["index"] for row in reply["data"]] == list(range(len(reply["data"])))
    assert reply["usage"]["prompt_tokens"] == reply["usage"]["total_tokens"] > 0
    sent = embedding.up.requests[-1]
    assert sent.headers["authorization"] == "Bearer local"
    assert sent.json()["model"] == "openai/text-embedding-3-small"
    assert sent.json()["input"] == given
    (row,) = await embedding.outcomes()
    assert (row.state, row.model) == ("settled", EMBEDDER) and row.cost_nano > 0
    assert await embedding.standing() == (row.cost_nano / 1e9, 0.0)


async def test_a_failed_embedding_costs_nothing(embedding: Gateway) -> None:
    embedding.up.script("*", ScriptStep(status=503))
    answer = await embedding.client.post("/v1/embeddings", {"model": EMBEDDER, "input": "a"})
    assert answer.status == 429 and answer.error["metadata"]["attempts"]
    assert await embedding.standing() == (0.0, 0.0)


async def test_an_openai_compatible_upstream_is_asked_for_usage(
    start: Start, up: ScriptedUpstream
) -> None:
    model = UpstreamModelSettings(id="local/chat", served_as=MINI, completion_usd_per_mtok=1.0)
    place = UpstreamSettings(name="own", base_url=up.base_url, api_key="local", models=(model,))
    async with start(upstreams=(place,)) as gateway:
        answer = await gateway.client.chat("local/chat", stream=True, provider={"order": ["x"]})
        check_stream(answer.chunks)
        sent = gateway.up.requests[-1].json()
        assert sent["stream_options"] == {"include_usage": True}
        assert sent["model"] == MINI and "provider" not in sent
        (row,) = await gateway.outcomes()
        assert row.model == "local/chat"


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_models_are_listed_in_openrouters_shape(sophia: Gateway, prefix: str) -> None:
    body = (await sophia.client.get(f"{prefix}/models")).json
    rows = body["data"]
    assert body["total_count"] == len(rows) > 400 and "links" in body
    for row in rows:
        assert row.keys() >= MODEL_FIELDS, row["id"]
        assert row["object"] == "model" and row["owned_by"] and row["links"]["details"]
        assert isinstance(row["pricing"]["prompt"], str)
        assert isinstance(row["pricing"]["completion"], str)
        assert type(row["created"]) is int and isinstance(row["supported_parameters"], list)
        architecture = row["architecture"]
        assert {"modality", "input_modalities", "output_modalities"} <= set(architecture)
        assert "is_moderated" in row["top_provider"]
    ids = [row["id"] for row in rows]
    assert len(set(ids)) == len(ids) and {MINI, FLASH, SONNET, NEMO} <= set(ids)
    own = {id for id in ids if id.startswith("sophia/")}
    assert {
        "sophia/auto",
        "sophia/auto:cheap",
        "sophia/auto:fast",
        "sophia/auto:best",
        "sophia/heuristic",
        "sophia/code-generation",
        "sophia/quick-response",
        "sophia/complex-analysis",
    } <= own


async def test_pages_of_models_make_up_the_list(sophia: Gateway) -> None:
    ids: list[str] = []
    while True:
        page = (await sophia.client.get(f"/v1/models?offset={len(ids)}&limit=150")).json
        if not page["data"]:
            break
        ids += [row["id"] for row in page["data"]]
    whole = (await sophia.client.get("/v1/models")).json
    assert ids == [row["id"] for row in whole["data"]] and page["total_count"] == len(ids)


@pytest.mark.parametrize(
    ("name", "id"),
    [
        (MINI, MINI),
        ("sophia/auto", "sophia/auto"),
        ("sophia/auto:cheap", "sophia/auto:cheap"),
        ("openai%2Fgpt-4o-mini", MINI),
        ("anthropic/claude-3.5-sonnet", SONNET),
    ],
)
@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_one_model_is_described(sophia: Gateway, prefix: str, name: str, id: str) -> None:
    answer = await sophia.client.get(f"{prefix}/models/{name}")
    assert answer.status == 200 and answer.json["id"] == id


async def test_a_model_that_is_not_there(sophia: Gateway) -> None:
    answer = await sophia.client.get("/v1/models/openai/gpt-4o-minni")
    assert answer.status == 404 and MINI in answer.error["message"]


async def test_every_listed_name_can_be_asked_for(sophia: Gateway) -> None:
    own = [
        row["id"]
        for row in (await sophia.client.get("/v1/models")).json["data"]
        if row["id"].startswith("sophia/")
    ]
    for name in own:
        assert (await sophia.client.chat(name)).status == 200, name
        assert (await sophia.client.get(f"/v1/models/{name}")).status == 200, name


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_the_key_shows_its_limits(sophia: Gateway, prefix: str) -> None:
    await sophia.client.chat()
    data = (await sophia.client.get(f"{prefix}/key")).json["data"]
    (row,) = sophia.up.bill.rows
    assert data["usage"] == data["usage_daily"] == row.cost / 1e9
    assert data["limit"] == 100.0 and data["held"] == 0
    assert data["limit_remaining"] == pytest.approx(100.0 - row.cost / 1e9, abs=1e-9)
    assert data["label"].startswith("sk-sph-") and sophia.client.key not in data["label"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("by", ["id", "req", "dec"])
@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_a_generation_shows_its_cost(
    sophia: Gateway, prefix: str, by: str, stream: bool
) -> None:
    answer = await sophia.client.chat(stream=stream)
    body = answer.chunks[-1] if stream else answer.json
    id = {
        "id": body["id"],
        "req": answer.headers["x-request-id"],
        "dec": answer.headers["x-sophia-decision-id"],
    }[by]
    data = (await sophia.client.get(f"{prefix}/generation?id={id}")).json["data"]
    assert data["total_cost"] == data["usage"] == body["usage"]["cost"]
    assert data["tokens_prompt"] == body["usage"]["prompt_tokens"]
    assert data["model"] == MINI and data["finish_reason"] == "stop" and not data["cancelled"]
    assert data["sophia"]["cost_source"] == "upstream"


async def test_a_generation_of_another_key_does_not_exist(sophia: Gateway) -> None:
    id = (await sophia.client.chat()).json["id"]
    other = await sophia.new_key()
    await sophia.catch_up()
    for unknown in (id, "gen-none", "req-0000000000000"):
        assert (await sophia.client.get(f"/v1/generation?id={unknown}", key=other)).status == 404
    missing = await sophia.client.get("/v1/generation")
    assert missing.status == 400 and missing.error["param"] == "id"


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_a_route_is_explained_without_a_call(sophia: Gateway, prefix: str) -> None:
    body = chat("sophia/auto", sophia={"explore": False})
    answer = await sophia.client.post(f"{prefix}/route", body)
    decision = answer.json
    assert decision["object"] == "sophia.route" and decision["requested_model"] == "sophia/auto"
    assert (
        decision["attempts"][0]["model"] == decision["model"]
        and decision["reason"]
        and decision["sentence"]
    )
    assert len(decision["candidates"]) >= 5 and decision["features"]["task_type"]
    assert all("expected_usd" in candidate for candidate in decision["candidates"])
    assert await sophia.untouched()
    served = (await sophia.client.post(f"{prefix}/chat/completions", body)).json["sophia"]["model"]
    assert served == decision["model"]


async def test_a_first_decision_says_that_it_is_by_priors(sophia: Gateway) -> None:
    """Nobody should take public ratings for what was learned of their own requests."""
    body = chat("sophia/auto", sophia={"explore": False})
    decision = (await sophia.client.post("/v1/route", body)).json
    reason = "Best quality for its price by public ratings and benchmarks: expected quality "
    assert decision["policy"] == "priors" and decision["reason"].startswith(reason)
    assert reason in decision["sentence"]
    answer = await sophia.client.post("/v1/chat/completions", body)
    account = answer.json["sophia"]
    assert (account["policy"], account["reason"]) == (decision["policy"], decision["reason"])
    assert answer.headers["x-sophia-policy"] == "priors"
    kept = (await sophia.client.get(f"/v1/decisions/{account['decision_id']}")).json
    assert (kept["policy"], kept["reason"]) == (decision["policy"], decision["reason"])
    chosen = next(one for one in kept["candidates"] if one["model"] == account["model"])
    assert f"{chosen['quality']:.2f} ± {chosen['sd']:.2f}" in kept["reason"]


async def test_a_route_names_the_excluded_models_and_causes(sophia: Gateway) -> None:
    content = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    body = chat("sophia/auto") | {"messages": [{"role": "user", "content": content}]}
    decision = (await sophia.client.post("/v1/route", body)).json
    assert {"model", "cause", "code"} <= set(decision["excluded"][0])
    assert NEMO in {row["model"] for row in decision["excluded"]}


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_a_decision_can_be_read_later_with_its_outcome(sophia: Gateway, prefix: str) -> None:
    answer = await sophia.client.chat("sophia/auto")
    annotation = answer.json["sophia"]
    row = (await sophia.client.get(f"{prefix}/decisions/{annotation['decision_id']}")).json
    assert row["id"] == annotation["decision_id"] and row["served_by"] == annotation["model"]
    assert row["reason"] == annotation["reason"] and row["feedback"] == []
    (attempt,) = row["attempts_made"]
    assert attempt["cost_usd"] == annotation["cost_usd"] and attempt["state"] == "settled"
    assert "Why is the sky blue" not in str(row)


async def test_feedback_is_kept_once(sophia: Gateway) -> None:
    id = (await sophia.client.chat()).json["sophia"]["decision_id"]
    first = await sophia.client.post("/v1/feedback", {"decision_id": id, "thumbs": "up"})
    assert (first.status, first.json["stored"]) == (200, True)
    again = await sophia.client.post("/v1/feedback", {"decision_id": id, "thumbs": "up"})
    assert (again.status, again.json["stored"]) == (200, False)
    fresh = {"decision_id": id, "score": 0.5, "idempotency_key": "2", "label": "dull"}
    assert (await sophia.client.post("/api/v1/feedback", fresh)).json["stored"]
    row = (await sophia.client.get(f"/v1/decisions/{id}")).json
    assert sorted(feedback["score"] for feedback in row["feedback"]) == [0.5, 1.0]
    page = (await sophia.client.get("/metrics", headers={})).body.decode()
    assert f'openrouter_quality_score{{model="{MINI}"}} 0.75' in page


async def test_the_decision_of_another_key_does_not_exist(sophia: Gateway) -> None:
    id = (await sophia.client.chat()).json["sophia"]["decision_id"]
    other = await sophia.new_key()
    await sophia.catch_up()
    assert (await sophia.client.get(f"/v1/decisions/{id}", key=other)).status == 404
    rated = await sophia.client.post("/v1/feedback", {"decision_id": id, "score": 0}, key=other)
    assert rated.status == 404 and not await sophia.rows("feedback")
    for wrong in ("dec-0000000000000", "dec-x", "x", "req-0000000000000", "dec-zzzzzzzzzzzzz"):
        assert (await sophia.client.get(f"/v1/decisions/{wrong}")).status == 404


async def test_health_shows_whether_requests_are_accepted(sophia: Gateway) -> None:
    assert (await sophia.client.get("/health/live", headers={})).json == {"status": "live"}
    assert (await sophia.client.get("/health/ready", headers={})).json == {"status": "ready"}
    sophia.sophia.app.not_ready_reason = lambda: "Sophia is shutting down."
    answer = await sophia.client.get("/health/ready", headers={})
    assert answer.status == 503 and answer.headers["retry-after"] == "1"
    assert "shutting down" in answer.error["message"]


async def test_head_is_answered_without_a_body(sophia: Gateway) -> None:
    request = b"HEAD /health/live HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n"
    async with sophia.client.connection(request) as reader:
        seen = await reader.read(-1)
    assert seen.startswith(b"HTTP/1.1 200") and seen.endswith(b"\r\n\r\n")


async def test_metrics_have_the_promised_names(sophia: Gateway) -> None:
    id = (await sophia.client.chat()).json["sophia"]["decision_id"]
    await sophia.client.post("/v1/feedback", {"decision_id": id, "score": 1})
    answer = await sophia.client.get("/metrics", headers={})
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    page = answer.body.decode()
    cost = sophia.up.bill.total / 1e9
    assert f'openrouter_requests_total{{model="{MINI}",status="200"}} 1.0' in page
    cost_line = re.search(rf'^openrouter_cost_dollars{{model="{MINI}"}} (\S+)$', page, re.MULTILINE)
    assert cost_line is not None and float(cost_line[1]) == cost
    assert f'openrouter_response_duration_seconds_bucket{{le="300.0",model="{MINI}"}} 1.0' in page
    assert f'openrouter_quality_score{{model="{MINI}"}} 1.0' in page


async def test_the_openapi_document_names_every_route(sophia: Gateway) -> None:
    body = (await sophia.client.get("/openapi.json", headers={})).json
    assert body["openapi"].startswith("3.1")
    expected = {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/models",
        "/v1/models/health",
        "/v1/models/{id}",
        "/v1/key",
        "/v1/generation",
        "/v1/route",
        "/v1/decisions/{id}",
        "/v1/feedback",
        "/health/live",
        "/health/ready",
        "/health",
        "/metrics",
        "/openapi.json",
        "/",
    }
    assert set(body["paths"]) == expected
    assert (await sophia.client.get("/", headers={})).json["base_url"] == "/v1"


async def ask_with_hints(gateway: Gateway, by: str, hints: dict[str, Any]) -> dict[str, Any]:
    """Ask with hints in the body or in headers, and return the account of the answer."""
    headers = {"Authorization": f"Bearer {gateway.client.key}"}
    body = chat("sophia/auto")
    if by == "body":
        body["sophia"] = hints
    else:
        headers |= {f"X-Sophia-{k.replace('_', '-')}": str(v).lower() for k, v in hints.items()}
    answer = await gateway.client.post("/v1/chat/completions", body, headers)
    account: dict[str, Any] = answer.json["sophia"]
    return account


@pytest.mark.parametrize("by", ["body", "header"])
async def test_hints_steer_the_choice(sophia: Gateway, by: str) -> None:
    hints = {"task_type": "coding", "complexity": 0.9, "explore": False}
    best, cheap = [
        await ask_with_hints(sophia, by, {**hints, "quality_bias": bias}) for bias in (10, 0)
    ]
    assert best["policy"] == cheap["policy"] == "priors"
    assert (best["model"], cheap["model"]) == (SONNET, "deepseek/deepseek-v3.2")
    row = (await sophia.client.get(f"/v1/decisions/{best['decision_id']}")).json
    assert row["features"]["task_declared"] and row["features"]["complexity"] == 0.9


@pytest.mark.parametrize("by", ["body", "header"])
async def test_hints_meet_the_conditions_of_the_operators_own_rules_alone(
    start: Start, tmp_path: Path, by: str
) -> None:
    """The bundled rules apply only where they are asked for by name."""
    hints = {"task_type": "coding", "complexity": 0.9, "cost_sensitive": False}
    async with start() as gateway:
        assert (await ask_with_hints(gateway, by, hints))["policy"] == "priors"
        named = (await gateway.client.chat("sophia/code-generation")).json["sophia"]
        assert named["policy"] == "code-generation"
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        'rules:\n  - name: mine\n    conditions: {task_type: coding, complexity: ">0.7"}\n'
        f"    preferred_models: [{NEMO}]\n"
    )
    async with start(routing=RoutingSettings(pool=KNOWN_POOL, rules=str(rules))) as gateway:
        account = await ask_with_hints(gateway, by, hints)
        assert (account["policy"], account["model"]) == ("mine", NEMO)
        other = await ask_with_hints(gateway, by, hints | {"complexity": 0.7})
        assert other["policy"] == "priors"


async def test_a_list_of_models_bounds_the_choice(sophia: Gateway) -> None:
    answer = await sophia.client.chat("sophia/auto", sophia={"models": [NEMO, MINI]})
    assert answer.json["sophia"]["model"] in (NEMO, MINI)
    headers = {"Authorization": f"Bearer {sophia.client.key}", "x-sophia-models": f"{NEMO}, {MINI}"}
    answer = await sophia.client.post("/v1/chat/completions", chat("sophia/auto"), headers)
    assert answer.json["sophia"]["model"] in (NEMO, MINI)


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("sophia/auto:best", lambda answer: answer["model"] == SONNET),
        ("sophia/best", lambda answer: "highest expected quality" in answer["reason"]),
        ("sophia/auto:fast", lambda answer: answer["model"] == FLASH),
        ("sophia/auto:cheap", lambda answer: answer["cost_usd"] < 0.0001),
        ("sophia/heuristic", lambda answer: answer["policy"] == "heuristic"),
        (
            "sophia/quick-response",
            lambda answer: answer["policy"] == "quick-response" and answer["model"] == FLASH,
        ),
        ("sophia/complex-analysis", lambda answer: answer["model"] == SONNET),
        ("sophia/code-generation", lambda answer: answer["model"] == "deepseek/deepseek-v3.2"),
    ],
)
async def test_sophias_names_choose_as_they_say(sophia: Gateway, name: str, check: Any) -> None:
    annotation = (await sophia.client.chat(name, sophia={"explore": False})).json["sophia"]
    assert check(annotation), annotation


@pytest.mark.parametrize("stream", [False, True])
async def test_no_model_at_all_means_sophia_chooses(sophia: Gateway, stream: bool) -> None:
    body = chat(stream=stream)
    del body["model"]
    answer = await sophia.client.post("/v1/chat/completions", body)
    assert answer.headers["x-sophia-policy"] == "priors"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_list_of_models_is_tried_in_order(sophia: Gateway, stream: bool) -> None:
    sophia.up.script(MINI, ScriptStep(status=503))
    answer = await sophia.client.chat(models=[MINI, NEMO], stream=stream)
    assert answer.status == 200 and answer.headers["x-sophia-model"] == NEMO
    assert answer.headers["x-sophia-attempts"] == "2"
    body = answer.chunks[0] if stream else answer.json
    assert body["model"] == NEMO


async def test_models_without_model_starts_with_the_first(sophia: Gateway) -> None:
    body = chat(models=[NEMO, MINI])
    del body["model"]
    assert (await sophia.client.post("/v1/chat/completions", body)).json["model"] == NEMO


@pytest.mark.parametrize("stream", [False, True])
async def test_a_retired_name_is_served_by_its_successor_with_a_warning(
    sophia: Gateway, stream: bool
) -> None:
    answer = await sophia.client.chat("anthropic/claude-3.5-sonnet", stream=stream)
    assert answer.status == 200
    assert SONNET in answer.headers["x-sophia-warning"]
    annotation = (answer.chunks[-1] if stream else answer.json)["sophia"]
    assert annotation["model"] == SONNET and "claude-3.5-sonnet" in annotation["warning"]
    assert sophia.up.requests[-1].json()["model"] == SONNET


async def test_a_configured_rule_is_a_model_name(start: Start, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rules:\n  - name: mine\n    conditions: {language: de}\n"
        f"    preferred_models: [{NEMO}]\n    fallback: {MINI}\n"
    )
    async with start(routing=RoutingSettings(pool=KNOWN_POOL, rules=str(rules))) as gateway:
        assert (await gateway.client.chat("sophia/mine")).json["sophia"]["model"] == NEMO
        ids = [row["id"] for row in (await gateway.client.get("/v1/models")).json["data"]]
        assert "sophia/mine" in ids and "sophia/code-generation" not in ids


async def test_usage_of_a_whole_answer_that_reports_none_is_estimated(sophia: Gateway) -> None:
    sophia.up.script(MINI, ScriptStep(no_usage=True))
    answer = await sophia.client.chat()
    check_usage(answer.json["usage"])
    (row,) = await sophia.outcomes()
    assert row.cost_source == "estimated" and row.cost_nano > 0
