"""Channels that rate the same answers reveal their reliability, for the keys of these answers."""

import asyncio
from typing import Any

import pytest

from feedback_traffic import replayed
from gateway import MINI, Gateway, Start
from sophia.cli.commands import feedback
from sophia.config import JudgeSettings, LearningSettings
from sophia.jobs.calibrate import calibrate_channels
from sophia.learning.feedback.sources import PRIOR_CHANNELS, compute_squared_correlation
from sophia.sandbox import ScriptStep

SOON = LearningSettings(after=20)
SAME_FAMILY = "openai/gpt-4.1-mini"


@pytest.fixture
def server() -> str:
    return "native"


async def rated(gateway: Gateway, number: int, key: str | None = None, **scores: Any) -> None:
    """Send a request and rate its answer, a channel at a time."""
    hints = {"models": [MINI]}
    answer = await gateway.client.chat("sophia/auto", text=f"{number}?", sophia=hints, key=key)
    for channel, score in scores.items():
        feedback = {"decision_id": answer.headers["x-sophia-decision-id"], "channel": channel}
        body = {**feedback, "score": score} | ({"label": SAME_FAMILY} if channel == "judge" else {})
        assert (await gateway.client.post("/v1/feedback", body, key=key)).status == 200


async def calibrate(gateway: Gateway) -> None:
    policy, store = gateway.sophia.learning.routing.policy, gateway.sophia.store
    await calibrate_channels(policy, store, gateway.sophia.app.runtime.ledger.clock)


async def weight(gateway: Gateway, channel: str) -> float:
    rows = [row for row in await gateway.rows("lessons") if row["channel"] == channel]
    return float(rows[-1]["weight"])


async def test_thumbs_that_contradict_all_else_count_for_less_for_their_own_key(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    async with start(learning=SOON) as gateway:
        noisy = await gateway.new_key()
        await gateway.catch_up()
        for number in range(60):
            good = float(number % 3 > 0)
            await rated(gateway, number, noisy, score=good, thumb=float(number % 2))
        assert await weight(gateway, "thumb") == pytest.approx(
            compute_squared_correlation(PRIOR_CHANNELS["thumb"])
        )
        await calibrate(gateway)
        await rated(gateway, 100, noisy, thumb=1.0)
        assert await weight(gateway, "thumb") < 0.5 * compute_squared_correlation(
            PRIOR_CHANNELS["thumb"]
        )
        await rated(gateway, 101, thumb=1.0)
        assert await weight(gateway, "thumb") == pytest.approx(
            compute_squared_correlation(PRIOR_CHANNELS["thumb"])
        )
    await asyncio.to_thread(feedback.show_source_reliability, data_dir=str(gateway.folder))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["(default)", "thumb", "0.85", "0.20", "0.424", "-"] in lines
    assert [line[-1] for line in lines if line[:2] == ["other", "thumb"]] == ["60"]
    async with start(learning=SOON) as gateway:
        await rated(gateway, 102, noisy, thumb=1.0)
        restored = await weight(gateway, "thumb")
        assert restored < 0.5 * compute_squared_correlation(PRIOR_CHANNELS["thumb"]), (
            "the reliability is part of the snapshot"
        )
        result = await replayed(gateway)
        assert result.different == () and result.identical > 0


async def test_a_judge_of_the_family_counts_only_once_its_bias_is_measured(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        for number in range(60):
            await rated(gateway, number, score=0.5, judge=0.8)
        assert "judge" not in {row["channel"] for row in await gateway.rows("lessons")}
        await calibrate(gateway)
        await rated(gateway, 100, judge=0.8)
        channels_used = [row["channel"] for row in await gateway.rows("lessons")]
        assert channels_used.count("judge") == 1
        assert await weight(gateway, "judge") < 0.6 * compute_squared_correlation(
            PRIOR_CHANNELS["judge"]
        )


async def test_a_judge_of_the_family_is_asked_once_its_bias_is_certain(start: Start) -> None:
    """Only then is its judgement worth its cost."""
    judge = JudgeSettings(share=1.0, models=(SAME_FAMILY,))
    async with start(learning=LearningSettings(judge=judge)) as gateway:
        gateway.up.script(SAME_FAMILY, ScriptStep(text='{"score": 9}'), times=None)
        for number in range(30):
            await rated(gateway, number, score=0.5, judge=0.8)
            await rated(gateway, 30 + number, score=0.5, thumb=1.0)
        await calibrate(gateway)
        for number in range(60, 90):
            await rated(gateway, number, score=0.5, judge=0.8)
        assert len(gateway.up.requests) == 90, "thirty comparisons are too few"
        await calibrate(gateway)
        await rated(gateway, 100)
        await rated(gateway, 101)
        async with asyncio.timeout(3):
            while len(gateway.up.requests) < 94:
                await asyncio.sleep(0.01)
        await gateway.sophia.judge.close()
        await gateway.sophia.feedback_writer.close()
        rows = [row for row in await gateway.rows("feedback") if row["label"] == SAME_FAMILY]
        assert [row["score"] for row in rows[-2:]] == [0.9, 0.9]
        lesson = (await gateway.rows("lessons"))[-1]
        assert lesson["channel"] == "judge"
        assert lesson["weight"] < 0.6 * compute_squared_correlation(PRIOR_CHANNELS["judge"])


async def test_one_key_of_a_team_moves_no_channel(start: Start) -> None:
    async with start(learning=LearningSettings(after=20, share_keys=True)) as gateway:
        gateway.up.script(MINI, ScriptStep(), times=None)
        for number in range(60):
            await rated(gateway, number, score=float(number % 3 > 0), thumb=float(number % 2))
        await calibrate(gateway)
        reliability = gateway.sophia.learning.routing.policy.reliability("anybody").all_channels()
        for name in ("score", "thumb"):
            assert reliability[name].true_positive_rate == pytest.approx(
                PRIOR_CHANNELS[name].true_positive_rate
            )
            assert reliability[name].false_positive_rate == pytest.approx(
                PRIOR_CHANNELS[name].false_positive_rate
            )
