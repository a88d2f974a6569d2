"""Refreshed priors apply to models that are met from then on, and to none before."""

from typing import Any

import numpy as np
import pytest
from msgspec import json
from msgspec.structs import replace

from feedback_traffic import SOON, qualities, replayed, taught
from gateway import Gateway, ServerKind, Start
from sophia.config import PoolSettings, RoutingSettings
from sophia.core.errors import ConfigError
from sophia.learning.online.build import build_policy
from sophia.learning.online.packaged import load_task_names
from sophia.learning.priors.book import (
    PRIORS_FILE,
    ArmPrior,
    BenchmarkSource,
    SavedPriors,
    load_shipped_priors,
)
from sophia.routing.bandit.policy import PolicyContext

NEW = "openai/gpt-4.1-mini"


@pytest.fixture
def server() -> ServerKind:
    """What is believed does not depend on the server."""
    return "native"


def refreshed(gateway: Gateway, score: float) -> None:
    """Write priors into the data folder that measured the new model at this score."""
    book = load_shipped_priors().table
    kinds = len(book.kinds)
    measured = ArmPrior((score,) * kinds, (0.03,) * kinds, "measured", ("a table",))
    made = replace(book, arms={**book.arms, NEW: measured})
    source = BenchmarkSource(
        file="2026-11-07.json",
        sha256="0" * 64,
        as_of="2026-11-07",
        credit="",
        arms=1,
        tasks=("a task",),
    )
    saved = SavedPriors(created_ms=1, sources=(source,), priors=made)
    saved = replace(saved, sha256=saved.digest())
    (gateway.folder / PRIORS_FILE).write_bytes(json.encode(saved))


async def expected(start: Start, **settings: Any) -> float:
    """Return what is expected of the new model once it was met."""
    routing = RoutingSettings(pool=PoolSettings(models=(NEW,), follow_successors=False))
    async with start(learning=SOON, routing=routing, **settings) as gateway:
        return (await qualities(gateway))[NEW]


async def test_a_new_model_is_believed_as_the_newer_files_have_it(start: Start) -> None:
    """And what was met before keeps what it was met with, bit by bit."""
    async with start(learning=SOON) as gateway:
        await taught(gateway, 25, other=0.9)
        before = await qualities(gateway)
        refreshed(gateway, 0.95)
        assert await qualities(gateway) == before
    high = await expected(start)
    again = await expected(start)
    assert high == again
    async with start(learning=SOON) as gateway:
        now = await qualities(gateway)
        assert {model: now[model] for model in before} == pytest.approx(before, abs=0.02)
        await taught(gateway, 8, other=0.9)
        assert (await replayed(gateway)).different == ()


async def test_a_running_server_takes_newer_files_up_without_a_restart(start: Start) -> None:
    """The next model that it meets is believed as they have it; broken ones change nothing."""
    async with start(learning=SOON) as gateway:
        live = gateway.sophia.learning.routing.policy
        plain = build_policy()
        plain.add_models([NEW])
        tasks = np.full(len(load_task_names()), 1 / len(load_task_names()))
        sight = PolicyContext(tasks)
        refreshed(gateway, 0.95)
        live.add_models([NEW])
        believed = live.learner.rate(sight, [NEW]).quality[0]
        assert believed > plain.learner.rate(sight, [NEW]).quality[0] + 0.005
        (gateway.folder / PRIORS_FILE).write_text("{")
        live.add_models(["openai/gpt-4.1-mini:free"])
        assert live.learner.rate(sight, ["openai/gpt-4.1-mini:free"]).quality[0] == believed


async def test_what_was_tampered_with_is_refused_with_the_way_out(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        refreshed(gateway, 0.95)
        path = gateway.folder / PRIORS_FILE
        path.write_text(path.read_text().replace("2026-11-07", "2026-11-08"))
    with pytest.raises(ConfigError, match="Delete it to return to the shipped priors"):
        async with start(learning=SOON):
            pass
    path.unlink()
    async with start(learning=SOON) as gateway:
        assert await qualities(gateway)
