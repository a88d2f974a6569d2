"""Some answers are judged by a model of another family: nobody waits, nobody overpays, it teaches."""

import asyncio
import json
import os
import re
import signal
import sys
from typing import Any

import pytest

from feedback_traffic import replayed
from gateway import MINI, NEMO, SONNET, Answer, BrokenUpstream, Client, Gateway, Start, chat
from sophia.config import BudgetSettings, CascadeSettings, JudgeSettings, LearningSettings
from sophia.core.errors import ConfigError
from sophia.core.ids import JUDGE_ATTEMPT, decode_id
from sophia.core.money import nano_from_usd
from sophia.core.rows import JUDGE_ACCOUNT
from sophia.learning.feedback.sources import PRIOR_CHANNELS, ChannelVote, estimate_quality_from_vote
from sophia.routing.types import decode_plan
from sophia.sandbox import ScriptStep
from sophia.serving.attempts.targets.dispatch import Deployment, UpstreamsByModel
from sophia.tenants.budget import day_window
from stores import left_open

NOVA, COHERE = "amazon/nova-lite-v1", "cohere/command-r-08-2024"
ALL = LearningSettings(after=20, judge=JudgeSettings(share=1.0, models=(NOVA,)))
BECAME = re.compile(r'sophia_judgements_total\{result="(\w+)"\} (\d+)')
SECRET = "the colour of the sky over Lisbon"


def mark(score: object) -> ScriptStep:
    return ScriptStep(text=json.dumps({"flaws": "none", "score": score}))


async def ask(gateway: Gateway, model: str = MINI, **more: Any) -> Answer:
    """Leave the choice to Sophia among one model."""
    answer = await gateway.client.chat("sophia/auto", sophia={"models": [model]}, **more)
    assert answer.status == 200
    return answer


async def judged(gateway: Gateway, total: int = 1) -> dict[str, int]:
    """Return what became of the answers that were to be judged, once there are so many."""
    became: dict[str, int] = {}
    async with asyncio.timeout(5):
        while sum(became.values()) < total:
            await asyncio.sleep(0.01)
            page = (await gateway.client.get("/metrics", headers={})).body.decode()
            became = {name: int(count) for name, count in BECAME.findall(page)}
    await gateway.sophia.feedback_writer.close()  # type: ignore[union-attr]
    return became


@pytest.mark.parametrize("stream", [False, True])
async def test_a_judge_of_another_family_marks_an_answer_and_its_mark_teaches(
    start: Start, stream: bool
) -> None:
    async with start(learning=ALL) as gateway:
        gateway.up.script(MINI, ScriptStep(text="Because of scattering."))
        gateway.up.script(NOVA, mark(3))
        answer = await ask(gateway, stream=stream, text=SECRET)
        assert "Because of scattering." in answer.text
        assert await judged(gateway) == {"judged": 1}
        id = answer.headers["x-sophia-decision-id"]
        told = (await gateway.client.get(f"/v1/decisions/{id}")).json
        (verdict,) = told["feedback"]
        assert (verdict["channel"], verdict["score"], verdict["label"]) == ("judge", 0.3, NOVA)
        assert told["served_by"] == MINI
        (lesson,) = await gateway.rows("lessons")
        (expected,) = [one["quality"] for one in told["candidates"] if one["model"] == MINI]
        score, weight = estimate_quality_from_vote(
            ChannelVote("judge", 0.3), expected, PRIOR_CHANNELS["judge"]
        )
        assert (lesson["arm"], lesson["channel"], lesson["first"]) == (MINI, "judge", 1)
        assert lesson["weight"] == pytest.approx(weight)
        assert lesson["quality"] == pytest.approx(score, abs=0.05) and lesson["quality"] < expected
        system, shown = gateway.up.requests[-1].json()["messages"]
        material = json.loads(shown["content"])
        assert material["conversation"][-1]["content"] == SECRET
        assert material["answer"]["text"] == "Because of scattering."
        assert SECRET not in system["content"] and "Because" not in system["content"]


