"""Answers are checked before the caller has them, and a better model is asked when that pays."""

import json
from typing import Any

import pytest

from gateway import MINI, NEMO, SONNET, Answer, Gateway
from sophia.config import Budget, CascadeSettings, Routing
from sophia.testing import Step

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
GOOD = Step(text='{"n": 3}')
BAD = Step(text="There are three.")
SORRY = Step(text="I'm sorry, but I can't help with that.")


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


async def verdicts(gateway: Gateway, answer: Answer) -> list[tuple[str, float, str]]:
    """Return what is kept of the checks: channel, score and label."""
    await gateway.sophia.front.desk.checking.verdicts.close()  # type: ignore[union-attr]
    id = answer.headers["x-sophia-decision-id"]
    told = (await gateway.client.get(f"/v1/decisions/{id}")).json
    return [(one["channel"], one["score"], one["label"]) for one in told["feedback"]]


async def test_an_answer_that_misses_its_schema_is_asked_of_a_better_model(
    sophia: Gateway,
) -> None:
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
