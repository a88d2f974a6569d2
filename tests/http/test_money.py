"""No request costs more than its limits allow, and the ledger agrees with the upstream's bill."""

import asyncio
import time
from typing import Any

import pytest

from gateway import FLASH, MINI, NEMO, SHORT, SONNET, Gateway, Start, chat
from sophia.config import BudgetSettings
from sophia.core.ids import first_id_at
from sophia.core.rows import AttemptIntent
from sophia.sandbox import ScriptStep
from sophia.tenants.budget import day_window


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_per_request_limit_clamps_the_answer(
    start: Start, field: str, stream: bool
) -> None:
    async with start(budget=BudgetSettings(per_request_usd=0.001)) as gateway:
        answer = await gateway.client.chat(SONNET, stream=stream, **{field: 60_000})
        assert answer.status == 200
        sent = gateway.up.requests[-1].json()
        other = {"max_tokens", "max_completion_tokens"} - {field}
        assert type(sent[field]) is int and not other & set(sent)
        assert 16 <= sent[field] < 0.001 / 15e-6
        assert answer.headers["x-sophia-max-tokens"] == str(sent[field])
        told = answer.chunks[-1] if stream else answer.json
        assert told["sophia"]["max_tokens"] == sent[field]
        (row,) = await gateway.rows("intents")
        assert row["held_nano"] <= 1_000_000


async def test_an_answer_that_the_purse_pays_is_not_clamped(sophia: Gateway) -> None:
    answer = await sophia.client.chat(max_tokens=50)
    assert "x-sophia-max-tokens" not in answer.headers
    assert sophia.up.requests[-1].json()["max_tokens"] == 50
    await sophia.client.chat(NEMO)
    assert "max_tokens" not in sophia.up.requests[-1].json()


async def test_a_request_that_the_limit_cannot_pay_is_refused(start: Start) -> None:
    async with start(budget=BudgetSettings(per_request_usd=0.0001)) as gateway:
        answer = await gateway.client.chat(SONNET)
        assert answer.status == 402 and answer.error["metadata"]["fault"] == "policy"
        assert await gateway.untouched()


async def test_what_a_request_may_cost_can_be_said_in_it(sophia: Gateway) -> None:
    await sophia.client.chat(SONNET, sophia={"max_cost_usd": 0.002})
    (row,) = await sophia.rows("intents")
    assert row["held_nano"] <= 2_000_000
    assert sophia.up.requests[-1].json()["max_tokens"] < 0.002 / 15e-6


async def test_the_upstream_is_told_the_dearest_price(sophia: Gateway) -> None:
    """Listed price and headroom: a provider that asks for more is not to be chosen."""
    await sophia.client.chat()
    price = sophia.up.requests[-1].json()["provider"]["max_price"]  # type: ignore[index]
    assert price == {"prompt": pytest.approx(0.1875), "completion": pytest.approx(0.75)}


