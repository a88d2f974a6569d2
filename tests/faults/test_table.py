"""Each row of the failure table, whole and streamed: what is done, and what it costs.

The results of a full run are the last columns of docs/reference/failures.md; `make failures` writes
the page.
"""

import asyncio
import os
import socket
from pathlib import Path

import pytest
import table_rows_here  # noqa: F401 - registers its rows
from failures_page import PAGE, render_page
from stage import HTML, SSE_HEAD, asked, check_books, check_clean
from table_world import (
    CASES,
    GONE,
    STREAMS_ONLY,
    World,
    check_broken,
    check_ejected,
    check_next,
    check_told,
    own_upstream,
    row,
    told,
)

from gateway import FLASH, MINI, NEMO, Answer, Start
from sophia.config import BudgetSettings
from sophia.sandbox import ScriptedUpstream, ScriptStep
from sophia.serving.attempts.targets.failure_table import FAILURE_TABLE

RESULTS: dict[tuple[int, bool], bool] = {}


@row(1)
async def refused(world: World, stream: bool) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with own_upstream(world, bound.getsockname()[1]) as gateway:
            answer = await gateway.client.chat(GONE, models=[GONE, NEMO], stream=stream)
            check_clean(answer)
            first, _ = await check_books(gateway, "released", "settled")
            assert first.failure == "refused"
            assert (await gateway.client.chat(GONE, stream=stream)).status == 502


@row(2)
async def reset_after_sending(world: World, stream: bool) -> None:
    step = ScriptStep(no_answer="reset")
    await check_next(world, stream, step, state="unknown", cause="reset", times=2)


@row(3)
async def no_connection_in_time(world: World, stream: bool) -> None:
    with socket.socket() as deaf, socket.socket() as filler, socket.socket() as another:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for each in (filler, another):
            each.setblocking(False)
            each.connect_ex(deaf.getsockname())
        await asyncio.sleep(0.05)
        async with own_upstream(world, deaf.getsockname()[1]) as gateway:
            answer = await gateway.client.chat(GONE, models=[GONE, NEMO], stream=stream)
            check_clean(answer)
            first, _ = await check_books(gateway, "released", "settled")
            assert first.failure == "connect_timeout"


@row(4)
async def no_content_in_time(world: World, stream: bool) -> None:
    step = ScriptStep(comments_after=0, comment_every=0.02) if stream else ScriptStep(delay=3.0)
    await check_next(world, stream, step, state="unknown", cause="content_timeout")


@row(5)
async def stall(world: World, stream: bool) -> None:
    async with world.gateway() as gateway:
        gateway.up.script(MINI, ScriptStep(stall_after=3))
        check_broken(await asked(gateway, stream), "stall")
        (only,) = await check_books(gateway, "settled")
        assert only.cost_nano == gateway.up.bill.total


@row(6)
async def cut(world: World, stream: bool) -> None:
    before = ScriptStep(cut_after=0) if stream else ScriptStep(cut_after=40)
    await check_next(world, stream, before, state="unknown", cause="cut")
    async with world.gateway() as gateway:
        if stream:
            gateway.up.script(MINI, ScriptStep(reset_after=3))
            check_broken(await asked(gateway, stream), "cut")
            gateway.up.script(MINI, ScriptStep(cut_after=3))
            hints = {"on_cut": "continue"}
            assert (await asked(gateway, stream, sophia=hints)).complete


@row(7)
async def error_in_a_stream(world: World, stream: bool) -> None:
    step = ScriptStep(error_at=0, status=503)
    await check_next(world, stream, step, state="released", cause="in_band:503")
    async with world.gateway() as gateway:
        gateway.up.script(MINI, ScriptStep(error_at=3, status=503))
        check_broken(await asked(gateway, stream), "in_band")


@row(8)
async def error_with_200(world: World, stream: bool) -> None:
    step = ScriptStep(body={"error": {"code": 429, "message": "no"}})
    await check_next(world, stream, step, state="released", cause="in_band:429")


@row(9)
async def no_answer_with_200(world: World, stream: bool) -> None:
    step = ScriptStep(body="<html>busy</html>", headers=HTML)
    await check_next(world, stream, step, state="unknown", cause="malformed")