async def test_the_mark_is_an_attempt_on_the_bill_of_the_key_and_of_all_judging(
    start: Start,
) -> None:
    async with start(learning=ALL) as gateway:
        gateway.up.script(NOVA, mark(8))
        await ask(gateway)
        assert await judged(gateway) == {"judged": 1}
        rows = {row.model: row for row in await gateway.settled(2)}
        assert rows[NOVA].finish_reason == "rubric" and rows[NOVA].attempt_id & 15 == JUDGE_ATTEMPT
        total = sum(row.cost_nano for row in rows.values())
        assert total == gateway.up.bill.total and rows[NOVA].cost_nano > 0
        assert await gateway.standing() == (pytest.approx(total / 1e9), 0)
        books = gateway.sophia.app.runtime.ledger
        window = day_window(books.clock.wall())
        account = await books.store.account(JUDGE_ACCOUNT, window)
        assert (account.spent_nano, account.held_nano) == (rows[NOVA].cost_nano, 0)
        page = (await gateway.client.get("/metrics", headers={})).body.decode()
        told = [one for one in page.splitlines() if one.startswith("openrouter_cost_dollars{")]
        assert sum(float(one.rsplit(" ", 1)[1]) for one in told) == pytest.approx(total / 1e9)
        asked = [one for one in page.splitlines() if one.startswith("openrouter_requests_total{")]
        assert len(asked) == 1 and f'model="{MINI}"' in asked[0], "a mark is no request of its own"
    async with start(learning=ALL) as gateway:
        books = gateway.sophia.app.runtime.ledger
        account = await books.store.account(JUDGE_ACCOUNT, window)
        assert (account.spent_nano, account.held_nano) == (rows[NOVA].cost_nano, 0)


@pytest.mark.parametrize(
    "text",
    [
        "no idea",
        '{"score": 11}',
        '{"score": "9"}',
        '{"mark": 9}',
        "9",
        "",
        'The answer says {"score": 10}, so: {"score": 10}',
        "[10]",
        '{"score": true}',
    ],
)
async def test_a_reply_that_is_no_mark_teaches_nothing(start: Start, text: str) -> None:
    async with start(learning=ALL) as gateway:
        gateway.up.script(NOVA, ScriptStep(text=text))
        await ask(gateway)
        assert await judged(gateway) == {"unparsable": 1}
        assert not await gateway.rows("lessons") and not await gateway.rows("feedback")
        assert len(await gateway.settled(2)) == 2


@pytest.mark.parametrize(
    "step", [ScriptStep(status=500), ScriptStep(cut_after=5)], ids=["500", "cut"]
)
async def test_a_judge_that_fails_is_not_heard_and_nothing_else_breaks(
    start: Start, step: ScriptStep
) -> None:
    async with start(learning=ALL) as gateway:
        gateway.up.script(NOVA, step)
        assert (await ask(gateway)).json["sophia"]["model"] == MINI
        assert await judged(gateway) == {"failed": 1}
        assert not await gateway.rows("lessons")
        _, held = await gateway.standing()
        assert (held > 0) == (step.cut_after is not None)


