"""Callers may keep the names that they know; the operator says what each stands for."""

from typing import Any

import pytest

from gateway import KNOWN_POOL, MINI, NEMO, SONNET, Gateway, Start, chat
from sophia.config import PoolSettings, RoutingSettings, UpstreamModelSettings, UpstreamSettings
from sophia.core.errors import ConfigError
from sophia.sandbox import ScriptedUpstream, ScriptStep

ALIASES = {
    "gpt-*": MINI,
    "gpt-4": SONNET,
    "gpt-4-?": NEMO,
    "auto": "sophia/auto",
    "thrifty": "sophia/auto:cheap",
    "table": "sophia/heuristic",
    "google/gemini-2.5-pro": "gpt-4o-mini",
    "vectors": "local/embedder",
}


@pytest.fixture
async def aliased(start: Start, up: ScriptedUpstream) -> Any:
    """A gateway with aliases of chat models, of choices by Sophia and of an embedding model."""
    embedder = UpstreamModelSettings(
        id="local/embedder",
        served_as="openai/text-embedding-3-small",
        kind="embedding",
        prompt_usd_per_mtok=0.02,
    )
    place = UpstreamSettings(
        name="vectors", base_url=up.base_url, api_key="local", models=(embedder,)
    )
    routing = RoutingSettings(pool=KNOWN_POOL, aliases=ALIASES)
    async with start(routing=routing, upstreams=(place,)) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gpt-4", SONNET),
        ("gpt-3.5-turbo", MINI),
        ("gpt-4-1", MINI),
        ("google/gemini-2.5-pro", MINI),
        (NEMO, NEMO),
    ],
    ids=["exact before a pattern", "pattern", "first pattern", "over a listed model", "no alias"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_alias_stands_for_its_model(
    aliased: Gateway, name: str, model: str, stream: bool
) -> None:
    """Upstream and caller see the model's own name."""
    answer = await aliased.client.chat(name, stream=stream)
    assert answer.status == 200
    assert answer.headers["x-sophia-policy"] == "named"
    assert answer.headers["x-sophia-model"] == model == aliased.up.requests[-1].json()["model"]
    assert (answer.chunks[-1] if stream else answer.json)["model"] == model


@pytest.mark.parametrize(
    ("name", "policy", "weight"),
    [("auto", "priors", 0.1), ("thrifty", "priors", 1.0), ("table", "heuristic", None)],
)
async def test_an_alias_may_leave_the_choice_to_sophia(
    aliased: Gateway, name: str, policy: str, weight: float | None
) -> None:
    """With the trade-off and the policy that its target names."""
    decision = (await aliased.client.post("/v1/route", chat(name))).json
    assert decision["policy"] == policy
    if weight is not None:
        assert decision["learned"]["price"] == pytest.approx(weight)
    answer = await aliased.client.chat(name)
    assert answer.headers["x-sophia-policy"] == policy
    assert aliased.up.requests[-1].json()["model"] == answer.headers["x-sophia-model"]


@pytest.mark.parametrize("named_first", [False, True])
async def test_aliases_stand_for_their_models_in_a_list(
    aliased: Gateway, named_first: bool
) -> None:
    """The first is the one that is asked, and no model is asked twice under two names."""
    body = chat("gpt-4", models=["gpt-4", SONNET, "gpt-3.5-turbo"])
    if not named_first:
        del body["model"]
    aliased.up.script(SONNET, ScriptStep(status=503))
    answer = await aliased.client.post("/v1/chat/completions", body)
    assert (answer.status, answer.headers["x-sophia-model"]) == (200, MINI)
    assert [request.json()["model"] for request in aliased.up.requests] == [SONNET, MINI]


async def test_an_alias_of_a_choice_by_sophia_may_be_the_first_of_a_list(aliased: Gateway) -> None:
    body = chat(models=["auto"])
    del body["model"]
    answer = await aliased.client.post("/v1/chat/completions", body)
    assert (answer.status, answer.headers["x-sophia-policy"]) == (200, "priors")


async def test_aliases_stand_for_their_models_in_the_only_models_to_choose_from(
    aliased: Gateway,
) -> None:
    answer = await aliased.client.chat("sophia/auto", sophia={"models": ["gpt-4"]})
    assert (answer.status, answer.headers["x-sophia-model"]) == (200, SONNET)


async def test_aliases_hold_for_every_endpoint(aliased: Gateway) -> None:
    answer = await aliased.client.post("/v1/completions", {"model": "gpt-4", "prompt": "Once"})
    assert (answer.status, answer.json["model"]) == (200, SONNET)
    answer = await aliased.client.post("/v1/embeddings", {"model": "vectors", "input": "hello"})
    assert answer.status == 200
    assert aliased.up.requests[-1].json()["model"] == "openai/text-embedding-3-small"


async def test_a_name_without_an_alias_is_as_unknown_as_ever(aliased: Gateway) -> None:
    answer = await aliased.client.chat("gemini-4")
    assert answer.status == 404 and "gemini-4" in answer.error["message"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aliases": {"mine": "nobody/nothing"}}, "routing.aliases: mine.*nobody/nothing"),
        ({"aliases": {"mine": "sophia/nothing"}}, "routing.aliases: mine.*sophia/nothing"),
        ({"pool": PoolSettings(models=("nobody/nothing",))}, "routing.pool.models.*nobody/nothing"),
        ({"pool": PoolSettings(roles=("fats",))}, "routing.pool.*no model to choose from"),
        ({"pool": PoolSettings(deny=("*",))}, "routing.pool.*no model to choose from"),
    ],
)
async def test_a_name_that_means_nothing_stops_the_start(
    start: Start, settings: dict[str, Any], message: str
) -> None:
    """A typing error is told at once, not at somebody's request."""
    with pytest.raises(ConfigError, match=message):
        async with start(routing=RoutingSettings(**settings)):
            pass
