"""Failover within limits: of money, of repetitions and of what a refusal allows."""

import asyncio
from typing import Any

import pytest
from odd_upstreams import OWN

from gateway import MINI, NEMO, Answer, Gateway, ServerKind, Start
from sophia.config import DeadlineSettings, UpstreamModelSettings, UpstreamSettings
from sophia.sandbox import ScriptStep

PATIENT = DeadlineSettings(connect_s=1.0, content_s=6.0, stall_s=2.0, total_s=9.0)


@pytest.fixture
def server() -> ServerKind:
    """One server is enough here."""
    return "native"


@pytest.fixture
async def gateway(start: Start) -> Any:
    async with start(deadlines=PATIENT) as running:
        yield running


async def ask(gateway: Gateway, stream: bool = False, **more: Any) -> Answer:
    """Ask for MINI with NEMO as the substitute."""
    return await gateway.client.chat(models=[MINI, NEMO], stream=stream, **more)


async def test_a_hedge_that_the_limit_forbids_does_not_use_up_the_fallback(start: Start) -> None:
    """The second call does not fit beside the first; once that has failed at no cost, it does."""
    async with start(deadlines=PATIENT) as gateway:
        for _ in range(25):
            await gateway.client.chat(MINI, stream=True)
        key = await gateway.new_key(each=0.001)
        await gateway.catch_up()
        for hints in ({}, {"hedge": True}):
            gateway.up.script(MINI, ScriptStep(status=503, delay=0.5))
            answer = await gateway.client.chat(
                models=[MINI, NEMO], stream=True, key=key, sophia=hints
            )
            assert answer.status == 200, (hints, answer.body)


@pytest.mark.parametrize("more", [{"max_tokens": 5000}, {}], ids=["more wanted", "none wanted"])
async def test_what_is_reserved_is_also_what_is_asked_for(
    start: Start, more: dict[str, Any]
) -> None:
    """Reserved are the model's `max_output_tokens`; the call may write as much as it likes."""
    model = UpstreamModelSettings(
        id=OWN,
        served_as=MINI,
        prompt_usd_per_mtok=1.0,
        completion_usd_per_mtok=10.0,
        max_output_tokens=100,
    )
    async with start() as plain:
        url = plain.up.base_url
    place = UpstreamSettings(name="own", base_url=url, api_key="k", models=(model,))
    async with start(upstreams=(place,)) as gateway:
        key = await gateway.new_key(each=0.002)
        await gateway.catch_up()
        gateway.up.script(MINI, ScriptStep(text="word " * 5000, usage={"cost": None}))
        await gateway.client.chat(OWN, key=key, **more)
        (row,) = await gateway.settled(1)
        assert row.cost_nano <= 2_000_000, row.cost_nano


async def test_a_refusal_by_a_filter_is_told_though_a_hedge_runs(gateway: Gateway) -> None:
    """Row 16: no other model is tried behind the filter's back."""
    for _ in range(25):
        await gateway.client.chat(MINI, stream=True)
    gateway.up.script(
        MINI, ScriptStep(status=403, error_type="moderation", message="flagged", delay=0.4)
    )
    gateway.up.script(NEMO, ScriptStep(first_delay=1.0))
    answer = await ask(gateway, stream=True, sophia={"hedge": True})
    assert answer.status == 403, answer.body[:200]


@pytest.mark.parametrize(
    "step",
    [
        ScriptStep(status=403, message="This model is not available in your region."),
        ScriptStep(text=""),
    ],
    ids=["region", "empty"],
)
async def test_a_healthy_fallback_answers_whatever_the_first_model_says(
    gateway: Gateway, step: ScriptStep
) -> None:
    """Rows 17 and 22: what refuses or says nothing is in no trouble that repetitions worsen."""
    gateway.up.script(MINI, step, times=None)
    answers = await asyncio.gather(*[ask(gateway) for _ in range(400)])
    refused = [answer for answer in answers if answer.status != 200]
    assert not refused, (len(refused), refused[0].body[:300])
