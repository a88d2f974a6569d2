"""What goes wrong before the first content is invisible; what goes wrong after it is told."""

import asyncio
import json
from typing import Any

import pytest

from gateway import CODER, FLASH, MINI, NEMO, SHORT, Answer, Gateway, chat
from shapes import check_chunk, check_stream, check_whole
from sophia.config import LocalModel, UpstreamSettings
from sophia.core.rows import Outcome
from sophia.testing import Step

HTML = {"Content-Type": "text/html"}
SSE = {"Content-Type": "text/event-stream"}


SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def sse(*payloads: str) -> Step:
    body = "".join(f"data: {payload}\n\n" for payload in payloads)
    return Step(body=body, headers=SSE)


@pytest.fixture
async def gateway(start: Any) -> Any:
    async with start(deadlines=SHORT) as running:
        yield running


async def asked(gateway: Gateway, stream: bool, **more: Any) -> Answer:
    """Ask for MINI with NEMO as the substitute."""
    return await gateway.client.chat(models=[MINI, NEMO], stream=stream, **more)


def check_clean(answer: Answer, model: str = NEMO, attempts: int = 2) -> None:
    """The client sees an ordinary answer."""
    assert answer.status == 200 and answer.complete, answer
    if answer.headers["content-type"] == "application/json":
        check_whole(answer.json)
        told = answer.json
    else:
        assert answer.done
        check_stream(answer.chunks)
        told = answer.chunks[-1]
    assert told["model"] == model
    assert told["sophia"]["model"] == answer.headers["x-sophia-model"] == model
    assert told["sophia"]["attempts"] == attempts
    assert answer.headers["x-sophia-attempts"] == str(attempts)


async def check_books(gateway: Gateway, *states: str) -> list[Outcome]:
    """One row for each attempt, and only what is in doubt stays held."""
    rows = await gateway.settled(len(states))
    assert [row.state for row in rows] == list(states)
    held = sum(
        row["held_nano"]
        for row in await gateway.rows("intents")
        if any(o.attempt_id == row["attempt_id"] and o.state == "unknown" for o in rows)
    )
    spent = sum(row.cost_nano for row in rows if row.state != "unknown")
    assert await gateway.standing() == (spent / 1e9, held / 1e9)
    return rows


