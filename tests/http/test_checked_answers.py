"""Answers are checked before the caller has them, and a better model is asked when that pays."""

import asyncio
import json
from typing import Any

import pytest

from gateway import FLASH, KNOWN_POOL, MINI, NEMO, SONNET, Answer, Gateway, Start
from sophia.config import BudgetSettings, CascadeSettings, DeadlineSettings, RoutingSettings
from sophia.sandbox import ScriptStep

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FORM = {"type": "json_schema", "json_schema": {"name": "count", "schema": SCHEMA}}
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
GOOD = ScriptStep(text='{"n": 3}')
BAD = ScriptStep(text="There are three.")
SORRY = ScriptStep(text="I'm sorry, but I can't help with that.")


async def ask(gateway: Gateway, cascade: str | None = "check", **fields: Any) -> Answer:
    """Ask MINI, with SONNET as the better substitute."""
    hints = {} if cascade is None else {"sophia": {"cascade": cascade} | fields.pop("hints", {})}
    fields = {"models": [MINI, SONNET], "max_tokens": 500} | fields
    return await gateway.client.chat(MINI, **hints, **fields)


async def check_escalated(gateway: Gateway, answer: Answer, check: str) -> None:
    """The caller has the better answer, and every attempt is paid and explained."""
    assert answer.status == 200 and answer.complete
    assert answer.headers["x-sophia-model"] == SONNET
    assert answer.headers["x-sophia-attempts"] == "2"
    whole = answer.headers["content-type"] == "application/json"
    told = (answer.json if whole else answer.chunks[-1])["sophia"]
    assert told["model"] == SONNET and told["attempts"] == 2
    assert told["reason"].startswith(f"{MINI} was asked first, but ")
    first, second = await gateway.settled(2)
    assert (first.model, first.state, first.failure) == (MINI, "settled", f"check:{check}")
    assert (second.model, second.state, second.failure) == (SONNET, "settled", None)
    assert first.cost_nano > 0 and first.cost_nano + second.cost_nano == gateway.up.bill.total
    assert told["cost_usd"] == pytest.approx((first.cost_nano + second.cost_nano) / 1e9)
    assert await gateway.standing() == ((first.cost_nano + second.cost_nano) / 1e9, 0)
    planned = {row["attempt_id"]: row["plan"] for row in await gateway.rows("intents")}
    assert planned[first.attempt_id] and planned[second.attempt_id] is None


async def verdicts(gateway: Gateway, answer: Answer) -> list[tuple[str, float, str]]:
    """Return what is kept of the checks: channel, score and label."""
    await gateway.sophia.app.runtime.cascade.feedback.close()  # type: ignore[union-attr]
    id = answer.headers["x-sophia-decision-id"]
    told = (await gateway.client.get(f"/v1/decisions/{id}")).json
    return [(one["channel"], one["score"], one["label"]) for one in told["feedback"]]


async def test_an_answer_that_misses_its_schema_is_asked_of_a_better_model(sophia: Gateway) -> None:
    sophia.up.script(MINI, BAD)
    sophia.up.script(SONNET, GOOD)
    answer = await ask(sophia, response_format=FORM)
    assert answer.text == '{"n": 3}'
    await check_escalated(sophia, answer, "schema")
    assert "is not JSON" in answer.json["sophia"]["reason"]
    assert await verdicts(sophia, answer) == [("validator", 0.0, "schema")]
    id = answer.headers["x-sophia-decision-id"]
    told = (await sophia.client.get(f"/v1/decisions/{id}")).json
    assert told["served_by"] == SONNET
    assert [one["failure"] for one in told["attempts_made"]] == ["check:schema", None]


async def test_an_answer_that_passes_is_given_as_it_is(sophia: Gateway) -> None:
    sophia.up.script(MINI, GOOD)
    answer = await ask(sophia, response_format=FORM)
    assert answer.headers["x-sophia-model"] == MINI and answer.text == '{"n": 3}'
    assert len(sophia.up.requests) == 1
    (row,) = await sophia.settled(1)
    assert row.failure is None and row.cost_nano == sophia.up.bill.total
    assert await verdicts(sophia, answer) == [("validator", 1.0, "passed")]


@pytest.mark.parametrize("cascade", ["off", None])
async def test_nothing_is_checked_that_was_not_asked_for(
    sophia: Gateway, cascade: str | None
) -> None:
    sophia.up.script(MINI, BAD)
    answer = await ask(sophia, cascade, response_format=FORM)
    assert answer.headers["x-sophia-model"] == MINI and answer.text == "There are three."
    assert await verdicts(sophia, answer) == []


