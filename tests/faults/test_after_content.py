"""What goes wrong after the first content is told, and paid as far as it went."""

import asyncio
import json
from typing import Any

import pytest
from odd_upstreams import OWN, delta, events, own, stream_of
from stage import SSE_HEAD, asked, check_clean, sse

from gateway import MINI, NEMO, SHORT, Gateway, Start, chat
from shapes import check_chunk
from sophia.config import DeadlineSettings
from sophia.sandbox import ScriptStep

MIDSTREAM = {
    "cut": (ScriptStep(cut_after=3), "cut"),
    "rst": (ScriptStep(reset_after=3), "cut"),
    "stall": (ScriptStep(stall_after=3), "stall"),
    "only-comments": (ScriptStep(comments_after=3, comment_every=0.02), "stall"),
    "error": (ScriptStep(error_at=3, status=503, message="Overloaded"), "in_band"),
    "error-without-choices": (ScriptStep(error_at=3, error_choices=False), "in_band"),
    "bad-chunk": (ScriptStep(bad_chunk_at=3), "malformed"),
}


@pytest.mark.parametrize("name", MIDSTREAM)
async def test_a_stream_that_breaks_off_says_so(gateway: Gateway, name: str) -> None:
    """An error chunk with an integer code and `finish_reason: error`, and never `[DONE]`."""
    step, cause = MIDSTREAM[name]
    gateway.up.script(MINI, step)
    answer = await asked(gateway, True)
    assert answer.status == 200 and answer.complete and not answer.done
    for chunk in answer.chunks:
        check_chunk(chunk)
    *rest, last = answer.chunks
    assert rest and all("error" not in chunk for chunk in rest)
    assert type(last["error"]["code"]) is int and last["error"]["message"]
    assert last["error"]["metadata"]["cause"] == cause
    assert last["error"]["metadata"]["fault"] == "upstream"
    assert [choice["finish_reason"] for choice in last["choices"]] == ["error"]
    assert {chunk["id"] for chunk in answer.chunks} == {last["id"]}
    assert answer.text and len(gateway.up.requests) >= 1
    (row,) = await gateway.settled(1)
    assert (row.state, row.failure) == ("settled", cause)
    (bill,) = gateway.up.bill.rows
    assert (row.cost_nano, row.cost_source) == (bill.cost, "upstream")
    assert await gateway.standing() == (bill.cost / 1e9, 0.0)


async def test_a_second_malformed_event_ends_the_stream(gateway: Gateway) -> None:
    good = {"id": "gen-x", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}
    one = f"data: {json.dumps(good)}\n\n".encode()
    later = ("sleep", 0.02)
    gateway.up.script(
        MINI,
        ScriptStep(raw=(SSE_HEAD, one, later, b"data: {bad\n\n" + one, later, b"data: {bad\n\n")),
    )
    answer = await asked(gateway, True)
    assert answer.text == "HiHi" and not answer.done
    assert answer.chunks[-1]["error"]["metadata"]["cause"] == "malformed"
    (row,) = await gateway.settled(1)
    assert (row.state, row.cost_source) == ("settled", "estimated") and row.cost_nano > 0


def event(text: str | None, reason: str | None = None, index: int = 0) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": index, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"id": "gen-x", "choices": [choice]}).encode() + b"\n\n"


async def test_what_came_together_with_an_error_is_given_before_it(gateway: Gateway) -> None:
    error = b'data: {"error":{"code":502,"message":"gone"},"choices":[]}\n\n'
    gateway.up.script(
        MINI, ScriptStep(raw=(SSE_HEAD, event("a"), ("sleep", 0.02), event("b") + error))
    )
    answer = await asked(gateway, True)
    assert answer.text == "ab" and not answer.done
    assert answer.chunks[-1]["error"]["metadata"]["cause"] == "in_band"


@pytest.mark.parametrize("end", ["rst", "fin", "half_close", ("sleep", 0.5)])
async def test_a_stream_is_complete_with_its_finish_reason(gateway: Gateway, end: Any) -> None:
    """Whatever the connection does after it."""
    head = SSE_HEAD.replace(b"Connection: close\r\n", b"Transfer-Encoding: chunked\r\n")
    said = event("a") + event(None, "stop")
    chunk = b"%x\r\n%b\r\n" % (len(said), said)
    gateway.up.script(MINI, ScriptStep(raw=(head, chunk, ("sleep", 0.02), end)))
    check_clean(await asked(gateway, True), MINI, 1)


