"""How long, how fast and how surely models answer moves decisions, and is told with its doubt."""

import asyncio
import json
from typing import Any

import pytest

from gateway import NEMO, Gateway, ServerKind
from sophia.cli import arms, models
from sophia.compose.learning import history_of, roll_back
from sophia.testing import Step
from teaching import QUESTION, SOON, replayed, taught


@pytest.fixture
def server() -> ServerKind:
    """What is learned does not depend on the server; the other files try both."""
    return "native"


async def candidates(gateway: Gateway, **more: Any) -> dict[str, dict[str, Any]]:
    """Return what is told of each model that the learned policy may take."""
    body = {"model": "sophia/learned", "messages": [{"role": "user", "content": QUESTION}], **more}
    told = (await gateway.client.post("/v1/route", body)).json
    return {one["model"]: one for one in told["candidates"]}


async def test_a_model_that_fails_is_worth_less_and_decisions_still_come_out_the_same(
    start: Any,
) -> None:
    """Though how arms answer is no lesson: what moved a decision is kept with it."""
    async with start(learning=SOON) as gateway:
        await taught(gateway, 25, other=0.8)
        before = (await candidates(gateway))[NEMO]
        for _ in range(12):
            gateway.up.script(NEMO, Step(status=503))
            assert (await gateway.client.chat(NEMO, text=QUESTION)).status != 200
        after = (await candidates(gateway))[NEMO]
        assert after["fail"] > 0.4 and before["fail"] < 0.05
        assert after["failure_range"][0] < after["fail"] < after["failure_range"][1]
        assert after["quality"] == before["quality"]
        assert after["utility"] < before["utility"] - 0.08
        await taught(gateway, 10, other=0.8)
        result = await replayed(gateway)
        assert result.same >= 10 and result.different == ()


async def test_who_hangs_up_is_no_failure_of_the_model(start: Any) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 22, other=0.8)
        before = (await candidates(gateway))[NEMO]["fail"]
        for _ in range(5):
            gateway.up.script(NEMO, Step(chunk_delay=0.05))
            body = {"model": NEMO, "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
            async with gateway.client.connection(gateway.client.request(body)) as reader:
                await reader.readuntil(b"data: ")
        async with asyncio.timeout(5):
            while sum(one.failure == "client_gone" for one in await gateway.outcomes()) < 5:
                await asyncio.sleep(0.02)
        assert (await candidates(gateway))[NEMO]["fail"] == before


async def test_length_and_time_are_learned_and_told(start: Any) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 22, other=0.8)
        first = (await candidates(gateway))[NEMO]
        for number in range(15):
            gateway.up.script(NEMO, Step(text="word " * 900, delay=0.15))
            await gateway.client.chat(NEMO, text=f"{number} {QUESTION}")
        told = await candidates(gateway)
        long, others = told[NEMO], [one for name, one in told.items() if name != NEMO]
        assert long["expected_usd"] == long["cost_usd"] > 2.0 * first["cost_usd"]
        assert 0 < long["cost_sd_usd"] < long["cost_usd"]
        assert long["p50_range_ms"][0] < long["p50_ms"] < long["p50_range_ms"][1]
        assert long["p50_ms"] < long["p95_ms"]
        assert all(one["p50_ms"] < long["p50_ms"] for one in others if one["p50_ms"] < 150)


async def test_a_stream_is_late_by_its_first_content_and_a_whole_answer_by_its_end(start: Any) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 22, other=0.8)
        for number in range(15):
            gateway.up.script(NEMO, Step(text="word " * 40, chunk_delay=0.01))
            await gateway.client.chat(NEMO, text=f"{number} {QUESTION}", stream=True)
        limit = {"max_latency_ms": 60_000}
        whole = (await candidates(gateway, sophia=limit))[NEMO]
        stream = (await candidates(gateway, sophia=limit, stream=True))[NEMO]
        assert stream["p50_ms"] < whole["p50_ms"] and stream["late"] <= whole["late"]


async def test_how_arms_answer_outlives_the_process(start: Any) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 22, other=0.8)
        for number in range(40):
            gateway.up.script(NEMO, Step(text="word " * 900))
            await gateway.client.chat(NEMO, text=f"{number} {QUESTION}")
        before = (await candidates(gateway))[NEMO]
    async with start(learning=SOON) as gateway:
        after = (await candidates(gateway))[NEMO]
        assert after["cost_usd"] == before["cost_usd"] and after["p95_ms"] == before["p95_ms"]


async def test_going_back_does_not_forget_how_models_answer(start: Any) -> None:
    """Scores may have been wrong; seconds and tokens were not."""
    async with start(learning=SOON) as gateway:
        await taught(gateway, 22, other=0.8)
        await gateway.sophia.learner.keeper()
        for number in range(15):
            gateway.up.script(NEMO, Step(text="word " * 900))
            await gateway.client.chat(NEMO, text=f"{number} {QUESTION}")
        before = gateway.sophia.learner.insight.live.habits.saved()
        first = history_of(gateway.folder)[0].id
        await roll_back(SOON, gateway.folder, gateway.sophia.store, first, 1)
        await gateway.sophia.learner.keeper()
        live = gateway.sophia.learner.insight.live
        assert live.base == history_of(gateway.folder)[-1].id
        assert live.habits.saved() == before and live.habits.seen(NEMO) >= 15


async def test_the_command_line_tells_what_is_known_of_each_arm(
    start: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Quality, cost, time and failures, each with its doubt; also beside the models as JSON."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    async with start(learning=SOON) as gateway:
        await taught(gateway, 22, other=0.8)
        for number in range(30):
            gateway.up.script(NEMO, Step(text="word " * 900))
            await gateway.client.chat(NEMO, text=f"{number} {QUESTION}")
        await gateway.client.chat(NEMO, text=QUESTION, tools=[tool])
    folder = str(gateway.folder)
    arms.show(None, True, None, folder)
    told = {one["arm"]: one for one in json.loads(capsys.readouterr().out)}
    assert told[NEMO]["answers"] >= 30 and told[f"{NEMO}#tools"]["answers"] == 1
    assert told[NEMO]["cost_sd_usd"] < 0.5 * told[NEMO]["expected_usd"]
    assert told[NEMO]["p50_ms"] < told[NEMO]["p95_ms"]
    assert told[NEMO]["failure_range"][0] < told[NEMO]["failure_rate"] < told[NEMO]["failure_range"][1]
    assert not any(name.endswith("#reasoning") for name in told)
    arms.show(None, False, None, folder)
    assert "±" in capsys.readouterr().out
    models.show(models.Wanted(search=NEMO), True, None, folder)
    (model, *_) = [one for one in json.loads(capsys.readouterr().out) if one["id"] == NEMO]
    assert [one["arm"] for one in model["arms"]] == [NEMO, f"{NEMO}#tools"]


async def test_what_a_key_taught_is_told_of_that_key(
    start: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 30, other=0.0)
        (key_id,) = gateway.sophia.learner.insight.live.tenants
    seen = []
    for name in (None, key_id):
        arms.show(name, True, None, str(gateway.folder))
        seen.append(max(one["quality"] for one in json.loads(capsys.readouterr().out)))
    assert seen[1] < seen[0]