async def test_the_callers_own_ceiling_and_preferences_stay(sophia: Gateway) -> None:
    mine = {"sort": "price", "max_price": {"prompt": 0.16, "completion": 9.0, "image": 1}}
    await sophia.client.chat(provider=mine)
    sent = sophia.up.requests[-1].json()["provider"]
    assert sent == {
        "sort": "price",
        "max_price": {"prompt": 0.16, "completion": pytest.approx(0.75), "image": 1},
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_a_spent_budget_refuses_before_anything_is_sent(start: Start, stream: bool) -> None:
    async with start(budget=BudgetSettings(daily_usd=0.0)) as gateway:
        answer = await gateway.client.chat(stream=stream)
        assert answer.status == 402
        error = answer.error
        assert error["type"] == "insufficient_quota" and error["metadata"]["fault"] == "policy"
        assert error["metadata"]["error_type"] == "payment_required"
        assert await gateway.untouched()


async def test_a_spent_daily_budget_says_when_to_retry(start: Start) -> None:
    """Waiting for the next day helps against the daily budget, not against the other limits."""
    async with start(budget=BudgetSettings(daily_usd=0.0001)) as gateway:
        for path in ("/v1/chat/completions", "/v1/route"):
            answer = await gateway.client.post(path, chat(SONNET))
            assert answer.status == 402 and 0 < int(answer.headers["retry-after"]) <= 86_401
    async with start(budget=BudgetSettings(per_request_usd=0.0001)) as gateway:
        answer = await gateway.client.chat(SONNET)
        assert answer.status == 402 and "retry-after" not in answer.headers


async def test_a_key_has_its_own_budget_and_limit(sophia: Gateway) -> None:
    poor = await sophia.new_key("poor", daily=0.0)
    tight = await sophia.new_key("tight", each=0.001)
    await sophia.catch_up()
    assert (await sophia.client.chat(key=poor)).status == 402
    assert (await sophia.client.chat(key=tight, model=SONNET)).status == 200
    assert sophia.up.requests[-1].json()["max_tokens"] < 0.001 / 15e-6  # type: ignore[operator]
    assert (await sophia.client.chat()).status == 200
    data = (await sophia.client.get("/v1/key", key=poor)).json["data"]
    assert (data["limit"], data["usage"], data["limit_remaining"]) == (0.0, 0.0, 0.0)


async def test_a_free_model_needs_no_budget(start: Start) -> None:
    async with start(budget=BudgetSettings(daily_usd=0.0)) as gateway:
        assert (await gateway.client.chat("google/gemma-4-31b-it:free")).status == 200
        assert await gateway.standing() == (0.0, 0.0)


async def test_parallel_requests_never_overspend_the_last_cent(start: Start) -> None:
    """Fifty at once against a budget that pays for a few: `spent + held <= limit` throughout."""
    limit = 0.0004
    async with start(budget=BudgetSettings(daily_usd=limit)) as gateway:
        gateway.up.script("*", ScriptStep(delay=0.02), times=None)
        answers = asyncio.gather(
            *(gateway.client.chat(max_tokens=100, stream=bool(n % 2)) for n in range(50))
        )
        while not answers.done():
            spent, held = await gateway.standing()
            assert spent + held <= limit + 1e-12
            await asyncio.sleep(0.003)
        statuses = [answer.status for answer in await answers]
        assert set(statuses) == {200, 402} and 3 <= statuses.count(200) < 40
        assert gateway.up.bill.total <= limit * 1e9
        spent, held = await gateway.standing()
        assert (round(spent * 1e9), held) == (gateway.up.bill.total, 0.0)


async def test_the_ledger_adds_up_to_the_upstreams_bill(start: Start) -> None:
    async with start(deadlines=SHORT) as gateway:
        gateway.up.script(
            FLASH,
            ScriptStep(status=503),
            ScriptStep(cut_after=4),
            ScriptStep(error_at=2),
            ScriptStep(),
        )
        gateway.up.script(NEMO, ScriptStep(), ScriptStep(text=""), ScriptStep(no_usage=False))
        work = []
        for model in (MINI, NEMO, FLASH, "sophia/auto", SONNET) * 4:
            body = {"models": [model, MINI, NEMO]} if not model.startswith("sophia") else {}
            work.append(gateway.client.chat(model, stream=model not in (NEMO, SONNET), **body))
        for answer in await asyncio.gather(*work):
            assert answer.status == 200
        intents = await gateway.rows("intents")
        outcomes = await gateway.settled(len(intents))
        assert {row.cost_source for row in outcomes if row.cost_nano} == {"upstream"}
        assert sum(row.cost_nano for row in outcomes) == gateway.up.bill.total
        spent, held = await gateway.standing()
        assert (round(spent * 1e9), held) == (gateway.up.bill.total, 0.0)
        page = (await gateway.client.get("/metrics", headers={})).body.decode()
        told = sum(
            float(line.rsplit(" ", 1)[1])
            for line in page.splitlines()
            if line.startswith("openrouter_cost_dollars{")
        )
        assert told == pytest.approx(gateway.up.bill.total / 1e9, abs=1e-12)


async def test_a_restart_remembers_what_was_spent_and_what_is_in_doubt(start: Start) -> None:
    async with start(deadlines=SHORT) as gateway:
        await gateway.client.chat()
        gateway.up.script(MINI, ScriptStep(no_answer="hang"))
        assert (await gateway.client.chat()).status == 504
        before = await gateway.standing()
        assert before[0] > 0 and before[1] > 0
        total = gateway.up.bill.total
    async with start() as gateway:
        assert await gateway.standing() == before
        assert round(before[0] * 1e9) == total
        page = (await gateway.client.get("/metrics", headers={})).body.decode()
        assert f'openrouter_cost_dollars{{model="{MINI}"}}' in page


async def test_an_intent_without_an_outcome_stays_held_after_a_crash(start: Start) -> None:
    async with start() as gateway:
        (key,) = await gateway.rows("keys")
        await gateway.sophia.store.reserve(
            AttemptIntent(
                attempt_id=first_id_at(int(time.time() * 1000)),
                key_id=key["id"],
                window=day_window(time.time()),
                model=MINI,
                upstream="openrouter",
                held_nano=5_000_000,
                at_ms=1,
            )
        )
    async with start(budget=BudgetSettings(daily_usd=0.0051)) as gateway:
        assert await gateway.standing() == (0.0, 0.005)
        answer = await gateway.client.chat(SONNET, max_tokens=100)
        assert answer.status == 402
        assert "held" in answer.error["message"] or "left" in answer.error["message"]


@pytest.mark.parametrize("header", ["Authorization", "x-api-key"])
async def test_a_key_comes_in_either_header(sophia: Gateway, header: str) -> None:
    value = sophia.client.key if header == "x-api-key" else f"bearer {sophia.client.key}"
    answer = await sophia.client.post("/v1/chat/completions", chat(), {header: value})
    assert answer.status == 200


async def test_a_new_key_works_at_once(sophia: Gateway) -> None:
    """It may have been made by the command line a moment ago."""
    assert (await sophia.client.chat(key=await sophia.new_key())).status == 200


async def test_a_revoked_key_is_refused_within_a_second_or_so(sophia: Gateway) -> None:
    (row,) = await sophia.rows("keys")
    await sophia.sophia.store.revoke_key(row["id"], 1)
    async with asyncio.timeout(1.5):
        while (await sophia.client.get("/v1/key")).status == 200:
            await asyncio.sleep(0.05)
    answer = await sophia.client.chat()
    assert answer.status == 401 and await sophia.untouched()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/route", "/v1/feedback"])
async def test_an_admin_key_never_pays_for_answers(sophia: Gateway, path: str) -> None:
    admin = await sophia.new_key("admin", "admin")
    await sophia.catch_up()
    answer = await sophia.client.post(path, chat(), key=admin)
    assert answer.status == 403 and answer.error["metadata"]["error_type"] == "permission_denied"
    assert await sophia.untouched()


async def test_neither_prompts_nor_keys_are_written_down(sophia: Gateway) -> None:
    secret = "the colour of the sky over Lisbon"
    await sophia.client.chat("sophia/auto", text=secret)
    await sophia.outcomes()
    files = [
        path for path in sophia.folder.rglob("*") if path.is_file() and path.name != "first.key"
    ]
    kept = b"".join(path.read_bytes() for path in files)
    assert secret.encode() not in kept and sophia.client.key.encode() not in kept


TWO = [SONNET, MINI]


async def test_the_per_request_limit_spans_all_attempts(start: Start) -> None:
    """What is in doubt counts: a substitute gives as long an answer as fits beside it (D1)."""
    async with start(deadlines=SHORT, budget=BudgetSettings(per_request_usd=0.001)) as gateway:
        gateway.up.script(SONNET, ScriptStep(no_answer="hang"))
        answer = await gateway.client.chat(SONNET, models=TWO, max_tokens=60_000)
        assert (answer.status, answer.json["model"]) == (200, MINI)
        assert 16 <= gateway.up.requests[-1].json()["max_tokens"] < 60_000
        spent, held = await gateway.standing()
        assert 0.0 < spent + held <= 0.001
        _, second = await gateway.rows("intents")
        assert second["held_nano"] + round(held * 1e9) <= 1_000_000


async def test_an_attempt_that_cost_nothing_leaves_the_per_request_limit_whole(
    start: Start,
) -> None:
    async with start(deadlines=SHORT, budget=BudgetSettings(per_request_usd=0.001)) as gateway:
        gateway.up.script(SONNET, ScriptStep(status=503))
        answer = await gateway.client.chat(SONNET, models=TWO, max_tokens=60_000)
        assert answer.status == 200 and answer.json["model"] == MINI


async def test_running_out_of_budget_in_mid_failover_is_the_upstreams_failure(start: Start) -> None:
    budget = BudgetSettings(daily_usd=0.001, per_request_usd=None)
    async with start(deadlines=SHORT, budget=budget) as gateway:
        gateway.up.script(SONNET, ScriptStep(no_answer="hang"))
        answer = await gateway.client.chat(SONNET, models=TWO, max_tokens=60_000)
        assert answer.status == 504 and answer.error["metadata"]["fault"] == "upstream"
        assert [one["model"] for one in answer.error["metadata"]["attempts"]] == [SONNET]
        assert len(gateway.up.requests) == 1
        spent, held = await gateway.standing()
        assert spent + held <= 0.001


BULK = "wörd " * 4000
SAID = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "And?"},
]