REFUSED = {
    "401": (Step(status=401), "status:401"),
    "402": (Step(status=402), "status:402"),
    "403-region": (Step(status=403, message="not available in your region"), "status:403"),
    "404-gone": (Step(status=404, error_type="model_not_found"), "status:404"),
    "404-filtered": (
        Step(status=404, availability={"code": "constraint_filtered", "retryable": False}),
        "status:404",
    ),
    "400-context": (
        Step(status=400, error_type="context_length_exceeded", message="too long"), "status:400",
    ),
    "400-context-text": (
        Step(status=400, message="This endpoint's maximum context length is 8 tokens."),
        "status:400",
    ),
    "408": (Step(status=408), "status:408"),
    "429": (Step(status=429), "status:429"),
    "429-retry-after": (Step(status=429, retry_after="3600"), "status:429"),
    "429-retry-after-ms": (Step(status=429, headers={"Retry-After-Ms": "5000"}), "status:429"),
    "429-date": (Step(status=429, retry_after="Wed, 21 Oct 2099 07:28:00 GMT"), "status:429"),
    "429-availability": (
        Step(status=429, availability={"code": "capacity_exhausted", "retry_after": 9}),
        "status:429",
    ),
    "500": (Step(status=500), "status:500"),
    "502": (Step(status=502), "status:502"),
    "503": (Step(status=503), "status:503"),
    "504": (Step(status=504), "status:504"),
    "524": (Step(status=524), "status:524"),
    "529": (Step(status=529), "status:529"),
    "500-html": (Step(status=500, body="<html>", headers=HTML), "status:500"),
    "502-empty": (Step(status=502, body=b""), "status:502"),
    "200-error": (Step(body={"error": {"code": 502, "message": "no"}}), "in_band:502"),
    "200-error-string-code": (
        Step(body={"error": {"code": "429", "message": "no"}}), "in_band:429",
    ),
    "200-error-with-null-choices": (
        Step(body={"error": {"code": 503, "message": "no"}, "choices": None}), "in_band:503",
    ),
    "200-error-as-text": (Step(body={"error": "overloaded"}), "in_band"),
    "200-newlines-and-error": (
        Step(body=b'\n\n\n{"error":{"code":500,"message":"no"}}'), "in_band:500",
    ),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_goes_to_the_next_model(gateway: Gateway, name: str, stream: bool) -> None:
    """Rows 8, 11, 12, 14, 15, 17, 18, 20 and 21: the upstream said no, so it does not bill."""
    step, cause = REFUSED[name]
    gateway.up.script(MINI, step)
    check_clean(await asked(gateway, stream))
    first, second = await check_books(gateway, "released", "settled")
    assert (first.model, first.failure, first.cost_nano) == (MINI, cause, 0)
    assert (second.model, second.failure) == (NEMO, None)
    assert second.cost_nano == gateway.up.bill.total


BROKEN = {
    "closed": (Step(no_answer="close"), "reset"),
    "reset": (Step(no_answer="reset"), "reset"),
    "silent": (Step(no_answer="hang"), "content_timeout"),
    "garbage": (Step(raw=(b"\x00\x01nonsense\r\n\r\n",)), "malformed"),
    "half-a-head": (Step(raw=(b"HTTP/1.1 200 OK\r\nContent-Le",)), "reset"),
    "200-html": (Step(body="<html>busy</html>", headers=HTML), "malformed"),
    "200-nothing": (Step(body=b""), "malformed"),
    "200-json-of-another-kind": (Step(body={"hello": 1}), "malformed"),
    "200-list": (Step(body=b"[]"), "malformed"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_goes_to_the_next_model(
    gateway: Gateway, name: str, stream: bool
) -> None:
    """Rows 2, 4, 6 and 9: nobody knows what it cost, so the hold stays charged."""
    step, cause = BROKEN[name]
    gateway.up.script(MINI, step, times=2)
    answer = await asked(gateway, stream)
    check_clean(answer)
    first, _ = await check_books(gateway, "unknown", "settled")
    assert (first.model, first.failure) == (MINI, cause)


@pytest.mark.parametrize(
    ("step", "cause"),
    [
        (Step(stall_after=0), "content_timeout"),
        (Step(first_delay=5), "content_timeout"),
        (Step(comments_after=0, comment_every=0.02), "content_timeout"),
        (Step(cut_after=0), "cut"),
        (Step(reset_after=0), "cut"),
        (Step(bad_chunk_at=0), "malformed"),
        (Step(body=": nothing\n\ndata: [DONE]\n\n", headers=SSE), "cut"),
        (sse("{broken", "{broken", "[DONE]"), "malformed"),
        (sse('{"choices":[7]}'), "malformed"),
    ],
    ids=["stall", "slow", "comments", "cut", "reset", "bad-chunk", "empty", "malformed", "number"],
)
async def test_a_stream_that_fails_before_content_goes_to_the_next_model(
    gateway: Gateway, step: Step, cause: str
) -> None:
    """Rows 4, 6 and 10: the role-only chunk and comments are held back, they are no content."""
    gateway.up.script(MINI, step)
    check_clean(await asked(gateway, True))
    first, _ = await check_books(gateway, "unknown", "settled")
    assert first.failure == cause


@pytest.mark.parametrize("choices", [True, False])
@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_an_error_chunk_before_content_goes_to_the_next_model(
    gateway: Gateway, status: int, choices: bool
) -> None:
    """Row 7."""
    gateway.up.script(MINI, Step(error_at=0, status=status, error_choices=choices))
    check_clean(await asked(gateway, True))
    first, _ = await check_books(gateway, "released", "settled")
    assert first.failure == f"in_band:{status}"


@pytest.mark.parametrize("at", [5, 40])
@pytest.mark.parametrize("how", ["cut_after", "reset_after", "stall_after"])
async def test_a_whole_answer_that_breaks_off_goes_to_the_next_model(
    gateway: Gateway, how: str, at: int
) -> None:
    """Row 6: nothing of a whole answer has reached the client before all of it is here."""
    gateway.up.script(MINI, Step(**{how: at}))
    check_clean(await asked(gateway, False))
    first, _ = await check_books(gateway, "unknown", "settled")
    assert first.failure in ("cut", "content_timeout")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_empty_answer_goes_to_the_next_model_and_is_paid(
    gateway: Gateway, stream: bool
) -> None:
    """Row 22: billed as reported, although it was of no use."""
    gateway.up.script(MINI, Step(text=""))
    check_clean(await asked(gateway, stream))
    first, second = await check_books(gateway, "settled", "settled")
    assert first.failure == "empty" and first.cost_source == "upstream"
    assert first.cost_nano + second.cost_nano == gateway.up.bill.total


@pytest.mark.parametrize("stream", [False, True])
async def test_an_empty_answer_of_the_last_model_is_given(gateway: Gateway, stream: bool) -> None:
    gateway.up.script(MINI, Step(text=""))
    answer = await gateway.client.chat(stream=stream)
    assert answer.status == 200 and answer.text == ""


@pytest.mark.parametrize("stream", [False, True])
async def test_one_malformed_event_is_tolerated(gateway: Gateway, stream: bool) -> None:
    """Row 10."""
    if stream:
        gateway.up.script(MINI, Step(malformed_at=1))
    check_clean(await asked(gateway, stream), MINI, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_that_is_not_there_goes_to_the_next_model(
    start: Any, unused_tcp_port: int, stream: bool
) -> None:
    """Row 1: nothing was sent, so nothing is held."""
    models = (LocalModel("local/gone", completion_usd_per_mtok=1.0),)
    place = UpstreamSettings("gone", base_url=f"http://127.0.0.1:{unused_tcp_port}", models=models)
    async with start(upstreams=(place,), deadlines=SHORT) as gateway:
        answer = await gateway.client.chat("local/gone", models=["local/gone", NEMO], stream=stream)
        check_clean(answer)
        first, _ = await check_books(gateway, "released", "settled")
        assert first.failure == "refused"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_name_that_does_not_resolve_goes_to_the_next_model(
    start: Any, stream: bool
) -> None:
    """Row 1."""
    models = (LocalModel("local/lost", completion_usd_per_mtok=1.0),)
    place = UpstreamSettings("lost", base_url="http://nowhere.invalid", models=models)
    async with start(upstreams=(place,)) as gateway:
        check_clean(await gateway.client.chat("local/lost", models=["local/lost", NEMO], stream=stream))
        first, _ = await check_books(gateway, "released", "settled")
        assert first.failure == "dns"


@pytest.mark.parametrize("stream", [False, True])
async def test_auto_fails_over_by_itself(gateway: Gateway, stream: bool) -> None:
    gateway.up.script(FLASH, Step(status=503))
    answer = await gateway.client.chat("sophia/auto", stream=stream)
    assert answer.status == 200 and answer.headers["x-sophia-attempts"] == "2"
    assert answer.headers["x-sophia-model"] != FLASH


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("step", "status", "kind"),
    [
        (Step(status=403, error_type="moderation", message="flagged",
              metadata={"reasons": ["violence"], "flagged_input": "x"}), 403, None),
        (Step(status=403, message="Input flagged by moderation",
              metadata={"reasons": ["violence"], "error_type": "permission_denied"}), 403, None),
        (Step(status=403, message="no", metadata={"reasons": ["violence"]}), 403, None),
        (Step(status=400, error_type="content_policy_violation"), 400, "content_policy_violation"),
        (Step(status=400, message="bad tool schema"), 400, "invalid_request"),
        (Step(status=422, message="bad field"), 422, None),
    ],
    ids=["moderation", "moderation-text", "moderation-reasons", "policy", "400", "422"],
)
async def test_the_callers_own_fault_is_told(
    gateway: Gateway, step: Step, status: int, kind: str | None, stream: bool
) -> None:
    """Rows 16 and 19: another model must not be tried behind the caller's back."""
    gateway.up.script(MINI, step)
    answer = await asked(gateway, stream)
    assert answer.status == status
    error = answer.error
    assert step.message in error["message"] and MINI in error["message"]
    assert kind is None or error["metadata"]["error_type"] == kind
    assert len(gateway.up.requests) == 1
    (row,) = await check_books(gateway, "released")
    assert row.failure == f"status:{status}"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ([Step(status=429, retry_after="7"), Step(status=429, retry_after="3")], 429),
        ([Step(status=429), Step(status=429)], 429),
        ([Step(status=503), Step(status=529)], 429),
        ([Step(status=503), Step(status=429)], 429),
        ([Step(status=500), Step(status=429)], 502),
        ([Step(status=502), Step(no_answer="hang")], 502),
        ([Step(no_answer="hang"), Step(no_answer="hang")], 504),
        ([Step(status=401), Step(status=401)], 502),
        ([Step(body=b"<html>"), Step(body=b"")], 502),
    ],
    ids=["429-wait", "429", "503", "503-429", "500-429", "502", "504", "401", "html"],
)
async def test_when_all_fail_the_error_lists_each_attempt(
    gateway: Gateway, steps: list[Step], status: int, stream: bool
) -> None:
    for model, step in zip((MINI, NEMO), steps, strict=True):
        gateway.up.script(model, step)
    answer = await asked(gateway, stream)
    assert answer.status == status and answer.complete
    error = answer.error
    assert error["metadata"]["fault"] == "upstream"
    attempts = error["metadata"]["attempts"]
    assert [one["model"] for one in attempts] == [MINI, NEMO]
    assert all(one["cause"] and one["message"] for one in attempts)
    assert MINI in error["message"] and NEMO in error["message"]
    if status == 429:
        wait = "3" if steps[0].retry_after else "1"
        assert answer.headers["retry-after"] == wait
    assert len(await gateway.settled(2)) == 2
    page = (await gateway.client.get("/metrics", headers={})).body.decode()
    assert f'status="{status}"' in page


async def test_no_more_than_three_models_are_tried(gateway: Gateway) -> None:
    gateway.up.script("*", Step(status=500), times=None)
    answer = await gateway.client.chat(models=[MINI, NEMO, CODER, FLASH])
    assert answer.status == 502 and len(answer.error["metadata"]["attempts"]) == 3
    assert len(gateway.up.requests) == 3
    await check_books(gateway, "released", "released", "released")


MIDSTREAM = {
    "cut": (Step(cut_after=3), "cut"),
    "rst": (Step(reset_after=3), "cut"),
    "stall": (Step(stall_after=3), "stall"),
    "only-comments": (Step(comments_after=3, comment_every=0.02), "stall"),
    "error": (Step(error_at=3, status=503, message="Overloaded"), "in_band"),
    "error-without-choices": (Step(error_at=3, error_choices=False), "in_band"),
    "bad-chunk": (Step(bad_chunk_at=3), "malformed"),
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
        MINI, Step(raw=(SSE_HEAD, one, later, b"data: {bad\n\n" + one, later, b"data: {bad\n\n"))
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
    gateway.up.script(MINI, Step(raw=(SSE_HEAD, event("a"), ("sleep", 0.02), event("b") + error)))
    answer = await asked(gateway, True)
    assert answer.text == "ab" and not answer.done
    assert answer.chunks[-1]["error"]["metadata"]["cause"] == "in_band"


@pytest.mark.parametrize("end", ["rst", "fin", "half_close", ("sleep", 1.0)])
async def test_a_stream_is_complete_with_its_finish_reason(gateway: Gateway, end: Any) -> None:
    """Whatever the connection does after it."""
    head = SSE_HEAD.replace(b"Connection: close\r\n", b"Transfer-Encoding: chunked\r\n")
    said = event("a") + event(None, "stop")
    chunk = b"%x\r\n%b\r\n" % (len(said), said)
    gateway.up.script(MINI, Step(raw=(head, chunk, ("sleep", 0.02), end)))
    check_clean(await asked(gateway, True), MINI, 1)


async def test_a_stream_of_two_choices_is_complete_with_both_ends(gateway: Gateway) -> None:
    said = event("a") + event("b", index=1) + event(None, "stop")
    gateway.up.script(MINI, Step(raw=(SSE_HEAD, said)))
    answer = await asked(gateway, True, n=2)
    assert not answer.done and answer.chunks[-1]["error"]["metadata"]["cause"] == "cut"


async def test_a_legacy_stream_that_breaks_off_says_so(gateway: Gateway) -> None:
    gateway.up.script(MINI, Step(cut_after=3))
    body = {"model": MINI, "prompt": "Once", "stream": True}
    answer = await gateway.client.post("/v1/completions", body)
    assert not answer.done
    last = answer.chunks[-1]
    check_chunk(last, chat=False)
    assert last["choices"][0]["finish_reason"] == "error" and type(last["error"]["code"]) is int


@pytest.mark.parametrize("stream", [False, True])
async def test_missing_usage_is_estimated(gateway: Gateway, stream: bool) -> None:
    """Row 27."""
    gateway.up.script(MINI, Step(no_usage=True))
    check_clean(await asked(gateway, stream), MINI, 1)
    (row,) = await check_books(gateway, "settled")
    assert row.cost_source == "estimated" and row.cost_nano > 0 and row.completion_tokens > 0


async def hang_up(gateway: Gateway, after: int, **more: Any) -> None:
    """Read `after` events of a stream, then leave."""
    request = gateway.client.request(chat(stream=True, **more))
    async with gateway.client.connection(request) as reader:
        for _ in range(after):
            while not (await reader.readline()).startswith(b"data: "):
                pass


@pytest.mark.parametrize("after", [1, 2, 5, 20])
async def test_a_client_that_hangs_up_stops_the_upstream_and_pays_its_bill(
    gateway: Gateway, after: int
) -> None:
    """Row 29."""
    gateway.up.script(MINI, Step(chunk_delay=0.004))
    await hang_up(gateway, after)
    (row,) = await gateway.settled(1)
    (seen,) = [seen for seen in gateway.up.requests if seen.method == "POST"]
    assert seen.aborted and not seen.finished
    (bill,) = gateway.up.bill.rows
    assert bill.aborted and bill.completion_tokens >= after - 1
    assert (row.state, row.failure, row.cost_source) == ("settled", "client_gone", "upstream")
    assert row.cost_nano == bill.cost
    assert await gateway.standing() == (bill.cost / 1e9, 0.0)
    id = row.generation_id
    data = (await gateway.client.get(f"/v1/generation?id={id}")).json["data"]
    assert data["cancelled"] is True


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_before_content(gateway: Gateway, stream: bool) -> None:
    gateway.up.script(MINI, Step(delay=0.1) if not stream else Step(first_delay=0.2))
    async with gateway.client.connection(gateway.client.request(chat(stream=stream))):
        while not gateway.up.requests:
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.01)
    (row,) = await gateway.settled(1)
    assert row.failure == "client_gone"
    assert gateway.up.requests[0].aborted and len(gateway.up.bill.rows) <= 1
    if stream:
        # The generation id came with the head, so what it cost can be asked for.
        assert (row.state, row.cost_nano) == ("settled", gateway.up.bill.total)
        assert (await gateway.standing())[1] == 0
    else:
        assert row.state == "unknown" and (await gateway.standing())[1] > 0


async def test_a_client_that_hangs_up_between_attempts_stops_the_walk(gateway: Gateway) -> None:
    gateway.up.script(MINI, Step(status=503, delay=0.05))
    async with gateway.client.connection(
        gateway.client.request(chat(models=[MINI, NEMO]))
    ):
        while not gateway.up.requests:
            await asyncio.sleep(0.002)
    await gateway.settled(1)
    await asyncio.sleep(0.1)
    assert {seen.json()["model"] for seen in gateway.up.requests if seen.method == "POST"} == {MINI}


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

    gateway.up.script(MINI, Step(raw=pieces()))  # type: ignore[arg-type]  # read once, lazily
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


async def test_a_request_has_one_deadline_over_all_attempts(start: Any) -> None:
    from sophia.config import Clocks

    clocks = Clocks(content_s=5, request_s=0.2)
    async with start(deadlines=clocks) as gateway:
        gateway.up.script("*", Step(no_answer="hang"), times=None)
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


ERROR = {"code": 502, "message": "gone"}
SPOKEN = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
SAID = {"index": 0, "delta": {"content": "a"}, "finish_reason": None}


@pytest.mark.parametrize(
    "body",
    [
        {"error": ERROR, "choices": []},
        {"error": ERROR, "choices": [SPOKEN]},
        {"choices": [SPOKEN | {"error": ERROR}]},
    ],
    ids=["no-choices", "beside-choices", "in-a-choice"],
)
async def test_an_error_inside_an_answer_is_never_an_answer(
    gateway: Gateway, body: dict[str, Any]
) -> None:
    gateway.up.script(MINI, Step(body={"id": "gen-x", "object": "chat.completion"} | body))
    check_clean(await asked(gateway, False))
    first, _ = await gateway.settled(2)
    assert first.failure == "in_band:502"


@pytest.mark.parametrize(
    "body",
    [
        {"error": ERROR, "choices": []},
        {"error": ERROR, "choices": [SAID]},
        {"choices": [SAID | {"error": ERROR}]},
    ],
    ids=["no-choices", "beside-choices", "in-a-choice"],
)
async def test_an_error_inside_the_first_event_is_never_an_answer(
    gateway: Gateway, body: dict[str, Any]
) -> None:
    gateway.up.script(MINI, sse(json.dumps({"id": "gen-x"} | body), "[DONE]"))
    check_clean(await asked(gateway, True))
    first, _ = await gateway.settled(2)
    assert first.failure == "in_band:502"