@pytest.mark.parametrize("arguments", ['{"city": ', '{"town": "Ulm"}', "[]"])
async def test_a_tool_call_that_cannot_be_made_is_asked_of_a_better_model(
    sophia: Gateway, arguments: str
) -> None:
    sophia.up.script(MINI, ScriptStep(tool_arguments=arguments))
    sophia.up.script(SONNET, ScriptStep(tool_arguments='{"city": "Ulm"}'))
    answer = await ask(sophia, tools=[TOOL], tool_choice="required")
    (call,) = answer.json["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "Ulm"}
    await check_escalated(sophia, answer, "tool_call")


async def test_a_refusal_is_asked_of_a_better_model(sophia: Gateway) -> None:
    sophia.up.script(MINI, SORRY)
    answer = await ask(sophia)
    await check_escalated(sophia, answer, "refusal")
    assert await verdicts(sophia, answer) == [("validator", 0.0, "refusal")]


async def test_an_answer_that_was_cut_off_is_asked_of_a_better_model(sophia: Gateway) -> None:
    """Unless the caller set the length."""
    sophia.up.script(MINI, ScriptStep(finish_reason="length"), times=2)
    kept = await ask(sophia)
    assert kept.headers["x-sophia-model"] == MINI
    await sophia.settled(1)
    answer = await ask(sophia, max_tokens=None)
    assert answer.headers["x-sophia-model"] == SONNET
    assert [row.failure for row in await sophia.settled(3)] == [None, "check:truncation", None]


async def test_the_purse_pays_both_answers_or_only_the_first(sophia: Gateway) -> None:
    """The total of all attempts stays within what the caller allows for the request."""
    for ceiling, model in ((0.02, SONNET), (0.0007, MINI)):
        sophia.up.script(MINI, SORRY)
        answer = await ask(sophia, hints={"max_cost_usd": ceiling})
        assert answer.headers["x-sophia-model"] == model, answer.body
        assert float(answer.headers["x-sophia-cost-usd"]) <= ceiling


@pytest.mark.parametrize("limit", ["daily", "each"])
async def test_a_keys_own_limits_hold_for_all_attempts_together(
    sophia: Gateway, limit: str
) -> None:
    sophia.up.script(MINI, SORRY)
    key = await sophia.new_key(**{limit: 0.0007})
    answer = await ask(sophia, key=key)
    assert answer.headers["x-sophia-model"] == MINI and answer.status == 200
    assert len(sophia.up.requests) == 1


async def test_a_better_model_answers_shorter_when_the_purse_is_small(start: Start) -> None:
    """What is left after the first answer clamps the second."""
    async with start(budget=BudgetSettings(per_request_usd=0.01)) as gateway:
        gateway.up.script(MINI, SORRY)
        answer = await ask(gateway, max_tokens=None)
        assert answer.headers["x-sophia-model"] == SONNET
        assert gateway.up.requests[-1].json()["max_tokens"] < 700
        intents = sorted(await gateway.rows("intents"), key=lambda row: row["attempt_id"])
        first, _ = await gateway.settled(2)
        assert first.cost_nano + intents[1]["held_nano"] <= 10_000_000


async def test_an_escalation_that_does_not_pay_is_left(start: Start) -> None:
    """The gain at the value of a good answer must be over the cost of the next."""
    async with start(cascade=CascadeSettings(value_usd=0.000001)) as gateway:
        gateway.up.script(MINI, SORRY)
        answer = await ask(gateway)
        assert answer.headers["x-sophia-model"] == MINI
        assert len(gateway.up.requests) == 1
        assert await verdicts(gateway, answer) == [("validator", 0.0, "refusal")]


async def test_a_worse_model_is_never_asked(sophia: Gateway) -> None:
    sophia.up.script(MINI, ScriptStep(text='{"n": "three"}'))
    answer = await ask(sophia, models=[MINI, NEMO], response_format=FORM)
    assert answer.status == 200 and len(sophia.up.requests) <= 2


@pytest.mark.parametrize(
    "step",
    [ScriptStep(status=503), ScriptStep(status=400, message="bad"), ScriptStep(no_answer="close")],
)
async def test_the_first_answer_is_given_when_the_better_model_fails(
    sophia: Gateway, step: ScriptStep
) -> None:
    sophia.up.script(MINI, SORRY)
    sophia.up.script(SONNET, step, times=2)
    answer = await ask(sophia)
    assert answer.status == 200 and "sorry" in answer.text
    assert answer.headers["x-sophia-model"] == MINI == answer.json["sophia"]["model"]
    rows = await sophia.settled(2)
    # A call on a kept connection that ends at once is repeated.
    assert list(dict.fromkeys(row.model for row in rows)) == [MINI, SONNET]
    id = answer.headers["x-sophia-decision-id"]
    assert (await sophia.client.get(f"/v1/decisions/{id}")).json["served_by"] == MINI
    page = (await sophia.client.get("/metrics", headers={})).body.decode()
    (line,) = [one for one in page.splitlines() if one.startswith("openrouter_requests_total{")]
    assert 'status="200"' in line and f'model="{MINI}"' in line and line.endswith(" 1.0")


async def test_the_last_answer_is_given_when_none_passes(sophia: Gateway) -> None:
    sophia.up.script("*", SORRY, times=None)
    answer = await ask(sophia)
    assert answer.status == 200 and answer.headers["x-sophia-model"] == SONNET
    assert [row.failure for row in await sophia.settled(2)] == ["check:refusal", None]


async def test_sophia_checks_its_own_choices_when_it_is_told_to(start: Start) -> None:
    async with start(routing=RoutingSettings(pool=KNOWN_POOL, cascade="auto")) as gateway:
        gateway.up.script("*", SORRY, times=1)
        answer = await gateway.client.chat("sophia/auto")
        assert answer.headers["x-sophia-attempts"] == "2" and "sorry" not in answer.text
        gateway.up.script("*", SORRY, times=3)
        for fields in (
            {"model": MINI},
            {"model": "sophia/auto", "stream": True},
            {"model": "sophia/auto", "sophia": {"cascade": "off"}},
        ):
            answer = await gateway.client.post(
                "/v1/chat/completions", {"messages": [{"role": "user", "content": "Why?"}]} | fields
            )
            assert answer.headers["x-sophia-attempts"] == "1"


async def test_a_strict_stream_is_held_back_until_it_passes(sophia: Gateway) -> None:
    sophia.up.script(MINI, BAD)
    sophia.up.script(SONNET, GOOD)
    answer = await ask(sophia, "strict", response_format=FORM, stream=True)
    assert answer.done and answer.text == '{"n": 3}'
    await check_escalated(sophia, answer, "schema")


async def test_a_stream_is_not_held_back_for_mere_checks(sophia: Gateway) -> None:
    sophia.up.script(MINI, BAD)
    answer = await ask(sophia, "check", response_format=FORM, stream=True)
    assert answer.done and answer.text == "There are three."


@pytest.mark.parametrize("how", ["cut_after", "reset_after"])
async def test_a_strict_stream_that_breaks_off_goes_to_another_model(
    sophia: Gateway, how: str
) -> None:
    """Nothing of it was given out, so nobody sees the break."""
    sophia.up.script(MINI, ScriptStep(**{how: 3}))
    answer = await ask(sophia, "strict", stream=True)
    assert answer.done and answer.headers["x-sophia-model"] == SONNET
    first, second = await sophia.settled(2)
    assert (first.state, first.failure) == ("settled", "cut")
    assert first.cost_source == "estimated" and first.cost_nano > 0
    assert second.failure is None


async def test_a_strict_stream_of_which_every_model_breaks_off_is_an_error(sophia: Gateway) -> None:
    sophia.up.script("*", ScriptStep(cut_after=3), times=None)
    answer = await ask(sophia, "strict", stream=True)
    assert answer.status == 502
    assert [one["model"] for one in answer.error["metadata"]["attempts"]] == [MINI, SONNET]
    await sophia.settled(2)


async def test_a_strict_stream_gives_the_first_answer_when_the_better_model_fails(
    sophia: Gateway,
) -> None:
    sophia.up.script(MINI, SORRY)
    sophia.up.script(SONNET, ScriptStep(status=503))
    answer = await ask(sophia, "strict", stream=True)
    assert answer.done and "sorry" in answer.text
    assert answer.headers["x-sophia-model"] == MINI
    assert answer.headers["x-sophia-attempts"] == "2"
    assert answer.chunks[-1]["sophia"]["attempts"] == 2


async def test_a_caller_who_leaves_a_held_stream_pays_for_what_was_made(sophia: Gateway) -> None:
    """The upstream's connection is closed at once, and the bill is settled."""
    sophia.up.script(MINI, ScriptStep(stall_after=2))
    body = {
        "model": MINI,
        "stream": True,
        "sophia": {"cascade": "strict"},
        "max_tokens": 500,
        "messages": [{"role": "user", "content": "Why?"}],
    }
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await sophia.client.post("/v1/chat/completions", body)
    (row,) = await sophia.settled(1)
    assert row.failure == "client_gone" and row.model == MINI


async def test_an_answer_too_long_to_hold_is_given_unchecked(sophia: Gateway) -> None:
    message = {"role": "assistant", "content": "long " * 2_000_000}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    sophia.up.script(MINI, ScriptStep(body={"id": "gen-x", "choices": [choice]}))
    answer = await ask(sophia, response_format={"type": "json_object"})
    assert answer.status == 200 and answer.headers["x-sophia-model"] == MINI
    assert len(answer.text) == 10_000_000
    assert await verdicts(sophia, answer) == []


async def test_what_is_held_for_the_first_answer_is_free_for_the_second(sophia: Gateway) -> None:
    """The key's budget covers the second in full, once the first one's hold is its real cost."""
    sophia.up.script(MINI, SORRY, times=2)
    await ask(sophia)
    await sophia.settled(2)
    first, second = sorted(await sophia.rows("intents"), key=lambda row: row["attempt_id"])
    cost = (await sophia.outcomes())[0].cost_nano
    assert first["held_nano"] > 2 * cost
    key = await sophia.new_key(daily=(second["held_nano"] + 2 * cost) / 1e9)
    answer = await ask(sophia, key=key)
    assert answer.headers["x-sophia-model"] == SONNET
    assert sophia.up.requests[-1].json()["max_tokens"] == 500


async def test_no_more_models_are_asked_than_the_settings_allow(start: Start) -> None:
    async with start(
        routing=RoutingSettings(pool=KNOWN_POOL, cascade="auto", max_attempts=1)
    ) as gateway:
        gateway.up.script("*", SORRY, times=None)
        answer = await gateway.client.chat("sophia/auto")
        assert answer.status == 200 and len(gateway.up.requests) == 1


async def test_no_model_is_asked_when_time_is_short(start: Start) -> None:
    clocks = DeadlineSettings(whole_s=1.3, total_s=1.3, request_s=1.3)
    async with start(deadlines=clocks) as gateway:
        gateway.up.script(MINI, ScriptStep(text=SORRY.text, delay=0.4))
        answer = await ask(gateway)
        assert answer.headers["x-sophia-model"] == MINI and "sorry" in answer.text


async def test_what_broke_off_is_replaced_at_any_price(start: Start) -> None:
    """There is no answer to keep, so this is a failover like any other."""
    async with start(cascade=CascadeSettings(value_usd=0.000001)) as gateway:
        gateway.up.script(MINI, ScriptStep(cut_after=3))
        answer = await ask(gateway, "strict", stream=True)
        assert answer.done and answer.headers["x-sophia-model"] == SONNET


async def test_the_latest_whole_answer_is_kept(sophia: Gateway) -> None:
    for model, step in ((MINI, SORRY), (FLASH, SORRY), (SONNET, ScriptStep(status=503))):
        sophia.up.script(model, step)
    answer = await ask(sophia, models=[MINI, FLASH, SONNET])
    assert answer.headers["x-sophia-model"] == FLASH and "sorry" in answer.text
    failures = [row.failure for row in await sophia.settled(3)]
    assert failures == ["check:refusal", "check:refusal", "status:503"]


async def test_a_verdict_is_about_the_model_that_was_decided_on(sophia: Gateway) -> None:
    """What a stand-in answers says nothing of the decision's own model."""
    sophia.up.script(MINI, ScriptStep(status=503))
    sophia.up.script(SONNET, SORRY)
    answer = await ask(sophia)
    assert answer.headers["x-sophia-model"] == SONNET
    assert await verdicts(sophia, answer) == []


async def test_the_router_learns_from_what_checks_find(sophia: Gateway) -> None:
    """A verdict of Sophia's own is a lesson about the model whose answer it was."""
    sophia.up.script("*", SORRY)
    answer = await sophia.client.chat("sophia/auto", sophia={"cascade": "check"})
    first, _ = await sophia.settled(2)
    assert await verdicts(sophia, answer) == [("validator", 0.0, "refusal")]
    (lesson,) = await sophia.rows("lessons")
    assert lesson["arm"] == first.model != answer.headers["x-sophia-model"]