async def test_a_stream_of_two_choices_is_complete_with_both_ends(gateway: Gateway) -> None:
    said = event("a") + event("b", index=1) + event(None, "stop")
    gateway.up.script(MINI, ScriptStep(raw=(SSE_HEAD, said)))
    answer = await asked(gateway, True, n=2)
    assert not answer.done and answer.chunks[-1]["error"]["metadata"]["cause"] == "cut"


async def test_a_legacy_stream_that_breaks_off_says_so(gateway: Gateway) -> None:
    gateway.up.script(MINI, ScriptStep(cut_after=3))
    body = {"model": MINI, "prompt": "Once", "stream": True}
    answer = await gateway.client.post("/v1/completions", body)
    assert not answer.done
    last = answer.chunks[-1]
    check_chunk(last, chat=False)
    assert last["choices"][0]["finish_reason"] == "error" and type(last["error"]["code"]) is int


async def test_a_slow_reader_slows_the_upstream_down(gateway: Gateway) -> None:
    """Row 30: what the client does not read is not piled up in Sophia."""
    size = 40 * 1024 * 1024
    payload = json.dumps({"id": "g", "choices": [{"index": 0, "delta": {"content": "x" * 65000}}]})
    event = b"data: %b\n\n" % payload.encode()
    sent = 0

    def pieces() -> Any:
        nonlocal sent
        yield SSE_HEAD
        while sent < size:
            sent += len(event)
            yield event

    gateway.up.script(MINI, ScriptStep(raw=pieces()))  # type: ignore[arg-type]  # read once, lazily
    request = gateway.client.request(chat(stream=True))
    async with gateway.client.connection(request) as reader:
        await reader.readexactly(1000)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.05)
        assert sent < size / 2
    (row,) = await gateway.settled(1)
    assert row.failure in ("client_gone", "stall")


async def test_a_request_has_one_deadline_over_all_attempts(start: Start) -> None:
    from sophia.config import DeadlineSettings

    clocks = DeadlineSettings(content_s=5, request_s=0.2)
    async with start(deadlines=clocks) as gateway:
        gateway.up.script("*", ScriptStep(no_answer="hang"), times=None)
        begun = asyncio.get_running_loop().time()
        answer = await asked(gateway, False)
        assert answer.status == 504
        assert asyncio.get_running_loop().time() - begun < 1.0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_stream_cut_before_the_second_choice_began_is_cut(
    gateway: Gateway, path: str
) -> None:
    """One choice has ended, `[DONE]` never came: the other one is missing, not empty."""
    choices = (
        {"index": 0, "delta": {"content": "a"}, "text": "a", "finish_reason": None},
        {"index": 0, "delta": {}, "text": "", "finish_reason": "stop"},
    )
    said = [json.dumps({"id": "gen-x", "choices": [choice]}) for choice in choices]
    gateway.up.script(MINI, sse(*said))
    more = chat(stream=True, n=2) | ({} if "chat" in path else {"prompt": "Once"})
    if "chat" not in path:
        del more["messages"]
    answer = await gateway.client.post(path, more)
    assert answer.status == 200 and answer.complete and not answer.done
    assert answer.chunks[-1]["error"]["metadata"]["cause"] == "cut"


async def test_text_without_usage_is_not_billed_too_low(gateway: Gateway) -> None:
    """D4: Chinese has about one token for each character, not one for four."""
    text = "路由器为每个请求选择合适的模型" * 20
    gateway.up.script(MINI, ScriptStep(text=text, no_usage=True))
    assert (await gateway.client.chat()).status == 200
    (row,) = await gateway.settled(1)
    assert row.cost_source == "estimated" and row.completion_tokens == len(text)


@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["together", "apart"])
async def test_text_before_an_error_is_charged(start: Start, pause: float) -> None:
    """Row 7, however the network cuts it."""
    error = {"error": {"code": 502, "message": "Provider disconnected"}, "choices": []}
    text, rest = events(*[delta(content="word " * 20)] * 100)[:-14], events(error)
    async with own(start) as gateway:
        parts = [SSE_HEAD + text, ("sleep", pause), rest] if pause else [SSE_HEAD + text + rest]
        gateway.up.script(MINI, ScriptStep(raw=[*parts, "fin"]))
        await gateway.client.chat(OWN, stream=True)
        (row,) = await gateway.settled(1)
        assert (row.completion_tokens, row.cost_source) == (3334, "estimated")


