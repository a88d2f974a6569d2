"""An attempt of unknown cost stays held for a time, then its probable cost counts as spent."""

import asyncio
import time
from typing import Any

import pytest

from gateway import MINI, SHORT, Gateway, Start
from sophia.config import BudgetSettings
from sophia.core.ids import first_id_at
from sophia.core.money import format_usd
from sophia.core.rows import AttemptIntent
from sophia.jobs.correct_costs import CostCorrection
from sophia.sandbox import ScriptStep
from sophia.tenants.budget import day_window

pytestmark = pytest.mark.parametrize("server", ["native"])
HELD, EXPECTED = 5_000_000, 70_000
AT_ONCE = BudgetSettings(unknown_hold_minutes=0)
NOW_ID = first_id_at(int(time.time() * 1000) - 60_000)


def settling(gateway: Gateway) -> CostCorrection:
    upstreams = gateway.sophia.connections.by_name
    return CostCorrection(gateway.sophia.app.runtime.ledger, upstreams)


async def leave_open(gateway: Gateway, attempt_id: int = NOW_ID, **more: Any) -> None:
    """Leave an intent without an outcome, as a process does that ends without notice."""
    (key,) = await gateway.rows("keys")
    fields = {"upstream": "openrouter", "expected_nano": EXPECTED, "model": MINI} | more
    await gateway.sophia.store.reserve(
        AttemptIntent(
            attempt_id=attempt_id,
            key_id=key["id"],
            window=day_window(time.time()),
            held_nano=HELD,
            at_ms=int(time.time() * 1000),
            **fields,
        )
    )


async def metrics(gateway: Gateway) -> dict[str, float]:
    page = (await gateway.client.get("/metrics", headers={})).body.decode()
    rows = [line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("sophia_")]
    return {name: float(value) for name, value in rows}


@pytest.mark.parametrize("expected", [EXPECTED, HELD * 2, None])
async def test_an_attempt_left_open_is_held_at_its_probable_cost(
    start: Start, expected: int | None
) -> None:
    """D23: it may have been sent, so it is neither free nor held in full for the day."""
    async with start() as gateway:
        await leave_open(gateway, expected_nano=expected)
    probable = min(HELD, expected or HELD)
    for _ in range(2):
        async with start() as gateway:
            (row,) = await gateway.settled(1)
            assert (row.state, row.cost_nano, row.failure) == ("unknown", probable, "crash")
            assert await gateway.standing() == (0.0, probable / 1e9)
            await settling(gateway)()
            assert await gateway.standing() == (0.0, probable / 1e9)
    async with start(budget=AT_ONCE) as gateway:
        await settling(gateway)()
        assert await gateway.standing() == (probable / 1e9, 0.0)
        (row,) = await gateway.outcomes()
        assert (row.state, row.cost_nano, row.cost_source) == ("settled", probable, "assumed")
        await settling(gateway)()
        assert await gateway.standing() == (probable / 1e9, 0.0)


async def test_a_bill_settles_what_a_crash_left_open(start: Start) -> None:
    """D23: the id is durable soon after the answer begins."""
    async with start() as gateway:
        gateway.up.script(MINI, ScriptStep(chunk_delay=0.01))
        await gateway.client.chat(stream=True)
        (bill,) = gateway.up.bill.rows
        await gateway.settled(1)
        (note,) = await gateway.rows("generations")
        assert note["generation_id"] == bill.generation_id
        await leave_open(gateway)
        gateway.sophia.store.note_generation(NOW_ID, bill.generation_id)
    async with start() as gateway:
        before = await gateway.standing()
        assert before == (bill.cost / 1e9, EXPECTED / 1e9)
        await settling(gateway)()
        assert await gateway.standing() == (bill.cost * 2 / 1e9, 0.0)
        found = await gateway.outcomes()
        assert [(row.cost_nano, row.cost_source) for row in found] == [(bill.cost, "upstream")] * 2


async def test_a_late_bill_replaces_an_assumed_cost(start: Start) -> None:
    async with start(budget=AT_ONCE, reconcile_delays=()) as gateway:
        gateway.up.script("/v1/generation", ScriptStep(status=404), times=1)
        await gateway.client.chat()
        (bill,) = gateway.up.bill.rows
        await leave_open(gateway)
        gateway.sophia.store.note_generation(NOW_ID, bill.generation_id)
    async with start(budget=AT_ONCE) as gateway:
        settle = settling(gateway)
        await settle()
        assert await gateway.standing() == ((bill.cost + EXPECTED) / 1e9, 0.0)
        await settle()
        assert await gateway.standing() == (bill.cost * 2 / 1e9, 0.0)


async def test_only_an_upstream_that_reports_costs_gets_notes(start: Start) -> None:
    async with start() as gateway:
        gateway.up.script(MINI, ScriptStep(chunk_delay=0.01), times=None)
        await gateway.client.chat(stream=True)
        assert len(await gateway.rows("generations")) == 1
        gateway.sophia.runtime.upstreams.default.can_fetch_usage = False
        await gateway.client.chat(stream=True)
        await gateway.settled(2)
        assert len(await gateway.rows("generations")) == 1


async def test_metrics_show_what_is_held(start: Start) -> None:
    async with start(deadlines=SHORT) as gateway:
        shown = await metrics(gateway)
        names = ("sophia_held_dollars", "sophia_running_attempts", "sophia_unknown_attempts")
        assert [shown[name] for name in names] == [0.0, 0.0, 0.0]
        gateway.up.script(MINI, ScriptStep(no_answer="hang"))
        running = asyncio.create_task(gateway.client.chat())
        while not gateway.up.requests:
            await asyncio.sleep(0.01)
        shown, (_, held) = await metrics(gateway), await gateway.standing()
        assert [shown[name] for name in names] == [held, 1.0, 0.0] and held > 0
        assert (await running).status == 504
        shown, (_, held) = await metrics(gateway), await gateway.standing()
        assert [shown[name] for name in names] == [held, 0.0, 1.0] and held > 0


async def test_a_refusal_says_how_much_is_held_and_until_when(start: Start) -> None:
    async with start() as gateway:
        await leave_open(gateway)
    async with start(budget=BudgetSettings(daily_usd=EXPECTED / 1e9)) as gateway:
        answer = await gateway.client.chat()
        assert answer.status == 402
        message = answer.error["message"]
        assert f"{format_usd(EXPECTED)} of the budget is held for calls whose cost" in message
        (row,) = await gateway.outcomes()
        until = time.strftime("%H:%M", time.gmtime(row.at_ms / 1000 + 3600))
        assert f"or {until} UTC." in message and "retry-after" in answer.headers
