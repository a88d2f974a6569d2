"""How long, how fast and how surely models answer moves decisions, and is told with its doubt."""

import asyncio
import json
from typing import Any

import pytest

from feedback_traffic import QUESTION, SOON, read_history, replayed, rolled_back, taught
from gateway import NEMO, Gateway, ServerKind, Start
from sophia.cli.commands import models, policy
from sophia.sandbox import ScriptStep
from sophia.serving.attempts.targets import health
from sophia.tenants.keys import parse_key_id


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
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though how arms answer is no lesson: what moved a decision is kept with it."""
    # Otherwise it would be left out, and not rated at all.
    monkeypatch.setattr(health, "FAILURES_IN_A_ROW", 1000)
    async with start(learning=SOON) as gateway:
        await taught(gateway, 25, other=0.8)
        before = (await candidates(gateway))[NEMO]
        for _ in range(12):
            gateway.up.script(NEMO, ScriptStep(status=503))
            assert (await gateway.client.chat(NEMO, text=QUESTION)).status != 200
        after = (await candidates(gateway))[NEMO]
        assert after["fail"] > 0.4 and before["fail"] < 0.05
        assert after["failure_range"][0] < after["fail"] < after["failure_range"][1]
        assert after["quality"] == before["quality"]
        assert after["utility"] < before["utility"] - 0.08
        await taught(gateway, 10, other=0.8)
        result = await replayed(gateway)
        assert result.identical >= 10 and result.different == ()


async def test_who_hangs_up_is_no_failure_of_the_model(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 22, other=0.8)
        before = (await candidates(gateway))[NEMO]["fail"]
        for _ in range(5):
            gateway.up.script(NEMO, ScriptStep(chunk_delay=0.05))
            body = {
                "model": NEMO,
                "stream": True,
                "messages": [{"role": "user", "content": QUESTION}],
            }
            async with gateway.client.connection(gateway.client.request(body)) as reader:
                await reader.readuntil(b"data: ")
        async with asyncio.timeout(5):
            while sum(one.failure == "client_gone" for one in await gateway.outcomes()) < 5:
                await asyncio.sleep(0.02)
        assert (await candidates(gateway))[NEMO]["fail"] == before


async def test_length_and_time_are_learned_and_told(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 22, other=0.8)
        first = (await candidates(gateway))[NEMO]
        for number in range(8):
            gateway.up.script(NEMO, ScriptStep(text="word " * 900, delay=0.15))
            await gateway.client.chat(NEMO, text=f"{number} {QUESTION}")
        told = await candidates(gateway)
        long, others = told[NEMO], [one for name, one in told.items() if name != NEMO]
        assert long["expected_usd"] == long["cost_usd"] > 2.0 * first["cost_usd"]
        assert 0 < long["cost_sd_usd"] < long["cost_usd"]
        assert long["p50_range_ms"][0] < long["p50_ms"] < long["p50_range_ms"][1]
        assert long["p50_ms"] < long["p95_ms"]
        assert all(one["p50_ms"] < long["p50_ms"] for one in others if one["p50_ms"] < 150)


async def test_a_stream_is_late_by_its_first_content_and_a_whole_answer_by_its_end(
    start: Start,
) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 22, other=0.8)
        for number in range(8):
            gateway.up.script(NEMO, ScriptStep(text="word " * 12, chunk_delay=0.01))
            await gateway.client.chat(NEMO, text=f"{number} {QUESTION}", stream=True)
        limit = {"max_latency_ms": 60_000}
        whole = (await candidates(gateway, sophia=limit))[NEMO]
        stream = (await candidates(gateway, sophia=limit, stream=True))[NEMO]
        assert stream["p50_ms"] < whole["p50_ms"] and stream["late"] <= whole["late"]


async def test_how_arms_answer_outlives_the_process(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        await taught(gateway, 22, other=0.8)
        for number in range(40):
            gateway.up.script(NEMO, ScriptStep(text="word " * 900))
            await gateway.client.chat(NEMO, text=f"{number} {QUESTION}")
        before = (await candidates(gateway))[NEMO]
    async with start(learning=SOON) as gateway:
        after = (await candidates(gateway))[NEMO]
        assert after["cost_usd"] == before["cost_usd"] and after["p95_ms"] == before["p95_ms"]


async def test_going_back_does_not_forget_how_models_answer(start: Start) -> None:
    """Scores may have been wrong; seconds and tokens were not."""
    async with start(learning=SOON) as gateway:
        await taught(gateway, 22, other=0.8)
        await gateway.sophia.learning.snapshots()
        for number in range(15):
            gateway.up.script(NEMO, ScriptStep(text="word " * 900))
            await gateway.client.chat(NEMO, text=f"{number} {QUESTION}")
        before = gateway.sophia.learning.routing.policy.performance.dump_state()
        first = read_history(gateway)[0].id
        await rolled_back(gateway, first)
        await gateway.sophia.learning.snapshots()
        live = gateway.sophia.learning.routing.policy
        assert live.snapshot_id == read_history(gateway)[-1].id
        assert live.performance.dump_state() == before and live.performance.count_timed(NEMO) >= 15


async def test_the_command_line_tells_what_is_known_of_each_arm(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    """Quality, cost, time and failures, each with its doubt; also beside the models as JSON."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    async with start(learning=SOON) as gateway:
        await taught(gateway, 22, other=0.8)
        for number in range(30):
            gateway.up.script(NEMO, ScriptStep(text="word " * 900))
            await gateway.client.chat(NEMO, text=f"{number} {QUESTION}")
        await gateway.client.chat(NEMO, text=QUESTION, tools=[tool])
    folder = str(gateway.folder)
    await asyncio.to_thread(policy.show_policy, json=True, data_dir=folder)
    told = {one["arm"]: one for one in json.loads(capsys.readouterr().out)}
    assert told[NEMO]["answers"] >= 30 and told[f"{NEMO}#tools"]["answers"] == 1
    assert told[NEMO]["cost_sd_usd"] < 0.5 * told[NEMO]["expected_usd"]
    assert told[NEMO]["p50_ms"] < told[NEMO]["p95_ms"]
    assert (
        told[NEMO]["failure_range"][0] < told[NEMO]["failure_rate"] < told[NEMO]["failure_range"][1]
    )
    assert not any(name.endswith("#reasoning") for name in told)
    await asyncio.to_thread(policy.show_policy, data_dir=folder)
    assert "±" in capsys.readouterr().out
    await asyncio.to_thread(models.list_models, search=NEMO, json=True, data_dir=folder)
    (model, *_) = [one for one in json.loads(capsys.readouterr().out) if one["id"] == NEMO]
    assert [one["arm"] for one in model["arms"]] == [NEMO, f"{NEMO}#tools"]


async def test_what_a_key_taught_is_told_of_that_key(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    """The only key with outcomes needs no naming."""
    async with start(learning=SOON) as gateway:
        await taught(gateway, 30, other=0.0)
        key_id = parse_key_id(gateway.client.key.encode())
    seen = []
    for name in ("another", None, key_id):
        show = policy.show_policy
        await asyncio.to_thread(show, name, json=True, data_dir=str(gateway.folder))
        seen.append(max(one["quality"] for one in json.loads(capsys.readouterr().out)))
    assert seen[0] > seen[1] == seen[2]
