"""The sandbox fails exactly as scripted, as a client sees that reads bytes."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sandbox_client import MODELS, PLAIN, THINKER, Answer, Client, chat

from sophia.sandbox import BilledGeneration, ScriptedUpstream, ScriptStep

GOOD_CHUNKS = 2  # the role-only chunk, and the one text chunk before an event at 1


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with ScriptedUpstream(models=MODELS) as up:
        yield Client(up)


async def play(
    client: Client, step: ScriptStep, *, stream: bool = True, patience: float = 5.0
) -> Answer:
    client.up.script(PLAIN, step)
    return await client.post(chat(stream=stream), patience=patience)


async def booked(client: Client, count: int = 1) -> BilledGeneration:
    """Return the last of `count` rows of the bill once they are there."""
    async with asyncio.timeout(5):
        while len(client.up.bill.rows) < count:
            await asyncio.sleep(0)
    assert len(client.up.bill.rows) == count
    return client.up.bill.rows[-1]


def finishes(answer: Answer) -> list[str]:
    choices = [choice for chunk in answer.chunks for choice in chunk["choices"]]
    return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "authentication"),
        (402, "payment_required"),
        (500, "server"),
        (529, "provider_overloaded"),
    ],
)
async def test_an_error_status_is_typed(
    client: Client, status: int, kind: str, stream: bool
) -> None:
    answer = await play(client, ScriptStep(status=status), stream=stream)
    error = answer.json["error"]
    assert (answer.status, error["code"], error["metadata"]["error_type"]) == (status, status, kind)
    assert not client.up.bill.rows


async def test_an_error_can_be_spelled_out(client: Client) -> None:
    step = ScriptStep(
        status=429,
        error_type="rate_limit_exceeded",
        message="free-models-per-day",
        metadata={"raw": "slow down"},
        availability={"code": "capacity_exhausted", "retryable": True, "retry_after": 7},
    )
    error = (await play(client, step)).json["error"]
    assert error["message"] == "free-models-per-day"
    assert error["metadata"] == {"error_type": "rate_limit_exceeded", "raw": "slow down"}
    assert error["availability"]["retry_after"] == 7


@pytest.mark.parametrize("form", ["2", "0.5", "Wed, 21 Oct 2026 07:28:00 GMT", "soon"])
async def test_retry_after_stands_as_given(client: Client, form: str) -> None:
    answer = await play(
        client, ScriptStep(status=429, retry_after=form, headers={"retry-after-ms": "250"})
    )
    assert answer.headers["retry-after"] == form
    assert answer.headers["retry-after-ms"] == "250"


async def test_a_200_may_carry_an_error_or_html_or_nothing(client: Client) -> None:
    error = await play(
        client, ScriptStep(body={"error": {"code": 502, "message": "no"}}), stream=False
    )
    assert (error.status, error.json) == (200, {"error": {"code": 502, "message": "no"}})
    page = await play(client, ScriptStep(body="<html>", headers={"Content-Type": "text/html"}))
    assert (page.status, page.body, page.headers["content-type"]) == (200, b"<html>", "text/html")
    gateway = await play(client, ScriptStep(status=502, body=b"\xff\xfe"))
    assert (gateway.status, gateway.body) == (502, b"\xff\xfe")


async def test_a_whole_answer_can_be_bent(client: Client) -> None:
    padded = await play(client, ScriptStep(leading=b"\n\n \n"), stream=False)
    assert padded.body.startswith(b"\n\n \n{")
    nothing = await play(client, ScriptStep(extra={"choices": None}), stream=False)
    assert nothing.json["choices"] is None
    empty = await play(client, ScriptStep(text=""), stream=False)
    assert empty.json["choices"][0]["message"]["content"] == ""
    assert empty.json["usage"]["completion_tokens"] == 0
    odd = await play(
        client, ScriptStep(finish_reason="tired", native_finish_reason="nap"), stream=False
    )
    assert odd.json["choices"][0]["finish_reason"] == "tired"
    assert odd.json["choices"][0]["native_finish_reason"] == "nap"
    gaps = ScriptStep(
        drop=["provider", "choices.finish_reason", "choices.message.role"], extra={"new": 1}
    )
    answer = (await play(client, gaps, stream=False)).json
    assert "provider" not in answer
    assert "finish_reason" not in answer["choices"][0]
    assert "role" not in answer["choices"][0]["message"]
    assert answer["new"] == 1


async def test_usage_may_be_wrong_or_missing_while_the_bill_is_right(client: Client) -> None:
    for stream in (False, True):
        wrong = await play(
            client, ScriptStep(usage={"completion_tokens": 9, "cost": 99.0}), stream=stream
        )
        usage = (wrong.chunks[-1] if stream else wrong.json)["usage"]
        assert (usage["completion_tokens"], usage["cost"]) == (9, 99.0)
        assert client.up.bill.rows[-1].completion_tokens > 9
    assert "usage" not in (await play(client, ScriptStep(no_usage=True), stream=False)).json
    stream_without = await play(client, ScriptStep(no_usage=True))
    assert all("usage" not in chunk for chunk in stream_without.chunks)
    assert stream_without.data[-1] == "[DONE]"
    old = await play(client, ScriptStep(usage_choice=True))
    assert old.chunks[-1]["choices"][0]["finish_reason"] is None


async def test_text_reasoning_and_arguments_can_be_scripted(client: Client) -> None:
    step = ScriptStep(text="  Two  words\n", reasoning="Hm.")
    assert (await play(client, step)).text == "  Two  words\n"
    client.up.script(PLAIN, ScriptStep(tool_arguments='{"broken'))
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    answer = await client.post(chat(tools=[tool], tool_choice="required"))
    assert (
        answer.json["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"broken'
    )


@pytest.mark.parametrize(
    ("step", "end"),
    [
        (ScriptStep(cut_after=1), "eof"),
        (ScriptStep(reset_after=1), "reset"),
        (ScriptStep(stall_after=1), "timeout"),
    ],
)
async def test_a_stream_breaks_after_so_many_events(
    client: Client, step: ScriptStep, end: str
) -> None:
    answer = await play(client, step, patience=0.1 if end == "timeout" else 5)
    assert answer.end == end
    assert len(answer.chunks) == GOOD_CHUNKS
    assert not finishes(answer)
    row = await booked(client)
    assert row.finish_reason is None
    assert row.completion_tokens == 1
    assert row.cost > 0


async def test_a_break_before_any_content_costs_nothing(client: Client) -> None:
    answer = await play(client, ScriptStep(cut_after=0))
    assert [chunk["choices"][0]["delta"]["content"] for chunk in answer.chunks] == [""]
    (row,) = client.up.bill.rows
    assert (row.completion_tokens, row.cost, row.finish_reason) == (0, 0, None)


@pytest.mark.parametrize(
    ("step", "end"),
    [
        (ScriptStep(cut_after=30), "eof"),
        (ScriptStep(reset_after=30), "reset"),
        (ScriptStep(stall_after=30), "timeout"),
    ],
)
async def test_a_whole_answer_breaks_after_so_many_bytes(
    client: Client, step: ScriptStep, end: str
) -> None:
    answer = await play(client, step, stream=False, patience=0.1 if end == "timeout" else 5)
    assert answer.end == end
    assert len(answer.body) == 30
    assert int(answer.headers["content-length"]) > 30


async def test_malformed_events_lie_between_good_ones(client: Client) -> None:
    answer = await play(client, ScriptStep(malformed_at=1, text="one two"))
    broken = [data for data in answer.data if not data.endswith(("}", "[DONE]"))]
    assert len(broken) == 1
    assert answer.data[-1] == "[DONE]"


@pytest.mark.parametrize("choices", [True, False])
async def test_an_error_chunk_ends_the_stream(client: Client, choices: bool) -> None:
    step = ScriptStep(error_at=1, error_choices=choices, status=429, message="Too many")
    answer = await play(client, step)
    assert (answer.status, answer.end) == (200, "complete")
    last = answer.chunks[-1]
    assert last["error"]["code"] == 429
    assert last["error"]["metadata"]["error_type"] == "rate_limit_exceeded"
    assert finishes(answer) == (["error"] if choices else [])
    assert "[DONE]" not in answer.data
    assert (await play(client, ScriptStep(error_at=0))).chunks[-1]["error"]["code"] == 502


async def test_the_end_of_a_stream_can_be_odd(client: Client) -> None:
    assert (await play(client, ScriptStep(no_done=True))).data[-1] != "[DONE]"
    assert finishes(await play(client, ScriptStep(double_finish=True))) == ["stop", "stop"]
    assert finishes(await play(client, ScriptStep(finish_reason="content_filter"))) == [
        "content_filter"
    ]
    empty = await play(client, ScriptStep(text=""))
    assert (empty.text, finishes(empty)) == ("", ["stop"])


async def test_comments_alone_may_come_for_ever(client: Client) -> None:
    answer = await play(client, ScriptStep(comments_after=0, comment_every=0.005), patience=0.1)
    assert answer.end == "timeout"
    assert len(answer.chunks) == 1
    assert answer.lines.count(": OPENROUTER PROCESSING") > 3


async def test_fields_can_be_missing_from_chunks(client: Client) -> None:
    answer = await play(
        client, ScriptStep(drop=["created", "choices.index"], extra={"surprise": [1]})
    )
    for chunk in answer.chunks:
        assert "created" not in chunk
        assert chunk["surprise"] == [1]
        assert all("index" not in choice for choice in chunk["choices"])


async def test_a_bad_chunk_size_is_no_http(client: Client) -> None:
    answer = await play(client, ScriptStep(bad_chunk_at=1))
    assert answer.broken
    assert len(answer.chunks) == GOOD_CHUNKS


async def test_a_wrong_content_length_leaves_the_client_waiting_for_the_rest(
    client: Client,
) -> None:
    long = await play(client, ScriptStep(content_length=100_000), stream=False)
    assert long.end == "eof"
    short = await play(client, ScriptStep(content_length=10), stream=False)
    assert len(short.body) == 10


async def test_a_dribble_comes_in_many_small_reads(client: Client) -> None:
    answer = await play(client, ScriptStep(dribble=7, text="a few words"))
    assert answer.text == "a few words"
    assert len(answer.reads) > 50


@pytest.mark.parametrize(
    ("how", "end"), [("close", "eof"), ("reset", "reset"), ("hang", "timeout")]
)
async def test_there_may_be_no_answer_at_all(client: Client, how: Any, end: str) -> None:
    answer = await play(client, ScriptStep(no_answer=how), patience=0.1 if end == "timeout" else 5)
    assert (answer.end, answer.reads) == (end, [])
    assert not client.up.bill.rows


async def test_waits_are_real(client: Client) -> None:
    loop = asyncio.get_running_loop()
    for step in (
        ScriptStep(delay=0.05),
        ScriptStep(first_delay=0.05),
        ScriptStep(chunk_delay=0.05, text="one two"),
    ):
        start = loop.time()
        await play(client, step)
        assert 0.04 < loop.time() - start < 1


@pytest.mark.parametrize(("last", "end"), [("fin", "eof"), ("rst", "reset"), ("half_close", "eof")])
async def test_raw_bytes_are_written_as_they_are(client: Client, last: Any, end: str) -> None:
    step = ScriptStep(
        raw=(b"HTTP/1.1 200 OK\r\nContent-", ("sleep", 0.001), b"Length: 9\r\n\r\nhalf", last)
    )
    answer = await play(client, step)
    assert (answer.status, answer.body, answer.end) == (200, b"half", end)
    assert (await play(client, ScriptStep(raw=[b"\x16\x03\x01nonsense"]))).broken


async def test_the_speed_follows_the_model_and_the_factor() -> None:
    async with ScriptedUpstream(models=MODELS, speed=8) as up:
        start = asyncio.get_running_loop().time()
        await Client(up).post(chat(max_tokens=8))
        assert 0.06 < asyncio.get_running_loop().time() - start < 1


@pytest.mark.parametrize(
    "step", [ScriptStep(chunk_delay=0.01), ScriptStep(stall_after=3), ScriptStep(comments_after=3)]
)
async def test_a_client_that_leaves_a_stream_is_billed_for_what_it_got(
    client: Client, step: ScriptStep
) -> None:
    client.up.script(PLAIN, step)
    body = json.dumps(chat(stream=True)).encode()
    async with client.connection("POST", "/v1/chat/completions", body) as reader:
        while b'"content":"Th' not in await reader.readuntil(b"\n\n"):
            pass
    row = await booked(client)
    assert row.aborted
    assert 1 <= row.completion_tokens < 10
    assert row.cost == row.prompt_tokens * 150 + row.completion_tokens * 600
    assert (client.up.requests[-1].aborted, client.up.requests[-1].finished) == (True, False)


async def test_a_whole_answer_is_billed_in_full_when_the_client_leaves(client: Client) -> None:
    whole = await client.post(chat())
    client.up.speed = 1
    body = json.dumps(chat()).encode()
    async with client.connection("POST", "/v1/chat/completions", body):
        while len(client.up.requests) < 2:
            await asyncio.sleep(0)
    row = await booked(client, 2)
    assert row.aborted
    assert row.completion_tokens == whole.json["usage"]["completion_tokens"]


async def test_scripts_queue_for_each_model_and_then_all_is_well(client: Client) -> None:
    client.up.script(PLAIN, ScriptStep(status=500), ScriptStep(status=503), times=2)
    client.up.script(PLAIN, ScriptStep(status=429))
    client.up.script("*", ScriptStep(status=404), times=None)
    statuses = [(await client.post(chat())).status for _ in range(6)]
    assert statuses == [500, 503, 500, 503, 429, 404]
    assert (await client.post(chat(THINKER))).status == 404
    assert (await client.get("/v1/models")).status == 200
    client.up.scripts.clear()
    assert (await client.post(chat())).status == 200


async def test_pages_and_embeddings_can_fail_too(client: Client) -> None:
    client.up.script("/v1/models", ScriptStep(status=503), ScriptStep(body="<html>"))
    assert (await client.get("/api/v1/models")).status == 503
    assert (await client.get("/api/v1/models")).body == b"<html>"
    client.up.script("acme/embed", ScriptStep(status=429))
    body = {"model": "acme/embed", "input": "text"}
    assert (await client.post(body, "/v1/embeddings")).status == 429
    assert not client.up.bill.rows


async def test_what_is_no_http_gets_a_400(client: Client) -> None:
    reader, writer = await asyncio.open_connection(client.up.host, client.up.port)
    writer.write(b"\x16\x03\x01\x02")
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_a_mistake_of_the_sandbox_resets_the_connection_and_the_next_is_served(
    client: Client,
) -> None:
    """It must not look like a model that is slow."""
    answer = await play(client, ScriptStep(body={"no JSON": object()}), patience=2)
    assert (answer.end, answer.reads) == ("reset", [])
    assert (await client.post(chat())).status == 200
