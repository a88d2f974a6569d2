"""Others are asked about an answer: a small model for a mark, or the caller's own webhook."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway import FLASH, MINI, SONNET, Answer, Gateway, Start
from sophia.config import CascadeSettings
from sophia.sandbox import ScriptStep


class Judge:
    """A server that answers every POST with the same body, and remembers what it was sent."""

    def __init__(self, reply: bytes | None, status: int) -> None:
        self.reply, self.status = reply, status
        self.asked: list[Any] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("post /judge http/1.1\r\n") and "application/json" in head
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        self.asked.append(json.loads(await reader.readexactly(length)))
        if self.reply is None:
            assert await reader.read() == b"", "nobody waits for a silent judge for ever"
        else:
            writer.write(
                b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (self.status, len(self.reply), self.reply)
            )
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def judging(reply: object, status: int = 200) -> AsyncIterator[Judge]:
    """Run a judge; one without a reply says nothing for ever."""
    judge = Judge(None if reply is None else json.dumps(reply).encode(), status)
    server = await asyncio.start_server(judge.serve, "127.0.0.1", 0)
    judge.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/judge"
    async with server:
        yield judge


async def ask(gateway: Gateway, **hints: Any) -> Answer:
    return await gateway.client.chat(
        MINI, models=[MINI, SONNET], max_tokens=500, sophia={"cascade": "check"} | hints
    )


async def verdicts(gateway: Gateway, answer: Answer) -> list[tuple[str, float, str]]:
    await gateway.sophia.app.runtime.cascade.feedback.close()  # type: ignore[union-attr]
    id = answer.headers["x-sophia-decision-id"]
    told = (await gateway.client.get(f"/v1/decisions/{id}")).json
    return sorted((one["channel"], one["score"], one["label"]) for one in told["feedback"])


async def test_a_webhook_that_rejects_an_answer_has_a_better_model_asked(start: Start) -> None:
    async with judging({"score": 0.1}) as judge:
        settings = CascadeSettings(webhooks=(judge.url,))
        async with start(cascade=settings) as gateway:
            gateway.up.script(MINI, ScriptStep(text="Because."))
            answer = await ask(gateway, webhook=judge.url)
            assert answer.headers["x-sophia-model"] == SONNET
            assert "webhook gives its answer 0.10" in answer.json["sophia"]["reason"]
            first, _ = await gateway.settled(2)
            assert first.failure == "check:webhook"
            asked = judge.asked[0]
            assert asked["answer"]["text"] == "Because." and asked["model"] == MINI
            assert asked["request"]["messages"][0]["content"] == "Why is the sky blue?"
            assert asked["decision_id"] == answer.headers["x-sophia-decision-id"]
            assert await verdicts(gateway, answer) == [
                ("test", 0.1, "webhook"),
                ("validator", 1.0, "passed"),
            ]


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ({"score": 0.9}, 200),
        ({"score": 7}, 200),
        ({"score": 0}, 500),
        ("no", 200),
        ({"mark": 0}, 200),
        (None, 200),
    ],
    ids=["good", "over", "status", "garbage", "other", "silent"],
)
async def test_a_webhook_without_a_bad_word_leaves_the_answer(
    start: Start, reply: object, status: int
) -> None:
    """A judge that is silent, late or broken is not heard, and nobody is told."""
    async with judging(reply, status) as judge:
        settings = CascadeSettings(webhooks=(judge.url,), webhook_s=0.2)
        async with start(cascade=settings) as gateway:
            answer = await ask(gateway, webhook=judge.url)
            assert answer.status == 200 and answer.headers["x-sophia-model"] == MINI
            assert len(judge.asked) == 1 and len(gateway.up.requests) == 1


async def test_only_webhooks_of_the_settings_are_called(start: Start) -> None:
    """Whoever could name any URL could have Sophia call into the operator's network."""
    async with judging({"score": 0}) as judge, start() as gateway:
        answer = await ask(gateway, webhook=judge.url)
        assert answer.status == 400 and answer.error["param"] == "sophia.webhook"
        assert not judge.asked and await gateway.untouched()


