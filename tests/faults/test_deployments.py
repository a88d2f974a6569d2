"""One model at several upstreams: requests are shared out by weight, and one stands in for another."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from stage import check_clean

from gateway import NEMO, BrokenUpstream, Gateway, Start
from sophia.config import UpstreamModelSettings, UpstreamSettings
from sophia.sandbox import ScriptedUpstream, ScriptStep
from sophia.serving.attempts.targets.dispatch import Deployment, UpstreamsByModel

LOCAL = "local/large"


def deployment(up: ScriptedUpstream, name: str, weight: int = 1) -> UpstreamSettings:
    """Return `up` as an upstream that serves `LOCAL` under a name of its own."""
    served = UpstreamModelSettings(
        id=LOCAL, served_as=NEMO, weight=weight, completion_usd_per_mtok=1.0
    )
    return UpstreamSettings(name=name, base_url=up.base_url, api_key="sk-test", models=(served,))


@asynccontextmanager
async def deployed(
    start: Start, weights: tuple[int, int]
) -> AsyncIterator[tuple[Gateway, ScriptedUpstream, ScriptedUpstream]]:
    async with ScriptedUpstream() as one, ScriptedUpstream() as two:
        places = (deployment(one, "one", weights[0]), deployment(two, "two", weights[1]))
        async with start(upstreams=places) as gateway:
            yield gateway, one, two


async def test_both_deployments_are_asked_and_listed_as_one_model(start: Start) -> None:
    async with deployed(start, (1, 1)) as (gateway, one, two):
        for _ in range(40):
            assert (await gateway.client.chat(LOCAL)).status == 200
        assert len(one.requests) + len(two.requests) == 40
        assert one.requests and two.requests
        listed = (await gateway.client.get("/v1/models")).json["data"]
        assert [model["id"] for model in listed].count(LOCAL) == 1


def test_requests_are_shared_out_by_weight() -> None:
    """The same request always goes to the same one first."""
    upstream = BrokenUpstream()
    known = tuple(Deployment(upstream, name, weight) for name, weight in (("a", 9), ("b", 1)))
    upstreams = UpstreamsByModel(upstream, {LOCAL: known})
    orders = [upstreams.deployments(LOCAL, id << 4) for id in range(10_000)]
    firsts = [order[0].served_as for order in orders]
    assert 800 < firsts.count("b") < 1_200
    assert all({one.served_as for one in order} == {"a", "b"} for order in orders)
    assert orders[:50] == [upstreams.deployments(LOCAL, id << 4) for id in range(50)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "step", [ScriptStep(status=503), ScriptStep(no_answer="reset"), ScriptStep(status=429)]
)
async def test_a_deployment_that_fails_is_replaced_by_the_other_one(
    start: Start, stream: bool, step: ScriptStep
) -> None:
    """Before any other model, and each attempt is settled where it was made."""
    async with deployed(start, (1, 1)) as (gateway, one, two):
        one.script("*", step, times=None)
        asked_twice = 0
        for _ in range(12):
            answer = await gateway.client.chat(LOCAL, models=[LOCAL, NEMO], stream=stream)
            assert answer.status == 200 and answer.complete
            assert answer.headers["x-sophia-model"] == LOCAL
            asked_twice += answer.headers["x-sophia-attempts"] == "2"
        assert asked_twice == len(one.requests) and len(two.requests) == 12
        assert not gateway.up.requests
        upstreams = {row["attempt_id"]: row["upstream"] for row in await gateway.rows("intents")}
        for outcome in await gateway.settled(12 + asked_twice):
            failed = outcome.failure is not None
            assert upstreams[outcome.attempt_id] == ("one" if failed else "two")


async def test_the_next_model_answers_when_no_deployment_does(start: Start) -> None:
    async with deployed(start, (1, 1)) as (gateway, one, two):
        for up in (one, two):
            up.script("*", ScriptStep(status=503), times=None)
        answer = await gateway.client.chat(LOCAL, models=[LOCAL, NEMO])
        check_clean(answer, NEMO, 3)
