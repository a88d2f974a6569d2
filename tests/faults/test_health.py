"""Health at work: a model that fails is ejected, tried again, and seen from outside."""

import asyncio
import json
from functools import partial

import pytest
from stage import asked, check_clean

from gateway import FLASH, KNOWN_POOL, MINI, NEMO, SHORT, Gateway, Start
from sophia.cli.commands.models_live import show_health
from sophia.config import RoutingSettings
from sophia.sandbox import ScriptStep
from sophia.serving.attempts.targets import health

STREAMS = pytest.mark.parametrize("stream", [False, True])
DOWN = ScriptStep(status=503)


@STREAMS
async def test_a_model_that_is_down_is_not_asked_first_again(
    gateway: Gateway, stream: bool
) -> None:
    """At most 1.2 attempts for a request once it is ejected."""
    gateway.up.script(MINI, DOWN, times=None)
    for _ in range(health.FAILURES_IN_A_ROW):
        check_clean(await asked(gateway, stream))
    before = len(gateway.up.requests)
    for _ in range(30):
        answer = await asked(gateway, stream)
        check_clean(answer, NEMO, 1)
    assert len(gateway.up.requests) - before <= 1.2 * 30
    told = (answer.chunks[-1] if stream else answer.json)["sophia"]["reason"]
    assert f"{MINI} is ejected after status:503; the next trial is in " in told


async def test_one_request_tries_it_again_after_a_while(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "EJECTION_SECONDS", 0.2)
    gateway.up.script(MINI, DOWN, times=health.FAILURES_IN_A_ROW)
    for _ in range(health.FAILURES_IN_A_ROW):
        await asked(gateway, False)
    check_clean(await asked(gateway, False), NEMO, 1)
    await asyncio.sleep(0.25)
    gateway.up.script(MINI, ScriptStep(first_delay=0.1))
    answers = await asyncio.gather(*(asked(gateway, True) for _ in range(8)))
    models = [answer.headers["x-sophia-model"] for answer in answers]
    assert models.count(MINI) == 1, "one live trial, the others go on to the substitute"
    check_clean(await asked(gateway, False), MINI, 1)


@STREAMS
async def test_an_only_model_is_asked_whatever_its_health(gateway: Gateway, stream: bool) -> None:
    """With nothing else to ask, an answer may come; a refusal comes at least from the source."""
    gateway.up.script(MINI, DOWN, times=health.FAILURES_IN_A_ROW)
    for _ in range(health.FAILURES_IN_A_ROW):
        assert (await gateway.client.chat(stream=stream)).status == 429
    check_clean(await gateway.client.chat(stream=stream), MINI, 1)


async def test_at_most_half_of_a_chain_is_ejected(gateway: Gateway) -> None:
    chain = [MINI, NEMO, FLASH]
    for model in chain:
        gateway.up.script(model, DOWN, times=health.FAILURES_IN_A_ROW)
    for _ in range(health.FAILURES_IN_A_ROW):
        assert (await gateway.client.chat(models=chain)).status == 429
    before = len(gateway.up.requests)
    assert (await gateway.client.chat(models=chain)).status == 200
    assert len(gateway.up.requests) - before == 1


@pytest.mark.parametrize("status", [401, 402])
async def test_a_refused_key_stops_what_is_behind_it_until_it_answers(
    gateway: Gateway, status: int
) -> None:
    gateway.up.script("*", ScriptStep(status=status), times=2)
    assert (await asked(gateway, False)).status == 502
    health_of = (await gateway.client.get("/v1/models/health")).json["data"]
    assert [(row["model"], row["state"]) for row in health_of][:1] == [(None, "ejected")]
    before = len(gateway.up.requests)
    assert (await asked(gateway, False)).status == 200
    assert len(gateway.up.requests) - before == 1
    assert all(
        row["state"] == "healthy"
        for row in (await gateway.client.get("/v1/models/health")).json["data"]
        if row["model"] is None
    )


async def test_a_rate_limit_is_waited_for_when_nothing_else_is_there(gateway: Gateway) -> None:
    """Row 11: within the request's deadline; a longer wait is told at once."""
    gateway.up.script(MINI, ScriptStep(status=429, retry_after="0.2"))
    began = asyncio.get_running_loop().time()
    check_clean(await gateway.client.chat(), MINI, 2)
    assert asyncio.get_running_loop().time() - began >= 0.2
    gateway.up.script(MINI, ScriptStep(status=429, retry_after="7"))
    answer = await gateway.client.chat()
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")


