"""A guess is not the last word: what the upstream bills later puts the books right."""

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from gateway import MINI, SHORT, Gateway, Start, chat
from sophia.config import BudgetSettings, UpstreamModelSettings, UpstreamSettings
from sophia.core.rows import AttemptOutcome
from sophia.jobs.correct_costs import CostCorrection
from sophia.sandbox import ScriptedUpstream, ScriptStep


@pytest.fixture
async def gateway(start: Start) -> Any:
    """A Sophia whose requests do not ask for bills themselves."""
    async with start(deadlines=SHORT, reconcile_delays=()) as running:
        yield running


def resolver(gateway: Gateway) -> CostCorrection:
    upstreams = gateway.sophia.connections.by_name
    return CostCorrection(gateway.sophia.app.runtime.ledger, upstreams)


def questions(gateway: Gateway) -> int:
    return sum("/generation" in seen.path for seen in gateway.up.requests)


async def doubted(gateway: Gateway) -> AttemptOutcome:
    """Leave before the first content: the generation id is known, the cost is not."""
    gateway.up.script(MINI, ScriptStep(first_delay=0.2))
    async with gateway.client.connection(gateway.client.request(chat(stream=True))):
        while not gateway.up.requests:
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.02)
    (row,) = await gateway.settled(1)
    assert (row.state, row.cost_source) == ("unknown", "estimated") and row.generation_id
    return row


async def guessed(
    gateway: Gateway,
    model: str = MINI,
    step: ScriptStep = ScriptStep(cut_after=5),  # noqa: B008 - frozen
) -> AttemptOutcome:
    """Break off in mid-stream: what came is estimated."""
    gateway.up.script(MINI, step)
    answer = await gateway.client.chat(model, stream=True)
    assert not answer.done
    (row,) = await gateway.settled(1)
    assert (row.state, row.cost_source) == ("settled", "estimated") and row.generation_id
    return row


async def check_billed(gateway: Gateway, before: AttemptOutcome) -> None:
    """The books say what the upstream's bill says, and nothing is held."""
    (bill,) = gateway.up.bill.rows
    (row,) = await gateway.outcomes()
    assert row == replace(
        before,
        state="settled",
        cost_nano=bill.cost,
        cost_source="upstream",
        prompt_tokens=bill.prompt_tokens,
        completion_tokens=bill.completion_tokens,
        held_nano=0,
    )
    assert await gateway.standing() == (bill.cost / 1e9, 0.0)


async def test_a_doubt_is_settled_when_the_bill_appears(gateway: Gateway) -> None:
    before = await doubted(gateway)
    held = before.cost_nano / 1e9
    assert await gateway.standing() == (0.0, held)
    resolve = resolver(gateway)
    gateway.up.script("/v1/generation", ScriptStep(status=404))
    await resolve()
    assert await gateway.standing() == (0.0, held) and await gateway.outcomes() == [before]
    await resolve()
    await check_billed(gateway, before)


async def test_an_estimate_is_corrected_by_the_difference(gateway: Gateway) -> None:
    before = await guessed(gateway)
    assert await gateway.standing() == (before.cost_nano / 1e9, 0.0)
    await resolver(gateway)()
    await check_billed(gateway, before)


async def answered_without_usage(gateway: Gateway) -> AttemptOutcome:
    gateway.up.script(MINI, ScriptStep(no_usage=True))
    answer = await gateway.client.chat(MINI, max_tokens=500)
    assert answer.status == 200
    (row,) = await gateway.settled(1)
    assert (row.state, row.cost_source) == ("settled", "estimated") and row.generation_id
    return row


async def test_a_complete_answer_without_usage_holds_its_worst_case_until_the_bill(
    gateway: Gateway,
) -> None:
    """D4: an estimate that is too low would let others pass the budget's limit meanwhile."""
    before = await answered_without_usage(gateway)
    (intent,) = await gateway.rows("intents")
    worst, estimate = intent["held_nano"] / 1e9, before.cost_nano / 1e9
    assert await gateway.standing() == pytest.approx((estimate, worst - estimate))
    await resolver(gateway)()
    await check_billed(gateway, before)


async def test_the_worst_case_is_held_for_a_time_and_the_estimate_stays(start: Start) -> None:
    at_once = BudgetSettings(unknown_hold_minutes=0)
    async with start(deadlines=SHORT, reconcile_delays=(), budget=at_once) as gateway:
        before = await answered_without_usage(gateway)
        gateway.up.script("/v1/generation", ScriptStep(status=404))
        await resolver(gateway)()
        assert await gateway.outcomes() == [replace(before, cost_source="assumed", held_nano=0)]
        assert await gateway.standing() == (before.cost_nano / 1e9, 0.0)


async def test_a_bill_is_asked_for_once_more_only_while_it_is_open(gateway: Gateway) -> None:
    before = await guessed(gateway)
    resolve = resolver(gateway)
    for _ in range(3):
        await resolve()
    assert questions(gateway) == 1
    await check_billed(gateway, before)


async def test_what_was_corrected_stays_so_over_a_restart(start: Start) -> None:
    async with start(deadlines=SHORT, reconcile_delays=()) as gateway:
        before = await doubted(gateway)
    async with start() as gateway:
        assert await gateway.standing() == (0.0, before.cost_nano / 1e9)
        await resolver(gateway)()
        await check_billed(gateway, before)
    async with start() as gateway:
        await check_billed(gateway, before)


async def test_an_upstream_that_cannot_bill_is_not_asked(
    start: Start, up: ScriptedUpstream
) -> None:
    """The upstream of the scripts could tell, but is configured as one of the caller's own."""
    models = (UpstreamModelSettings(id="local/m", served_as=MINI, completion_usd_per_mtok=1.0),)
    place = UpstreamSettings(name="own", base_url=up.base_url, api_key="sk-or-test", models=models)
    said = {"id": "gen-1", "choices": [{"index": 0, "delta": {"content": "Hello"}}]}
    cut = ScriptStep(
        body=f"data: {json.dumps(said)}\n\n", headers={"Content-Type": "text/event-stream"}
    )
    async with start(deadlines=SHORT, upstreams=(place,)) as gateway:
        before = await guessed(gateway, "local/m", cut)
        await resolver(gateway)()
        assert questions(gateway) == 0
        assert await gateway.outcomes() == [before]
        assert await gateway.standing() == (before.cost_nano / 1e9, 0.0)