@pytest.mark.parametrize("cut", [True, False])
async def test_an_early_usage_is_not_the_bill(start: Start, cut: bool) -> None:
    """The first event of Anthropic's has a usage so far; a later one counts."""
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
    text = [delta(content="Hello") | {"usage": usage}, *[delta(content="word " * 20)] * 100]
    body = events(*text)[:-14] if cut else events(*text, delta("stop"))
    async with own(start) as gateway:
        gateway.up.script(MINI, ScriptStep(raw=[SSE_HEAD + body, ("sleep", 0.1), "fin"]))
        answer = await gateway.client.chat(OWN, stream=True)
        assert answer.done is not cut and len(answer.text) > 10_000
        (row,) = await gateway.settled(1)
        assert (row.prompt_tokens, row.completion_tokens) == (10, 3335)
        gateway.up.script(
            MINI, stream_of(*text, delta("stop") | {"usage": usage | {"completion_tokens": 2500}})
        )
        await gateway.client.chat(OWN, stream=True)
        last = (await gateway.outcomes())[-1]
        assert (last.completion_tokens, last.cost_source) == (2500, "priced")


async def test_the_bill_of_a_cut_stream_with_an_early_usage_is_asked_for(gateway: Gateway) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11, "cost": 0.000001}
    body = events(delta(content="Hello") | {"usage": usage}, delta(content=" again"))[:-14]
    gateway.up.script(MINI, ScriptStep(raw=[SSE_HEAD + body, ("sleep", 0.1), "fin"]))
    assert not (await gateway.client.chat(stream=True)).done
    await gateway.settled(1)
    assert gateway.up.requests[-1].path == "/api/v1/generation"


@pytest.mark.parametrize("end", ["rst", "stall"])
async def test_a_break_after_reasons_that_were_early_is_told(start: Start, end: str) -> None:
    """A server that says `stop` in every event has ended nothing."""
    parts = [events(delta("stop", content=text))[:-14] for text in ("One", " two", " three")]
    steps: list[Any] = [each for part in parts for each in (part, ("sleep", 0.05))]
    last = [("sleep", 5.0), "fin"] if end == "stall" else ["rst"]
    async with start(deadlines=SHORT) as gateway:
        gateway.up.script(MINI, ScriptStep(raw=[SSE_HEAD, *steps, *last]))
        assert not (await gateway.client.chat(stream=True)).done
        gateway.up.script(
            MINI, ScriptStep(raw=[SSE_HEAD, *steps, events(delta("stop"))[:-14], "rst"])
        )
        assert (await gateway.client.chat(stream=True)).done


@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["together", "apart"])
async def test_a_call_that_lost_a_part_is_not_complete(
    gateway: Gateway, older: bool, pause: float
) -> None:
    """Text may miss a word; a call with other arguments than the model's is run by a program."""

    def part(arguments: str) -> dict[str, Any]:
        function = {"name": "delete", "arguments": arguments}
        if older:
            return delta(function_call=function)
        return delta(tool_calls=[{"index": 0, "id": "a", "function": function}])

    broken = json.dumps(part(',"dry_run":true'))[:-3]
    first, rest = events(part('{"path":"/"'))[:-14], events(broken, part("}"), delta("stop"))
    raw = [SSE_HEAD + first, ("sleep", pause), rest] if pause else [SSE_HEAD + first + rest]
    gateway.up.script(MINI, ScriptStep(raw=[*raw, "fin"]))
    answer = await asked(gateway, stream=True)
    assert not answer.done if pause else answer.headers["x-sophia-model"] == NEMO


async def test_comments_after_the_end_do_not_hold_the_answer_back(start: Start) -> None:
    """The usage is waited for, 5 s in all."""
    body = events(delta(content="Hello"), delta("stop"))[:-14]
    comments = [one for _ in range(12) for one in (("sleep", 1.0), b": keep-alive\n\n")]
    patient = DeadlineSettings(content_s=60.0, stall_s=30.0, total_s=60.0)
    async with start(deadlines=patient) as gateway:
        gateway.up.script(MINI, ScriptStep(raw=[SSE_HEAD + body, *comments, "fin"]))
        began = asyncio.get_running_loop().time()
        assert (await gateway.client.chat(stream=True)).done
        assert asyncio.get_running_loop().time() - began < 8.0
