"""Channels that speak of the same answers tell what each is worth, for the keys they speak for."""

import asyncio
from typing import Any

import pytest

from gateway import MINI, Gateway
from sophia.cli import channels
from sophia.compose.learning import read_plan, replay_of
from sophia.config import Judging, Learning
from sophia.jobs.calibrate import CalibrateChannels
from sophia.learning.channels import CHANNELS, telling
from sophia.testing import Step

SOON = Learning(after=20)
RELATIVE = "openai/gpt-4.1-mini"


@pytest.fixture
def server() -> str:
    return "native"


async def judged(gateway: Gateway, number: int, key: str | None = None, **said: Any) -> None:
    """Ask once, and say this of the answer, a channel at a time."""
    hints = {"models": [MINI]}
    answer = await gateway.client.chat("sophia/auto", text=f"{number}?", sophia=hints, key=key)
    for channel, score in said.items():
        verdict = {"decision_id": answer.headers["x-sophia-decision-id"], "channel": channel}
        body = {**verdict, "score": score} | ({"label": RELATIVE} if channel == "judge" else {})
        assert (await gateway.client.post("/v1/feedback", body, key=key)).status == 200


async def compare(gateway: Gateway) -> None:
    live, store = gateway.sophia.learner.insight.live, gateway.sophia.store
    await CalibrateChannels(live, store, read_plan, gateway.sophia.front.desk.books.clock)()


async def weight(gateway: Gateway, channel: str) -> float:
    rows = [row for row in await gateway.rows("lessons") if row["channel"] == channel]
    return float(rows[-1]["weight"])


async def test_thumbs_that_contradict_everything_count_for_less_for_their_own_key(
    start: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async with start(learning=SOON) as gateway:
        noisy = await gateway.new_key()
        await gateway.catch_up()
        for number in range(60):
            good = float(number % 3 > 0)
            await judged(gateway, number, noisy, score=good, thumb=float(number % 2))
        assert await weight(gateway, "thumb") == pytest.approx(telling(CHANNELS["thumb"]))
        await compare(gateway)
        await judged(gateway, 100, noisy, thumb=1.0)
        assert await weight(gateway, "thumb") < 0.5 * telling(CHANNELS["thumb"])
        await judged(gateway, 101, thumb=1.0)
        assert await weight(gateway, "thumb") == pytest.approx(telling(CHANNELS["thumb"]))
    await asyncio.to_thread(channels.show, False, None, str(gateway.folder))
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["(everybody)", "thumb", "0.85", "0.20", "0.424", "-"] in told
    assert [line[-1] for line in told if line[:2] == ["other", "thumb"]] == ["60"]
    async with start(learning=SOON) as gateway:
        await judged(gateway, 102, noisy, thumb=1.0)
        kept = await weight(gateway, "thumb")
        assert kept < 0.5 * telling(CHANNELS["thumb"]), "it is kept with what was learned"
        again = replay_of(SOON, gateway.folder, gateway.sophia.store)
        result = await again.run(await gateway.sophia.store.decisions(0, 1000))
        assert result.different == () and result.same > 0


async def test_a_relatives_mark_teaches_only_once_its_favour_is_measured(start: Any) -> None:
    async with start(learning=SOON) as gateway:
        for number in range(60):
            await judged(gateway, number, score=0.5, judge=0.8)
        assert "judge" not in {row["channel"] for row in await gateway.rows("lessons")}
        await compare(gateway)
        await judged(gateway, 100, judge=0.8)
        heard = [row["channel"] for row in await gateway.rows("lessons")]
        assert heard.count("judge") == 1
        assert await weight(gateway, "judge") < 0.6 * telling(CHANNELS["judge"])


async def test_a_relative_is_asked_once_its_favour_is_known_well(start: Any) -> None:
    """Only then is its judgement worth its money."""
    judge = Judging(share=1.0, models=(RELATIVE,))
    async with start(learning=Learning(judge=judge)) as gateway:
        gateway.up.script(RELATIVE, Step(text='{"score": 9}'), times=None)
        for number in range(30):
            await judged(gateway, number, score=0.5, judge=0.8)
            await judged(gateway, 30 + number, score=0.5, thumb=1.0)
        await compare(gateway)
        for number in range(60, 90):
            await judged(gateway, number, score=0.5, judge=0.8)
        assert len(gateway.up.requests) == 90, "thirty comparisons are too few"
        await compare(gateway)
        await judged(gateway, 100)
        await judged(gateway, 101)
        async with asyncio.timeout(3):
            while len(gateway.up.requests) < 94:
                await asyncio.sleep(0.01)
        await gateway.sophia.judge.close()
        await gateway.sophia.verdicts.close()
        rows = [row for row in await gateway.rows("feedback") if row["label"] == RELATIVE]
        assert [row["score"] for row in rows[-2:]] == [0.9, 0.9]
        lesson = (await gateway.rows("lessons"))[-1]
        assert lesson["channel"] == "judge"
        assert lesson["weight"] < 0.6 * telling(CHANNELS["judge"])


async def test_one_key_of_a_team_moves_nobodys_channels(start: Any) -> None:
    async with start(learning=Learning(after=20, share_keys=True)) as gateway:
        gateway.up.script(MINI, Step(), times=None)
        for number in range(60):
            await judged(gateway, number, score=float(number % 3 > 0), thumb=float(number % 2))
        await compare(gateway)
        known = gateway.sophia.learner.insight.live.credence("anybody").known()
        for name in ("score", "thumb"):
            assert known[name].hit == pytest.approx(CHANNELS[name].hit)
            assert known[name].slip == pytest.approx(CHANNELS[name].slip)
