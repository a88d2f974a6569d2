"""What goes wrong after the first content is told, and paid as far as it went."""

import asyncio
import json
from typing import Any

import pytest
from stage import SSE_HEAD, asked, check_clean, sse

from gateway import MINI, Gateway, Start, chat
from shapes import check_chunk
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