async def test_money_in_flight_is_waited_for(gateway: Gateway) -> None:
    """Row 13: another 402 than that of an empty account."""
    step = ScriptStep(
        status=402, retry_after="0.2", metadata={"limit_source": "openrouter_in_flight_budget"}
    )
    gateway.up.script(MINI, step)
    check_clean(await gateway.client.chat(), MINI, 2)


async def test_no_request_is_dispatched_more_than_three_times(start: Start) -> None:
    routing = RoutingSettings(max_attempts=3, pool=KNOWN_POOL)
    async with start(deadlines=SHORT, routing=routing) as gateway:
        gateway.up.script("*", DOWN, times=None)
        for model in ("sophia/auto", "sophia/auto:cheap"):
            before = len(gateway.up.requests)
            assert (await gateway.client.chat(model)).status == 429
            assert len(gateway.up.requests) - before == 3


async def test_auto_does_not_choose_a_model_that_is_ejected(gateway: Gateway) -> None:
    first = (await gateway.client.chat("sophia/auto")).headers["x-sophia-model"]
    gateway.up.script(first, DOWN, times=None)
    for _ in range(health.FAILURES_IN_A_ROW):
        await gateway.client.chat(first)
    answer = await gateway.client.chat("sophia/auto")
    assert answer.headers["x-sophia-attempts"] == "1"
    assert answer.headers["x-sophia-model"] != first
    decision = answer.headers["x-sophia-decision-id"]
    told = (await gateway.client.get(f"/v1/decisions/{decision}")).json
    (excluded,) = [each for each in told["excluded"] if each["model"] == first]
    assert "is ejected after status:503" in excluded["cause"]


async def test_a_configured_chain_comes_first(start: Start) -> None:
    async with start(deadlines=SHORT) as plain:
        first = (await plain.client.chat("sophia/heuristic")).headers["x-sophia-model"]
    other = NEMO if first != NEMO else FLASH
    routing = RoutingSettings(chains={first: (other,)}, pool=KNOWN_POOL)
    async with start(deadlines=SHORT, routing=routing) as gateway:
        gateway.up.script(first, DOWN)
        check_clean(await gateway.client.chat("sophia/heuristic"), other, 2)


async def test_health_is_seen_in_the_list_of_models_and_in_metrics(gateway: Gateway) -> None:
    gateway.up.script(MINI, DOWN, times=None)
    for _ in range(health.FAILURES_IN_A_ROW):
        await asked(gateway, False)
    models = {row["id"]: row for row in (await gateway.client.get("/v1/models")).json["data"]}
    assert models[MINI]["health"]["state"] == "ejected"
    assert models[NEMO]["health"] == {"state": "healthy"}
    page = (await gateway.client.get("/metrics")).body.decode()
    assert f'sophia_target_ejected{{model="{MINI}",upstream="openrouter"}} 1.0' in page
    assert f'sophia_target_success{{model="{NEMO}",upstream="openrouter"}} 1.0' in page


async def test_the_command_shows_what_is_ejected_and_why(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    base_url = f"http://127.0.0.1:{gateway.client.port}/v1"
    show = partial(asyncio.to_thread, show_health, base_url=base_url, key=gateway.client.key)
    await show()
    assert "No model was asked" in capsys.readouterr().out
    gateway.up.script(MINI, DOWN, times=None)
    for _ in range(health.FAILURES_IN_A_ROW):
        await asked(gateway, False)
    await show()
    shown = " ".join(capsys.readouterr().out.split())
    assert MINI in shown and "ejected" in shown and "next trial in" in shown
    await show(json=True)
    rows = json.loads(capsys.readouterr().out)["data"]
    assert [(row["model"], row["state"]) for row in rows] == [(MINI, "ejected"), (NEMO, "healthy")]


async def test_what_one_caller_made_up_leaves_no_model_out_for_others(gateway: Gateway) -> None:
    """Rows 19 and 20: the upstream misses a file, and not its model."""
    error = {
        "message": "No such File object: file-abc123",
        "type": "invalid_request_error",
        "param": "file_id",
        "code": None,
    }
    gateway.up.script(MINI, ScriptStep(status=404, body={"error": error}))
    answer = await asked(gateway, False)
    assert answer.status == 404 and "file-abc123" in answer.error["message"]
    check_clean(await asked(gateway, False), MINI, 1)