@row(10)
async def malformed_events(world: World, stream: bool) -> None:
    async with world.gateway() as gateway:
        gateway.up.script(MINI, ScriptStep(malformed_at=1))
        answer = await asked(gateway, stream)
        check_clean(answer, MINI, 1)
        assert told(answer, stream)["left_out_events"] == 1
        bad = b"data: {bad\n\n"
        gateway.up.script(MINI, ScriptStep(raw=(SSE_HEAD, bad, bad)))
        check_clean(await asked(gateway, stream))


@row(11)
async def rate_limit(world: World, stream: bool) -> None:
    async with world.gateway() as gateway:
        gateway.up.script(MINI, ScriptStep(status=429, retry_after="0.2"))
        check_clean(await gateway.client.chat(stream=stream), MINI, 2)
    await check_ejected(world, stream, ScriptStep(status=429, retry_after="60"))


@row(12)
async def capacity_exhausted(world: World, stream: bool) -> None:
    availability = {"code": "capacity_exhausted", "retry_after": 60}
    await check_ejected(world, stream, ScriptStep(status=429, availability=availability))


@row(13)
async def money_in_flight(world: World, stream: bool) -> None:
    limit = {"limit_source": "openrouter_in_flight_budget"}
    async with world.gateway() as gateway:
        gateway.up.script(MINI, ScriptStep(status=402, retry_after="0.2", metadata=limit))
        check_clean(await gateway.client.chat(stream=stream), MINI, 2)
    await check_ejected(world, stream, ScriptStep(status=402, retry_after="60", metadata=limit))


async def check_key_closed(world: World, stream: bool, status: int) -> None:
    async with world.gateway() as gateway:
        gateway.up.script("*", ScriptStep(status=status), times=2)
        answer = await asked(gateway, stream)
        assert answer.status == 502 and "Sophia's own account" in answer.error["message"]
        data = (await gateway.client.get("/v1/models/health")).json["data"]
        assert None in {each["model"] for each in data if each["state"] == "ejected"}
        assert (await asked(gateway, stream)).status == 200
        assert len(gateway.up.requests) == 3


@row(14)
async def no_money(world: World, stream: bool) -> None:
    await check_key_closed(world, stream, 402)


@row(15)
async def refused_key(world: World, stream: bool) -> None:
    await check_key_closed(world, stream, 401)


@row(16)
async def moderation(world: World, stream: bool) -> None:
    reasons = {"reasons": ["violence"]}
    step = ScriptStep(status=403, message="flagged", metadata=reasons)
    await check_told(world, stream, step)


@row(17)
async def constraint(world: World, stream: bool) -> None:
    step = ScriptStep(
        status=404, message="no provider", availability={"code": "constraint_filtered"}
    )
    await check_next(world, stream, step, state="released", cause="status:404")
    async with world.gateway() as gateway:
        gateway.up.script(MINI, step, times=None)
        answer = await gateway.client.chat(stream=stream)
        assert answer.status == 404 and "no provider" in answer.error["message"]


@row(18)
async def too_long(world: World, stream: bool) -> None:
    step = ScriptStep(status=400, error_type="context_length_exceeded", message="too long")
    async with world.gateway() as gateway:
        windows = {
            each["id"]: each["context_length"]
            for each in (await gateway.client.get("/v1/models")).json["data"]
        }
        short, same, long = sorted((MINI, NEMO, FLASH), key=windows.__getitem__)
        gateway.up.script(same, step)
        answer = await gateway.client.chat(same, models=[same, short, long], stream=stream)
        check_clean(answer, long, 2)
        gateway.up.script(long, step)
        alone = await gateway.client.chat(long, stream=stream)
        assert alone.status == 400
        assert alone.error["metadata"]["error_type"] == "context_length_exceeded"


@row(19)
async def bad_request(world: World, stream: bool) -> None:
    fault = ScriptStep(status=400, message="Failed to call a function. Please adjust your prompt.")
    await check_next(world, stream, fault, state="released", cause="status:400")
    await check_told(world, stream, ScriptStep(status=400, message="bad tool schema"))


@row(20)
async def model_gone(world: World, stream: bool) -> None:
    await check_ejected(world, stream, ScriptStep(status=404, error_type="model_not_found"))


@row(21)
async def server_error(world: World, stream: bool) -> None:
    for status in (408, 500, 502, 503, 504, 529):
        step = ScriptStep(status=status)
        async with world.gateway() as gateway:
            gateway.up.script(MINI, step)
            check_clean(await asked(gateway, stream))


