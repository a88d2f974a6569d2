"""Newer benchmark files are believed of models that are met from then on, and of nobody before."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway import FLASH, MINI, NEMO, Gateway, ServerKind
from sophia.compose import catalogue_of
from sophia.compose.priors import FILE, forget, kept_in, refresh, shipped
from sophia.config import ConfigError, Routing, Settings
from sophia.learning.priors import prior
from sophia.learning.tables import Unreadable
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
        refreshed(gateway, 0.95)
        live.know([NEW])
        kept = kept_in(gateway.folder)
        assert kept is not None
        row = live.learner.arms.index(NEW)
        first = live.learner._expected[row]
        usual = shipped().arms.get(NEW)
        assert usual is None or usual.mean != kept.book.arms[NEW].mean
        (gateway.folder / FILE).write_text("{")
        live.know(["acme/another"])
        assert (live.learner._expected[row] == first).all()


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