@pytest.mark.parametrize(
    "more",
    [
        {"messages": [SAID[0], SAID[1] | {"reasoning_details": [{"text": BULK}]}, SAID[2]]},
        {"messages": [SAID[0], SAID[1] | {"reasoning": BULK}, SAID[2]]},
        {"functions": [{"name": "f", "description": BULK}]},
        {"prediction": {"type": "content", "content": BULK}},
    ],
    ids=["reasoning_details", "reasoning", "functions", "prediction"],
)
async def test_the_hold_covers_every_byte_that_may_become_prompt(
    sophia: Gateway, more: dict[str, Any]
) -> None:
    body = {"model": MINI, "max_tokens": 20, "messages": SAID}
    for asked in (body, body | more):
        assert (await sophia.client.post("/v1/chat/completions", asked)).status == 200
    small, large = [row["held_nano"] for row in await sophia.rows("intents")]
    assert large - small >= len(BULK.encode()) * 150


async def test_the_hold_covers_every_candidate_of_best_of(sophia: Gateway) -> None:
    body = {"model": MINI, "prompt": "Once", "max_tokens": 1000}
    for more in ({}, {"best_of": 4}, {"n": 4}):
        assert (await sophia.client.post("/v1/completions", body | more)).status == 200
    one, best, several = [row["held_nano"] for row in await sophia.rows("intents")]
    assert best == several and best - one >= 3 * 1000 * 600


@pytest.mark.parametrize("stream", [False, True])
async def test_both_names_of_the_answers_length_are_clamped(start: Start, stream: bool) -> None:
    async with start(budget=BudgetSettings(per_request_usd=0.001)) as gateway:
        lengths = {"max_tokens": 50_000, "max_completion_tokens": 60_000}
        assert (await gateway.client.chat(SONNET, stream=stream, **lengths)).status == 200
        sent = gateway.up.requests[-1].json()
        for name in lengths:
            assert name not in sent or 16 <= sent[name] < 0.001 / 15e-6
        assert set(lengths) & set(sent)
