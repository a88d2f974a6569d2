"""A new model is probed beside known ones before it is tried, within its own purse."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import typer

from exam import Knows, sitting
from gateway import MINI, NEMO, ServerKind
from sophia.cli.probe import Wanted, run
from sophia.compose.learning import history_of, roll_back
from sophia.compose.probing import NotProbed, Probed, Wish, probe, probes
from sophia.config import Routing, Settings
from teaching import SOON, qualities, replayed, taught

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
    return Settings(data_dir=str(folder), learning=SOON, routing=Routing(models=(NEW,)))


async def probed(folder: Path, knows: Knows, limit: int = DOLLAR) -> tuple[Probed, list[Any]]:
    async with sitting(knows) as (base_url, seen):
        environ = {"OPENROUTER_API_KEY": "sk-or-test", "OPENROUTER_BASE_URL": base_url}
        wish = Wish(NEW, KNOWN, limit)
        return await probe(settings(folder), wish, lambda _: None, lambda _: None, environ), seen


def begun(start: Any) -> Any:
    return start(learning=SOON, routing=Routing(models=(NEW,)))


async def test_who_answers_well_is_believed_to_be_better_than_who_does_not(start: Any) -> None:
    async with begun(start) as gateway:
        before = (await qualities(gateway))[NEW]
        told = {}
        for name, new in (("good", True), ("bad", False)):
            found, _ = await probed(gateway.folder, knowing(new))
            assert found.snapshot is not None and found.concluded.after is not None
            assert (found.concluded.after.sd <= 0.16).all()
            await gateway.sophia.learner.keeper()
            told[name] = (await qualities(gateway))[NEW]
        assert told["good"] > before + 0.02 and told["bad"] < before - 0.05


async def test_a_running_server_takes_it_up_and_its_decisions_still_come_out_the_same(
    start: Any,
) -> None:
    async with begun(start) as gateway:
        await taught(gateway, 25, other=0.8)
        before = await qualities(gateway)
        found, _ = await probed(gateway.folder, knowing(True))
        await gateway.sophia.learner.keeper()
        after = await qualities(gateway)
        assert after[NEW] > before[NEW]
        # Nobody else is moved, and no lesson is lost.
        assert {name: one for name, one in after.items() if name != NEW} == {
            name: one for name, one in before.items() if name != NEW
        }
        await taught(gateway, 15, other=0.8)
        result = await replayed(gateway)
        assert result.same >= 15 and result.different == ()
        assert history_of(gateway.folder)[-1].reason == f"probed {NEW}"
        assert gateway.sophia.learner.insight.live.habits.seen(NEW) >= 40
        assert found.snapshot == history_of(gateway.folder)[-1].id


async def test_going_back_undoes_a_probe(start: Any) -> None:
    async with begun(start) as gateway:
        before = await qualities(gateway)
        await probed(gateway.folder, knowing(False))
        await roll_back(SOON, gateway.folder, gateway.sophia.store, None, 1)
        await gateway.sophia.learner.keeper()
        assert await qualities(gateway) == before


async def test_a_model_that_is_broken_changes_nothing_and_says_so(
    start: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with begun(start) as gateway:
        before, history = await qualities(gateway), history_of(gateway.folder)
        found, _ = await probed(gateway.folder, knowing(None))
        assert found.snapshot is None and found.concluded.after is None
        await gateway.sophia.learner.keeper()
        assert (await qualities(gateway), history_of(gateway.folder)) == (before, history)
        async with sitting(knowing(None)) as (base_url, _):
            monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-test")
            monkeypatch.setenv("OPENROUTER_BASE_URL", base_url)
            wanted = Wanted(NEW, KNOWN, 1.0)
            with pytest.raises(typer.Exit):
                await asyncio.to_thread(run, wanted, None, str(gateway.folder))
        told = capsys.readouterr()
        assert "nothing changed" in told.out and "out of order" in told.err


async def test_answers_are_paid_from_a_purse_of_their_own(start: Any) -> None:
    async with begun(start) as gateway:
        found, seen = await probed(gateway.folder, knowing(True))
        rows = [one for one in await gateway.outcomes() if one.key_id == "sophia:probe"]
        assert len(rows) == len(seen) == 3 * len(probes())
        assert sum(one.cost_nano for one in rows) == found.spent_nano == len(rows) * 100_000
        assert (await gateway.standing()) == (0.0, 0.0)


async def test_what_would_cost_too_much_is_refused_before_anything_is_asked(start: Any) -> None:
    async with begun(start) as gateway:
        with pytest.raises(NotProbed, match="more than the limit"):
            await probed(gateway.folder, knowing(True), limit=1_000_000)
        assert not await gateway.outcomes()


async def test_a_purse_that_holds_too_little_for_the_longest_answers_is_never_overdrawn(
    start: Any,
) -> None:
    async with begun(start) as gateway:
        expected = (await probed(gateway.folder, knowing(True)))[0].estimate.expected_nano
        found, _ = await probed(gateway.folder, knowing(True), limit=expected)
        assert found.spent_nano <= expected


async def test_a_model_that_has_outcomes_is_not_probed(start: Any) -> None:
    async with begun(start) as gateway:
        answer = await gateway.client.chat("sophia/auto", text="Hello.", sophia={"models": [NEW]})
        verdict = {"decision_id": answer.json["sophia"]["decision_id"], "score": 0.5}
        assert (await gateway.client.post("/v1/feedback", verdict)).json["stored"]
        with pytest.raises(NotProbed, match="judged"):
            await probed(gateway.folder, knowing(True))


async def test_the_same_questions_do_not_count_twice(start: Any) -> None:
    async with begun(start) as gateway:
        first, _ = await probed(gateway.folder, knowing(True))
        second, _ = await probed(gateway.folder, knowing(True))
        assert first.concluded.after is not None and second.concluded.after is not None
        assert second.concluded.after.quality.tolist() == first.concluded.after.quality.tolist()


async def test_a_name_that_is_none_is_answered_with_one_that_is(start: Any) -> None:
    async with begun(start) as gateway:
        wish = Wish("openai/gpt-4.1-mni", (), DOLLAR)
        with pytest.raises(NotProbed, match="Did you mean"):
            await probe(settings(gateway.folder), wish, lambda _: None, lambda _: None, _NOWHERE)


async def test_a_model_that_cannot_be_asked_is_refused_in_a_sentence(start: Any) -> None:
    """Whoever mistook an embedding model for another is told so, and nothing was asked."""
    async with begun(start) as gateway:
        wish = Wish("openai/text-embedding-3-small", KNOWN, DOLLAR)
        with pytest.raises(NotProbed, match="for embedding, not for chat"):
            await probe(settings(gateway.folder), wish, lambda _: None, lambda _: None, _NOWHERE)
        assert not await gateway.outcomes()


_NOWHERE = {"OPENROUTER_API_KEY": "sk-or-test", "OPENROUTER_BASE_URL": "http://127.0.0.1:9/api/v1"}
