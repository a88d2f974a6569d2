"""A new model is probed beside known ones before it is tried, within its own purse."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import typer

from feedback_traffic import SOON, qualities, read_history, replayed, rolled_back, taught
from gateway import MINI, NEMO, ServerKind, Start
from probe_answers import Knows, sitting
from sophia.cli.commands.models_live import probe_new_model
from sophia.compose.offline import open_offline_runtime
from sophia.config import PoolSettings, RoutingSettings, Settings
from sophia.learning.online.packaged import load_probes
from sophia.serving.judging.probe_model import (
    ProbeNotAllowed,
    ProbeReport,
    ProbeRequest,
    probe_model,
)

NEW = "openai/gpt-4.1-mini"
KNOWN = (NEMO, MINI)
DOLLAR = 1_000_000_000


@pytest.fixture
def server() -> ServerKind:
    """What is learned does not depend on the server; the other files try both."""
    return "native"


def knowing(new: bool | None) -> Knows:
    """Let the known models answer every second question, and the new one all, none or with errors."""
    return lambda model, number: new if model == NEW else number % 2 == 0


def settings(folder: Path) -> Settings:
    return Settings(
        data_dir=str(folder),
        learning=SOON,
        routing=RoutingSettings(pool=PoolSettings(models=(NEW,), follow_successors=False)),
    )


async def probed(folder: Path, knows: Knows, limit: int = DOLLAR) -> tuple[ProbeReport, list[Any]]:
    async with sitting(knows) as (base_url, seen):
        environ = {"OPENROUTER_API_KEY": "sk-or-test", "OPENROUTER_BASE_URL": base_url}
        return await asked(folder, ProbeRequest(NEW, KNOWN, limit), environ), seen


async def asked(folder: Path, request: ProbeRequest, environ: dict[str, str]) -> ProbeReport:
    async with open_offline_runtime(settings(folder), environ) as (runtime, archive):
        return await probe_model(runtime, archive, request, lambda _: None, lambda _: None)


def begun(start: Start) -> Any:
    return start(
        learning=SOON,
        routing=RoutingSettings(pool=PoolSettings(models=(NEW,), follow_successors=False)),
    )


async def test_who_answers_well_is_believed_to_be_better_than_who_does_not(start: Start) -> None:
    async with begun(start) as gateway:
        before = (await qualities(gateway))[NEW]
        told = {}
        for name, new in (("good", True), ("bad", False)):
            found, _ = await probed(gateway.folder, knowing(new))
            assert found.snapshot is not None and found.update.posterior is not None
            assert (found.update.posterior.sd <= 0.16).all()
            await gateway.sophia.learning.snapshots()
            told[name] = (await qualities(gateway))[NEW]
        assert told["good"] > before + 0.02 and told["bad"] < before - 0.05


async def test_a_running_server_takes_it_up_and_its_decisions_still_come_out_the_same(
    start: Start,
) -> None:
    async with begun(start) as gateway:
        # Whoever has outcomes is not probed, so nobody asks the new model before.
        await taught(gateway, 25, among=KNOWN, other=0.8)
        before = await qualities(gateway)
        found, _ = await probed(gateway.folder, knowing(True))
        await gateway.sophia.learning.snapshots()
        after = await qualities(gateway)
        assert after[NEW] > before[NEW]
        # Nobody else is moved, and no lesson is lost.
        assert {name: one for name, one in after.items() if name != NEW} == {
            name: one for name, one in before.items() if name != NEW
        }
        await taught(gateway, 15, other=0.8)
        result = await replayed(gateway)
        assert result.identical >= 15 and result.different == ()
        assert read_history(gateway)[-1].reason == f"probed {NEW}"
        assert gateway.sophia.learning.routing.policy.performance.count_timed(NEW) >= 40
        assert found.snapshot == read_history(gateway)[-1].id


async def test_going_back_undoes_a_probe(start: Start) -> None:
    async with begun(start) as gateway:
        before = await qualities(gateway)
        await probed(gateway.folder, knowing(False))
        await rolled_back(gateway)
        await gateway.sophia.learning.snapshots()
        assert await qualities(gateway) == before


async def test_a_model_that_is_broken_changes_nothing_and_says_so(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with begun(start) as gateway:
        before, history = await qualities(gateway), read_history(gateway)
        found, _ = await probed(gateway.folder, knowing(None))
        assert found.snapshot is None and found.update.posterior is None
        await gateway.sophia.learning.snapshots()
        assert (await qualities(gateway), read_history(gateway)) == (before, history)
        async with sitting(knowing(None)) as (base_url, _):
            monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-test")
            monkeypatch.setenv("OPENROUTER_BASE_URL", base_url)
            with pytest.raises(typer.Exit):
                await asyncio.to_thread(
                    probe_new_model, NEW, list(KNOWN), data_dir=str(gateway.folder)
                )
        told = capsys.readouterr()
        assert "nothing changed" in told.out and "out of order" in told.err


async def test_answers_are_paid_from_a_purse_of_their_own(start: Start) -> None:
    async with begun(start) as gateway:
        found, seen = await probed(gateway.folder, knowing(True))
        rows = [one for one in await gateway.outcomes() if one.key_id == "sophia:probe"]
        assert len(rows) == len(seen) == 3 * len(load_probes())
        assert sum(one.cost_nano for one in rows) == found.spent_nano == len(rows) * 100_000
        assert (await gateway.standing()) == (0.0, 0.0)


async def test_what_would_cost_too_much_is_refused_before_anything_is_asked(start: Start) -> None:
    async with begun(start) as gateway:
        with pytest.raises(ProbeNotAllowed, match="more than the limit"):
            await probed(gateway.folder, knowing(True), limit=1_000_000)
        assert not await gateway.outcomes()


async def test_a_purse_that_holds_too_little_for_the_longest_answers_is_never_overdrawn(
    start: Start,
) -> None:
    async with begun(start) as gateway:
        expected = (await probed(gateway.folder, knowing(True)))[0].estimate.expected_nano
        found, _ = await probed(gateway.folder, knowing(True), limit=expected)
        assert found.spent_nano <= expected


async def test_a_model_that_has_outcomes_is_not_probed(start: Start) -> None:
    async with begun(start) as gateway:
        answer = await gateway.client.chat("sophia/auto", text="Hello.", sophia={"models": [NEW]})
        verdict = {"decision_id": answer.json["sophia"]["decision_id"], "score": 0.5}
        assert (await gateway.client.post("/v1/feedback", verdict)).json["stored"]
        with pytest.raises(ProbeNotAllowed, match="already has feedback"):
            await probed(gateway.folder, knowing(True))


async def test_the_same_questions_do_not_count_twice(start: Start) -> None:
    async with begun(start) as gateway:
        first, _ = await probed(gateway.folder, knowing(True))
        second, _ = await probed(gateway.folder, knowing(True))
        assert first.update.posterior is not None and second.update.posterior is not None
        assert second.update.posterior.quality.tolist() == first.update.posterior.quality.tolist()


async def test_a_name_that_is_none_is_answered_with_one_that_is(start: Start) -> None:
    async with begun(start) as gateway:
        wish = ProbeRequest("openai/gpt-4.1-mni", (), DOLLAR)
        with pytest.raises(ProbeNotAllowed, match="Did you mean"):
            await asked(gateway.folder, wish, _NOWHERE)


async def test_a_model_that_cannot_be_asked_is_refused_in_a_sentence(start: Start) -> None:
    """Whoever mistook an embedding model for another is told so, and nothing was asked."""
    async with begun(start) as gateway:
        wish = ProbeRequest("openai/text-embedding-3-small", KNOWN, DOLLAR)
        with pytest.raises(ProbeNotAllowed, match="for embedding, not for chat"):
            await asked(gateway.folder, wish, _NOWHERE)
        assert not await gateway.outcomes()


_NOWHERE = {"OPENROUTER_API_KEY": "sk-or-test", "OPENROUTER_BASE_URL": "http://127.0.0.1:9/api/v1"}
