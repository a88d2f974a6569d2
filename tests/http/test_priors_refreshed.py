"""Newer benchmark files are believed of models that are met from then on, and of nobody before."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway import FLASH, MINI, NEMO, Gateway, ServerKind
from sophia.compose import catalogue_of
from sophia.compose.learning import first_steps
from sophia.compose.priors import FILE, forget, kept_in, refresh, shipped
from sophia.config import ConfigError, Routing, Settings
from sophia.learning.priors import prior
from sophia.learning.tables import Unreadable
from sophia.routing.policies.policy import Sight
from teaching import SOON, qualities, replayed, taught

NEW = "openai/gpt-4.1-mini"
KINDS = [("code",), ("maths",)]


@pytest.fixture
def server() -> ServerKind:
    """What is believed does not depend on the server."""
    return "native"


def export(folder: Path, best: float, name: str = "2026-11-07.json") -> Path:
    """An export in which the new model does so well; the others are measured as usual."""
    scores = {NEW: best, MINI: 0.45, FLASH: 0.6, NEMO: 0.3}
    rows = [
        {"benchmark": task, "model": model, "accuracy": score, "total_tasks": 400}
        for model, score in scores.items()
        for task in ("gpqa-diamond", "coding", "maths")
    ]
    head = {"dataset": "benchmark-leaderboard", "snapshot_date": "2026-11-07"}
    path = folder / name
    path.write_text(json.dumps({**head, "data": rows}))
    return path


def refreshed(gateway: Gateway, best: float) -> None:
    settings = Settings(data_dir=str(gateway.folder))
    path = export(gateway.folder, best)
    refresh(gateway.folder, [path], catalogue_of(settings), 1)


async def expected(start: Any, **settings: Any) -> float:
    """Return what is expected of the new model once it was met."""
    routing = Routing(models=(NEW,))
    async with start(learning=SOON, routing=routing, **settings) as gateway:
        return (await qualities(gateway))[NEW]


async def test_a_new_model_is_believed_as_the_newer_files_have_it(start: Any) -> None:
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


@pytest.mark.parametrize("best", [0.2, 0.9])
async def test_better_scores_give_better_priors(start: Any, best: float) -> None:
    async with start(learning=SOON) as gateway:
        usual = shipped()
        refreshed(gateway, best)
        kept = kept_in(gateway.folder)
    assert kept is not None and kept.book.arms[NEW].basis == "measured"
    now, then = (prior(book, NEW, KINDS) for book in (kept.book, usual))
    assert (now.mean > then.mean).all() == (best > 0.5)
    assert "openrouter 2026-11-07" in kept.book.sources
    assert set(usual.sources) < set(kept.book.sources)
    assert kept.sources[0].file == "2026-11-07.json" and kept.sources[0].as_of == "2026-11-07"


async def test_a_running_server_takes_newer_files_up_without_a_restart(start: Any) -> None:
    """The next model that it meets is believed as they have it; broken ones change nothing."""
    async with start(learning=SOON) as gateway:
        live = gateway.sophia.learner.insight.live
        plain, senses = first_steps(SOON)
        plain.know([NEW])
        tasks = np.full(len(senses.classes), 1 / len(senses.classes))
        sight = Sight(tasks, np.zeros(0), np.zeros(0))
        refreshed(gateway, 0.95)
        live.know([NEW])
        believed = live.learner.rate(sight, [NEW]).quality[0]
        assert believed > plain.learner.rate(sight, [NEW]).quality[0] + 0.005
        (gateway.folder / FILE).write_text("{")
        live.know(["openai/gpt-4.1-mini:free"])
        assert live.learner.rate(sight, ["openai/gpt-4.1-mini:free"]).quality[0] == believed


async def test_an_index_compares_models_and_does_not_say_how_hard_work_is(start: Any) -> None:
    """However low its scale is, what is expected of a stranger hardly moves."""
    async with start(learning=SOON) as gateway:
        rows = [
            {"source": "artificial-analysis", "model_permaslug": model, "coding_index": level}
            for model, level in ((NEW, 9.0), (MINI, 4.0), (FLASH, 6.0), (NEMO, 2.0))
        ]
        path = gateway.folder / "index.json"
        path.write_text(json.dumps({"data": rows, "meta": {"as_of": "2026-06-03"}}))
        catalogue = catalogue_of(Settings(data_dir=str(gateway.folder)))
        made = refresh(gateway.folder, [path], catalogue, 1)
        now, then = (prior(book, "acme/unheard", KINDS).mean for book in (made.book, shipped()))
        assert now == pytest.approx(then, abs=0.02)
        better, worse = (prior(made.book, model, KINDS).mean[0] for model in (NEW, NEMO))
        assert better > worse


async def test_what_was_tampered_with_is_refused_with_the_way_out(start: Any) -> None:
    async with start(learning=SOON) as gateway:
        refreshed(gateway, 0.95)
        path = gateway.folder / FILE
        path.write_text(path.read_text().replace("2026-11-07", "2026-11-08"))
    with pytest.raises(ConfigError, match="--priors shipped"):
        async with start(learning=SOON):
            pass
    assert forget(gateway.folder) and not forget(gateway.folder)
    async with start(learning=SOON) as gateway:
        assert await qualities(gateway)


async def test_a_bad_file_changes_nothing(start: Any) -> None:
    """Not even when a good one comes with it."""
    async with start(learning=SOON) as gateway:
        refreshed(gateway, 0.95)
        before = (gateway.folder / FILE).read_bytes()
        good, bad = export(gateway.folder, 0.1), export(gateway.folder, 1.1, "bad.json")
        catalogue = catalogue_of(Settings(data_dir=str(gateway.folder)))
        with pytest.raises(Unreadable, match="not from 0 to 1"):
            refresh(gateway.folder, [good, bad], catalogue, 2)
        assert (gateway.folder / FILE).read_bytes() == before