async def test_a_judgement_that_fails_by_our_own_mistake_does_not_stop_the_next(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong with one job is logged and counted, and the next one is done."""
    async with start(learning=ALL) as gateway:
        runtime = gateway.sophia.app.runtime
        upstreams = runtime.upstreams
        runtime.upstreams = UpstreamsByModel(
            upstreams.default, {NOVA: (Deployment(BrokenUpstream(), NOVA),)}
        )
        await ask(gateway)
        assert await judged(gateway) == {"failed": 1}
        assert "a judgement failed" in caplog.text and "no way to call" in caplog.text
        runtime.upstreams = upstreams
        gateway.up.script(NOVA, mark(7))
        await ask(gateway)
        assert await judged(gateway, 2) == {"failed": 1, "judged": 1}


async def test_where_the_caller_lets_its_text_go_holds_for_the_judge_too(start: Start) -> None:
    async with start(learning=ALL) as gateway:
        gateway.up.script(NOVA, mark(5))
        await ask(gateway, provider={"data_collection": "deny", "zdr": True, "sort": "price"})
        assert await judged(gateway) == {"judged": 1}
        provider = gateway.up.requests[-1].json()["provider"]
        assert gateway.up.requests[-1].json()["model"] == NOVA
        assert (provider["data_collection"], provider["zdr"]) == ("deny", True)
        assert "sort" not in provider and "max_price" in provider


async def test_nobody_judges_relatives(start: Start) -> None:
    """Also not when there is nobody else: a favour that was never measured cannot be taken off."""
    judges = JudgeSettings(share=1.0, models=("openai/gpt-4.1-mini", NOVA))
    async with start(learning=LearningSettings(judge=judges)) as gateway:
        gateway.up.script(NOVA, mark(5), times=None)
        for number in range(12):
            await ask(gateway, text=f"{number}?")
        assert await judged(gateway, 12) == {"judged": 12}
        labels = {row["label"] for row in await gateway.rows("feedback")}
        assert labels == {NOVA}
    only = JudgeSettings(share=1.0, models=("openai/gpt-4.1-mini",))
    async with start(learning=LearningSettings(judge=only)) as gateway:
        before = len(gateway.up.requests)
        await ask(gateway)
        assert await judged(gateway) == {"no_judge": 1}
        assert len(gateway.up.requests) == before + 1


async def test_a_key_without_money_for_it_is_not_judged(start: Start) -> None:
    """What a key has left is for its own requests; judging takes a tenth of it at the most."""
    async with start(learning=ALL) as gateway:
        poor = await gateway.new_key("poor", daily=0.0002)
        await gateway.catch_up()
        answer = await ask(gateway, key=poor, max_tokens=20)
        assert answer.status == 200
        assert await judged(gateway) == {"unpaid": 1}
        assert [row.model for row in await gateway.outcomes()] == [MINI]


async def test_all_judging_together_keeps_its_own_budget(start: Start) -> None:
    judges = JudgeSettings(share=1.0, models=(NOVA,), daily_budget_usd=0.0004)
    async with start(learning=LearningSettings(judge=judges)) as gateway:
        gateway.up.script(NOVA, mark(5), times=None)
        for _ in range(30):
            await ask(gateway)
        became = await judged(gateway, 30)
        assert set(became) == {"judged", "unpaid"}
        spent = sum(row.cost_nano for row in await gateway.outcomes() if row.model == NOVA)
        assert 0 < spent <= nano_from_usd(0.0004)


async def test_only_answers_of_sophias_choice_are_judged(start: Start) -> None:
    async with start(learning=ALL) as gateway:
        await gateway.client.chat(MINI)
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        text = {"type": "text", "text": "What is this?"}
        await ask(gateway, messages=[{"role": "user", "content": [text, image]}])
        await asyncio.sleep(0.05)
        assert len(gateway.up.requests) == 2


async def test_the_share_is_drawn_by_lot_and_the_ledger_tells_on_whom_it_fell(start: Start) -> None:
    some = LearningSettings(judge=JudgeSettings(share=0.5, models=(NOVA,)))
    async with start(learning=some) as gateway:
        gateway.up.script(NOVA, mark(5), times=None)
        asked = {}
        for number in range(40):
            id = (await ask(gateway, text=f"{number}?")).headers["x-sophia-decision-id"]
            store = gateway.sophia.store
            row = await store.decision(decode_id("dec", id) or 0)
            plan = decode_plan(row.plan)
            asked[row.attempt_id] = plan.trace.judge_sampled
        assert await judged(gateway, sum(asked.values())) == {"judged": sum(asked.values())}
        assert 8 <= sum(asked.values()) <= 32
        told = {row["decision_id"] for row in await gateway.rows("feedback")}
        assert told == {id for id, drawn in asked.items() if drawn}


async def test_what_a_cascades_rubric_marked_is_not_judged_again(start: Start) -> None:
    async with start(
        learning=ALL, cascade=CascadeSettings(rubric_model=NOVA, value_usd=1.0)
    ) as gateway:
        gateway.up.script(NOVA, ScriptStep(text="9"), times=None)
        hints = {"models": [NEMO, SONNET], "cascade": "check", "explore": False}
        body = chat("sophia/auto:cheap", max_tokens=500, sophia=hints)
        answer = await gateway.client.post("/v1/chat/completions", body)
        assert answer.status == 200
        await asyncio.sleep(0.05)
        marks = [row for row in await gateway.outcomes() if row.finish_reason == "rubric"]
        assert len(marks) == 1 and marks[0].attempt_id & 15 != JUDGE_ATTEMPT


async def test_too_many_that_wait_are_left_out(start: Start) -> None:
    async with start(learning=ALL) as gateway:
        gateway.up.script(NOVA, ScriptStep(no_answer="hang"), times=None)
        await asyncio.gather(*(ask(gateway, text=f"{number}?") for number in range(80)))
        assert await judged(gateway, 16) == {"dropped": 16}
        await gateway.sophia.judge.close(0.0)


async def test_stopping_ends_a_judgement_and_keeps_its_bill_open(start: Start) -> None:
    async with start(learning=ALL) as gateway:
        gateway.up.script(NOVA, ScriptStep(no_answer="hang"))
        await ask(gateway)
        async with asyncio.timeout(3):
            while len(gateway.up.requests) < 2:
                await asyncio.sleep(0.01)
        await asyncio.wait_for(gateway.sophia.judge.close(0.05), 1)
    async with start() as gateway:
        _, held = await gateway.standing()
        assert held > 0


async def test_neither_question_nor_answer_is_written_down(start: Start) -> None:
    async with start(learning=ALL) as gateway:
        gateway.up.script(MINI, ScriptStep(text="As blue as azulejos."))
        gateway.up.script(NOVA, ScriptStep(text='{"flaws": "azulejos are not blue", "score": 4}'))
        await ask(gateway, text=SECRET)
        assert await judged(gateway) == {"judged": 1}
        await gateway.outcomes()
        files = [path for path in gateway.folder.rglob("*") if path.is_file()]
        kept = b"".join(path.read_bytes() for path in files)
        assert SECRET.encode() not in kept and b"azulejos" not in kept


async def test_judged_decisions_come_out_the_same_bit_by_bit(start: Start) -> None:
    async with start(learning=ALL) as gateway:
        gateway.up.script(NOVA, mark(9), mark(2), times=None)
        for number in range(30):
            await gateway.client.chat("sophia/auto", text=f"{number} Why is the sky blue?")
            await judged(gateway, number + 1)
        result = await replayed(gateway, ALL)
        assert result.identical >= 5 and result.different == ()


@pytest.mark.parametrize("models", [(), ("no/such-model",)])
async def test_judging_by_nobody_is_refused_at_start(start: Start, models: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"learning\.judge\.models"):
        async with start(learning=LearningSettings(judge=JudgeSettings(share=0.1, models=models))):
            pass


async def test_a_kill_in_mid_judgement_loses_no_bill(start: Start, up: Any, server: str) -> None:
    """The probable cost stays charged to the key and to the judges' purse."""
    async with start() as gateway:
        folder = gateway.folder
    up.script(NOVA, ScriptStep(no_answer="hang"))
    settings = folder.parent / "sophia.yaml"
    settings.write_text(
        f"data_dir: {folder}\ncatalogue: {{refresh_hours: 0}}\n"
        f"learning: {{judge: {{share: 1.0, models: [{NOVA}]}}}}\n"
    )
    environ = os.environ | {"OPENROUTER_API_KEY": "k", "OPENROUTER_BASE_URL": up.base_url}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sophia",
        "serve",
        "--port",
        "0",
        "--config",
        str(settings),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            while not (line := (await process.stdout.readline()).decode()).startswith(
                "Sophia serves"
            ):
                assert line or process.returncode is None
        port = int(line.split()[2].rsplit(":", 1)[1].split("/")[0])
        client = Client(port, (folder / "first.key").read_text())
        answer = await client.chat("sophia/auto", sophia={"models": [MINI]})
        assert answer.status == 200
        async with asyncio.timeout(5):
            while sum(one.path.endswith("/chat/completions") for one in up.requests) < 2:
                await asyncio.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    (judgement,) = [each for each in left_open(folder) if each.attempt_id & 15 == JUDGE_ATTEMPT]
    held = min(judgement.expected_nano or judgement.held_nano, judgement.held_nano)
    assert held > 0
    async with start(learning=ALL, budget=BudgetSettings()) as gateway:
        books = gateway.sophia.app.runtime.ledger
        window = day_window(books.clock.wall())
        account = await books.store.account(JUDGE_ACCOUNT, window)
        assert (account.spent_nano, account.held_nano) == (0, held)
        (key,) = await gateway.rows("keys")
        assert (await books.store.account(key["id"], window)).held_nano >= held