async def test_a_webhook_is_not_asked_about_what_fails_anyhow(start: Start) -> None:
    async with (
        judging({"score": 1}) as judge,
        start(cascade=CascadeSettings(webhooks=(judge.url,))) as gateway,
    ):
        gateway.up.script(MINI, ScriptStep(text=""), times=2)
        await gateway.client.chat(MINI, models=[MINI], sophia={"webhook": judge.url})
        assert not judge.asked


RUBRIC = CascadeSettings(rubric_model=FLASH)


def mark(score: int) -> ScriptStep:
    return ScriptStep(text=json.dumps({"flaws": "none", "score": score}))


async def test_a_low_mark_has_a_better_model_asked_and_marking_is_paid(start: Start) -> None:
    """The mark is an attempt of the same request: held, settled and on the same bill."""
    async with start(cascade=RUBRIC) as gateway:
        gateway.up.script(MINI, ScriptStep(text="Because."))
        gateway.up.script(FLASH, mark(0))
        answer = await ask(gateway)
        assert answer.headers["x-sophia-model"] == SONNET
        assert "rubric gives its answer 0.00" in answer.json["sophia"]["reason"]
        rows = {row.model: row for row in await gateway.settled(3)}
        assert rows[FLASH].finish_reason == "rubric" and rows[FLASH].failure is None
        assert rows[MINI].failure == "check:rubric" and rows[SONNET].failure is None
        total = sum(row.cost_nano for row in rows.values())
        assert total == gateway.up.bill.total and rows[FLASH].cost_nano > 0
        assert answer.json["sophia"]["cost_usd"] == pytest.approx(total / 1e9)
        assert await gateway.standing() == (total / 1e9, 0)
        assert ("judge", 0.0, "rubric") in await verdicts(gateway, answer)
        id = answer.headers["x-sophia-decision-id"]
        assert (await gateway.client.get(f"/v1/decisions/{id}")).json["served_by"] == SONNET


async def test_a_high_mark_leaves_the_answer(start: Start) -> None:
    async with start(cascade=RUBRIC) as gateway:
        gateway.up.script(MINI, ScriptStep(text="Because of scattering."))
        gateway.up.script(FLASH, mark(9))
        answer = await ask(gateway)
        assert answer.text == "Because of scattering."
        id = answer.headers["x-sophia-decision-id"]
        told = (await gateway.client.get(f"/v1/decisions/{id}")).json
        assert told["served_by"] == MINI and len(told["attempts_made"]) == 2
        page = (await gateway.client.get("/metrics", headers={})).body.decode()
        (line,) = [one for one in page.splitlines() if one.startswith("openrouter_requests_total{")]
        assert f'model="{MINI}"' in line, "a mark is no request of its own"


@pytest.mark.parametrize(
    "step",
    [ScriptStep(text="no idea"), ScriptStep(status=500), ScriptStep(cut_after=5)],
    ids=["words", "500", "cut"],
)
async def test_a_rubric_without_a_mark_is_not_heard(start: Start, step: ScriptStep) -> None:
    async with start(cascade=RUBRIC) as gateway:
        gateway.up.script(FLASH, step, times=2)
        answer = await ask(gateway)
        assert answer.status == 200 and answer.headers["x-sophia-model"] == MINI
        await gateway.settled(2)
        _, held = await gateway.standing()
        assert (held > 0) == (step.cut_after is not None)
        page = (await gateway.client.get("/metrics", headers={})).body.decode()
        (line,) = [one for one in page.splitlines() if one.startswith("openrouter_requests_total{")]
        assert f'model="{MINI}"' in line and 'status="200"' in line


async def test_a_makers_model_does_not_mark_its_own_kind(start: Start) -> None:
    async with start(cascade=CascadeSettings(rubric_model="openai/gpt-4o")) as gateway:
        await ask(gateway)
        assert len(gateway.up.requests) == 1
