"""What goes wrong before the first content is invisible to the caller."""

import asyncio
import json
import socket
from contextlib import ExitStack
from typing import Any

import pytest
from stage import HTML, SSE, asked, check_books, check_clean, sse

from gateway import CODER, FLASH, MINI, NEMO, SHORT, Gateway, Start, chat
from sophia.config import BudgetSettings, UpstreamModelSettings, UpstreamSettings
from sophia.sandbox import ScriptStep

REFUSED = {
    "401": (ScriptStep(status=401), "status:401"),
    "402": (ScriptStep(status=402), "status:402"),
    "403-region": (ScriptStep(status=403, message="not available in your region"), "status:403"),
    "404-gone": (ScriptStep(status=404, error_type="model_not_found"), "status:404"),
    "404-filtered": (
        ScriptStep(status=404, availability={"code": "constraint_filtered", "retryable": False}),
        "status:404",
    ),
    "400-context": (
        ScriptStep(status=400, error_type="context_length_exceeded", message="too long"),
        "status:400",
    ),
    "400-context-text": (
        ScriptStep(status=400, message="This endpoint's maximum context length is 8 tokens."),
        "status:400",
    ),
    "408": (ScriptStep(status=408), "status:408"),
    "429": (ScriptStep(status=429), "status:429"),
    "429-retry-after": (ScriptStep(status=429, retry_after="3600"), "status:429"),
    "429-retry-after-ms": (
        ScriptStep(status=429, headers={"Retry-After-Ms": "5000"}),
        "status:429",
    ),
    "429-date": (ScriptStep(status=429, retry_after="Wed, 21 Oct 2099 07:28:00 GMT"), "status:429"),
    "429-availability": (
        ScriptStep(status=429, availability={"code": "capacity_exhausted", "retry_after": 9}),
        "status:429",
    ),
    "500": (ScriptStep(status=500), "status:500"),
    "502": (ScriptStep(status=502), "status:502"),
    "503": (ScriptStep(status=503), "status:503"),
    "504": (ScriptStep(status=504), "status:504"),
    "524": (ScriptStep(status=524), "status:524"),
    "529": (ScriptStep(status=529), "status:529"),
    "500-html": (ScriptStep(status=500, body="<html>", headers=HTML), "status:500"),
    "502-empty": (ScriptStep(status=502, body=b""), "status:502"),
    "200-error": (ScriptStep(body={"error": {"code": 502, "message": "no"}}), "in_band:502"),
    "200-error-string-code": (
        ScriptStep(body={"error": {"code": "429", "message": "no"}}),
        "in_band:429",
    ),
    "200-error-with-null-choices": (
        ScriptStep(body={"error": {"code": 503, "message": "no"}, "choices": None}),
        "in_band:503",
    ),
    "200-error-as-text": (ScriptStep(body={"error": "overloaded"}), "in_band"),
    "200-newlines-and-error": (
        ScriptStep(body=b'\n\n\n{"error":{"code":500,"message":"no"}}'),
        "in_band:500",
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
    "closed": (ScriptStep(no_answer="close"), "reset"),
    "reset": (ScriptStep(no_answer="reset"), "reset"),
    "silent": (ScriptStep(no_answer="hang"), "content_timeout"),
    "garbage": (ScriptStep(raw=(b"\x00\x01nonsense\r\n\r\n",)), "malformed"),
    "half-a-head": (ScriptStep(raw=(b"HTTP/1.1 200 OK\r\nContent-Le",)), "reset"),
    "200-html": (ScriptStep(body="<html>busy</html>", headers=HTML), "malformed"),
    "200-nothing": (ScriptStep(body=b""), "malformed"),
    "200-json-of-another-kind": (ScriptStep(body={"hello": 1}), "malformed"),
    "200-list": (ScriptStep(body=b"[]"), "malformed"),
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
        (ScriptStep(stall_after=0), "content_timeout"),
        (ScriptStep(first_delay=5), "content_timeout"),
        (ScriptStep(comments_after=0, comment_every=0.02), "content_timeout"),
        (ScriptStep(cut_after=0), "cut"),
        (ScriptStep(reset_after=0), "cut"),
        (ScriptStep(bad_chunk_at=0), "malformed"),
        (ScriptStep(body=": nothing\n\ndata: [DONE]\n\n", headers=SSE), "cut"),
        (sse("{broken", "{broken", "[DONE]"), "malformed"),
        (sse('{"choices":[7]}'), "malformed"),
    ],
    ids=["stall", "slow", "comments", "cut", "reset", "bad-chunk", "empty", "malformed", "number"],
)
async def test_a_stream_that_fails_before_content_goes_to_the_next_model(
    gateway: Gateway, step: ScriptStep, cause: str
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
    gateway.up.script(MINI, ScriptStep(error_at=0, status=status, error_choices=choices))
    check_clean(await asked(gateway, True))
    first, _ = await check_books(gateway, "released", "settled")
    assert first.failure == f"in_band:{status}"


@pytest.mark.parametrize("at", [5, 40])
@pytest.mark.parametrize("how", ["cut_after", "reset_after", "stall_after"])
async def test_a_whole_answer_that_breaks_off_goes_to_the_next_model(
    gateway: Gateway, how: str, at: int
) -> None:
    """Row 6: nothing of a whole answer has reached the client before all of it is here."""
    gateway.up.script(MINI, ScriptStep(**{how: at}))
    check_clean(await asked(gateway, False))
    first, _ = await check_books(gateway, "unknown", "settled")
    assert first.failure in ("cut", "content_timeout")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_empty_answer_goes_to_the_next_model_and_is_paid(
    gateway: Gateway, stream: bool
) -> None:
    """Row 22: billed as reported, although it was of no use."""
    gateway.up.script(MINI, ScriptStep(text=""))
    check_clean(await asked(gateway, stream))
    first, second = await check_books(gateway, "settled", "settled")
    assert first.failure == "empty" and first.cost_source == "upstream"
    assert first.cost_nano + second.cost_nano == gateway.up.bill.total


@pytest.mark.parametrize("stream", [False, True])
async def test_an_empty_answer_of_the_last_model_is_given(gateway: Gateway, stream: bool) -> None:
    gateway.up.script(MINI, ScriptStep(text=""))
    answer = await gateway.client.chat(stream=stream)
    assert answer.status == 200 and answer.text == ""


@pytest.mark.parametrize("stream", [False, True])
async def test_one_malformed_event_is_tolerated(gateway: Gateway, stream: bool) -> None:
    """Row 10."""
    if stream:
        gateway.up.script(MINI, ScriptStep(malformed_at=1))
    check_clean(await asked(gateway, stream), MINI, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_that_is_not_there_goes_to_the_next_model(
    start: Start, unused_tcp_port: int, stream: bool
) -> None:
    """Row 1: nothing was sent, so nothing is held."""
    models = (UpstreamModelSettings(id="local/gone", completion_usd_per_mtok=1.0),)
    place = UpstreamSettings(
        name="gone", base_url=f"http://127.0.0.1:{unused_tcp_port}", models=models
    )
    async with start(upstreams=(place,), deadlines=SHORT) as gateway:
        answer = await gateway.client.chat("local/gone", models=["local/gone", NEMO], stream=stream)
        check_clean(answer)
        first, _ = await check_books(gateway, "released", "settled")
        assert first.failure == "refused"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_name_that_does_not_resolve_goes_to_the_next_model(
    start: Start, stream: bool
) -> None:
    """Row 1."""
    models = (UpstreamModelSettings(id="local/lost", completion_usd_per_mtok=1.0),)
    place = UpstreamSettings(name="lost", base_url="http://nowhere.invalid", models=models)
    async with start(upstreams=(place,)) as gateway:
        check_clean(
            await gateway.client.chat("local/lost", models=["local/lost", NEMO], stream=stream)
        )
        first, _ = await check_books(gateway, "released", "settled")
        assert first.failure == "dns"


@pytest.mark.parametrize("stream", [False, True])
async def test_auto_fails_over_by_itself(gateway: Gateway, stream: bool) -> None:
    gateway.up.script("*", ScriptStep(status=503), times=1)
    answer = await gateway.client.chat("sophia/auto", stream=stream)
    assert answer.status == 200 and answer.headers["x-sophia-attempts"] == "2"
    failed, served = [request.json()["model"] for request in gateway.up.requests]
    assert answer.headers["x-sophia-model"] == served != failed
    told = answer.chunks[-1] if stream else answer.json
    assert told["sophia"]["reason"].endswith(f"Failed before: {failed} (status:503).")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("step", "status", "kind"),
    [
        (
            ScriptStep(
                status=403,
                error_type="moderation",
                message="flagged",
                metadata={"reasons": ["violence"], "flagged_input": "x"},
            ),
            403,
            None,
        ),
        (
            ScriptStep(
                status=403,
                message="Input flagged by moderation",
                metadata={"reasons": ["violence"], "error_type": "permission_denied"},
            ),
            403,
            None,
        ),
        (ScriptStep(status=403, message="no", metadata={"reasons": ["violence"]}), 403, None),
        (
            ScriptStep(status=400, error_type="content_policy_violation"),
            400,
            "content_policy_violation",
        ),
        (ScriptStep(status=400, message="bad tool schema"), 400, "invalid_request"),
        (ScriptStep(status=422, message="bad field"), 422, None),
    ],
    ids=["moderation", "moderation-text", "moderation-reasons", "policy", "400", "422"],
)
async def test_the_callers_own_fault_is_told(
    gateway: Gateway, step: ScriptStep, status: int, kind: str | None, stream: bool
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
        ([ScriptStep(status=429, retry_after="70"), ScriptStep(status=429, retry_after="30")], 429),
        ([ScriptStep(status=429), ScriptStep(status=429)], 429),
        ([ScriptStep(status=503), ScriptStep(status=529)], 429),
        ([ScriptStep(status=503), ScriptStep(status=429)], 429),
        ([ScriptStep(status=500), ScriptStep(status=429)], 502),
        ([ScriptStep(status=502), ScriptStep(no_answer="hang")], 502),
        ([ScriptStep(no_answer="hang"), ScriptStep(no_answer="hang")], 504),
        ([ScriptStep(status=401), ScriptStep(status=401)], 502),
        ([ScriptStep(body=b"<html>"), ScriptStep(body=b"")], 502),
    ],
    ids=["429-wait", "429", "503", "503-429", "500-429", "502", "504", "401", "html"],
)
async def test_when_all_fail_the_error_lists_each_attempt(
    gateway: Gateway, steps: list[ScriptStep], status: int, stream: bool
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
        wait = "30" if steps[0].retry_after else "1"
        assert answer.headers["retry-after"] == wait
    assert len(await gateway.settled(2)) == 2
    page = (await gateway.client.get("/metrics", headers={})).body.decode()
    assert f'status="{status}"' in page


async def test_no_more_than_three_models_are_tried(gateway: Gateway) -> None:
    gateway.up.script("*", ScriptStep(status=500), times=None)
    answer = await gateway.client.chat(models=[MINI, NEMO, CODER, FLASH])
    assert answer.status == 502 and len(answer.error["metadata"]["attempts"]) == 3
    assert len(gateway.up.requests) == 3
    await check_books(gateway, "released", "released", "released")


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
    gateway.up.script(MINI, ScriptStep(body={"id": "gen-x", "object": "chat.completion"} | body))
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


async def test_an_outage_costs_what_it_probably_cost(start: Start) -> None:
    """D2: the whole of a hold would use up the day's budget for answers that nobody got."""
    budget = BudgetSettings(daily_usd=0.05)
    async with start(deadlines=SHORT, budget=budget) as gateway:
        gateway.up.script(MINI, ScriptStep(no_answer="close"), times=None)
        gateway.up.script(NEMO, ScriptStep(no_answer="hang"), times=None)
        for _ in range(12):
            assert (await gateway.client.chat(models=[MINI, NEMO])).status in (502, 504)
        spent, held = await gateway.standing()
        assert spent == 0.0 and 0.0 < held < 0.02


async def test_a_call_that_is_repeated_has_a_reservation_of_its_own(gateway: Gateway) -> None:
    """D3: a kept connection that ends as it is used again."""
    assert (await gateway.client.chat()).status == 200
    gateway.up.script(MINI, ScriptStep(no_answer="reset"))
    answer = await gateway.client.chat()
    assert answer.status == 200 and answer.headers["x-sophia-attempts"] == "2"
    rows = await gateway.settled(3)
    assert len(gateway.up.requests) == len(await gateway.rows("intents")) == len(rows) == 3
    assert [row.state for row in rows] == ["settled", "unknown", "settled"]


async def test_a_caller_who_leaves_before_anything_was_sent_pays_nothing(start: Start) -> None:
    """D20: the upstream's queue is full, so that the connection is not made."""
    with socket.socket() as deaf, ExitStack() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):
            filler = waiting.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        models = (UpstreamModelSettings(id="local/deaf", completion_usd_per_mtok=1.0),)
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        place = UpstreamSettings(name="deaf", base_url=url, models=models)
        async with start(upstreams=(place,)) as gateway:
            body = gateway.client.request(chat("local/deaf"))
            async with gateway.client.connection(body):
                await asyncio.sleep(0.3)
            (row,) = await gateway.settled(1)
            assert (row.state, row.failure, row.cost_nano) == ("released", "client_gone", 0)
            assert await gateway.standing() == (0.0, 0.0)