@row(22)
async def empty(world: World, stream: bool) -> None:
    step = ScriptStep(text="")
    await check_next(world, stream, step, state="settled", cause="empty")
    async with world.gateway() as gateway:
        gateway.up.script(MINI, step)
        answer = await gateway.client.chat(stream=stream)
        assert answer.status == 200 and answer.text == ""


async def check_delivered(world: World, stream: bool, step: ScriptStep) -> Answer:
    async with world.gateway() as gateway:
        gateway.up.script(MINI, step)
        answer = await asked(gateway, stream)
        check_clean(answer, MINI, 1)
        (only,) = await check_books(gateway, "settled")
        assert only.cost_nano == gateway.up.bill.total
        return answer


@row(23)
async def refusal(world: World, stream: bool) -> None:
    text = "I cannot help with that."
    assert (await check_delivered(world, stream, ScriptStep(text=text))).text == text


@row(24)
async def ends_at_its_limit(world: World, stream: bool) -> None:
    answer = await check_delivered(world, stream, ScriptStep(finish_reason="length"))
    bodies = answer.chunks if stream else [answer.json]
    reasons = [choice["finish_reason"] for body in bodies for choice in body["choices"]]
    assert "length" in reasons


@row(25)
async def invalid_arguments(world: World, stream: bool) -> None:
    step = ScriptStep(tool_arguments='{"city": "Par')
    async with world.gateway() as gateway:
        gateway.up.script(MINI, step)
        function = {"name": "weather", "parameters": {"type": "object"}}
        tools = [{"type": "function", "function": function}]
        check_clean(await asked(gateway, stream, tools=tools), MINI, 1)


@row(26)
async def repetition(world: World, stream: bool) -> None:
    step = ScriptStep(text="again and " * 200)
    await check_delivered(world, stream, step)
    async with world.gateway() as gateway:
        gateway.up.script(MINI, step)
        answer = await asked(gateway, stream, sophia={"cut_repetition": True})
        if stream:
            check_broken(answer, "repetition")
        else:
            check_clean(answer)


@row(27)
async def no_usage(world: World, stream: bool) -> None:
    async with world.gateway() as gateway:
        gateway.up.script(MINI, ScriptStep(no_usage=True))
        check_clean(await asked(gateway, stream), MINI, 1)
        (only,) = await gateway.settled(1)
        assert (only.state, only.cost_source) == ("settled", "estimated")
        assert only.completion_tokens > 0
        (intent,) = await gateway.rows("intents")
        spent, held = await gateway.standing()
        assert spent == only.cost_nano / 1e9
        assert spent + held == pytest.approx(intent["held_nano"] / 1e9)


@row(28)
async def above_the_hold(world: World, stream: bool) -> None:
    async with world.gateway(budget=BudgetSettings(daily_usd=1.0)) as gateway:
        gateway.up.script(MINI, ScriptStep(usage={"cost": 2.0}))
        check_clean(await asked(gateway, stream), MINI, 1)
        (only,) = await check_books(gateway, "settled")
        assert only.cost_nano == 2_000_000_000
        assert (await asked(gateway, stream)).status == 402


IDS = [(each.number, stream) for each in FAILURE_TABLE for stream in (False, True)]


@pytest.mark.parametrize("server", ["native"])
@pytest.mark.parametrize(
    ("number", "stream"),
    [pair for pair in IDS if pair[1] or pair[0] not in STREAMS_ONLY],
    ids=lambda value: str(value) if type(value) is int else ("stream" if value else "whole"),
)
async def test_a_row_is_handled_as_the_table_says(
    number: int, stream: bool, start: Start, tmp_path: Path, migrated: Path, up: ScriptedUpstream
) -> None:
    RESULTS[number, stream] = False
    await CASES[number](World(start, tmp_path, migrated, up), stream)
    RESULTS[number, stream] = True


def test_the_page_shows_these_results() -> None:
    """Generated from this run, so that it cannot say more than the tests do."""
    if len(RESULTS) < len(IDS) - len(STREAMS_ONLY):
        pytest.skip("only a run of every row can be compared")
    page = render_page(RESULTS)
    if os.environ.get("FAILURES") == "record":
        PAGE.write_text(page)
    assert page == PAGE.read_text(), "run `make failures`"
