"""What callers may ask for when things go wrong: hedging, shortening, cutting, adapting."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage import asked, check_clean

from gateway import CODER, MINI, NEMO, Gateway, Start
from sophia.config import DeadlineSettings
from sophia.http.shorten import drop_middle_turns
from sophia.sandbox import ScriptStep
from sophia.serving.attempts.repetition import find_period

STREAMS = pytest.mark.parametrize("stream", [False, True])
LOOP = "I am sorry. " * 200


@pytest.fixture
async def gateway(start: Start) -> Any:
    """A gateway that waits longer than the upstream takes."""
    deadlines = DeadlineSettings(connect_s=1.0, content_s=6.0, stall_s=1.0, total_s=9.0)
    async with start(deadlines=deadlines) as running:
        yield running


async def test_a_late_stream_is_raced_and_both_are_paid(gateway: Gateway) -> None:
    for _ in range(25):
        await gateway.client.chat(MINI, stream=True)
    before = len(await gateway.outcomes())
    gateway.up.script(MINI, ScriptStep(first_delay=0.35))
    answer = await asked(gateway, True, sophia={"hedge": True})
    assert answer.done and answer.headers["x-sophia-model"] == NEMO
    rows = (await gateway.settled(before + 2))[before:]
    assert {row.model: row.failure for row in rows} == {MINI: "hedge", NEMO: None}
    assert sum(row.state == "settled" for row in rows) >= 1
    spent, held = await gateway.standing()
    assert spent + held >= gateway.up.bill.total / 1e9


async def test_without_the_wish_or_in_time_nothing_is_raced(gateway: Gateway) -> None:
    for _ in range(25):
        await gateway.client.chat(MINI, stream=True)
    gateway.up.script(MINI, ScriptStep(first_delay=0.2))
    check_clean(await asked(gateway, True), MINI, 1)
    check_clean(await asked(gateway, True, sophia={"hedge": True}), MINI, 1)
    assert len(gateway.up.requests) == 27


async def test_when_both_fail_the_error_is_told(gateway: Gateway) -> None:
    for _ in range(25):
        await gateway.client.chat(MINI, stream=True)
    gateway.up.script("*", ScriptStep(status=503, delay=0.2), times=None)
    answer = await asked(gateway, True, sophia={"hedge": True})
    assert answer.status == 429 and len(gateway.up.requests) == 27


async def test_a_whole_answer_that_repeats_itself_goes_to_the_next_model(gateway: Gateway) -> None:
    """Row 26."""
    gateway.up.script(MINI, ScriptStep(text=LOOP))
    check_clean(await asked(gateway, False, sophia={"cut_repetition": True}), NEMO, 2)
    rows = await gateway.settled(2)
    assert [row.failure for row in rows] == ["repetition", None]
    assert rows[0].state == "settled" and rows[0].cost_nano > 0


async def test_a_stream_that_repeats_itself_is_cut(gateway: Gateway) -> None:
    gateway.up.script(MINI, ScriptStep(text=LOOP))
    answer = await asked(gateway, True, sophia={"cut_repetition": True})
    assert not answer.done and "again and again" in answer.chunks[-1]["error"]["message"]
    assert len(answer.text) < len(LOOP) / 2


@STREAMS
async def test_repetition_is_delivered_unless_the_caller_wants_it_cut(
    gateway: Gateway, stream: bool
) -> None:
    gateway.up.script(MINI, ScriptStep(text=LOOP))
    answer = await asked(gateway, stream)
    assert answer.text == LOOP


@given(st.text("ab", max_size=8), st.integers(1, 9))
def test_a_period_is_the_shortest_piece(piece: str, times: int) -> None:
    text = piece * times
    period = find_period(text)
    assert all(text[at] == text[at - period] for at in range(period, len(text)))
    assert not piece or period <= len(piece)


@STREAMS
async def test_a_lost_event_is_told(gateway: Gateway, stream: bool) -> None:
    """Row 10 and D19."""
    if stream:
        gateway.up.script(MINI, ScriptStep(malformed_at=1))
    answer = await gateway.client.chat(stream=stream)
    told = (answer.chunks[-1] if stream else answer.json)["sophia"]
    assert told.get("left_out_events") == (1 if stream else None)
    assert ("text may be missing" in told.get("warning", "")) == stream


async def test_a_conversation_that_is_too_long_loses_its_middle_if_the_caller_says_so(
    gateway: Gateway,
) -> None:
    messages = [{"role": "system", "content": "Be brief."}]
    for number in range(60):
        messages.append({"role": "user", "content": f"Question {number}. " + "word " * 4000})
        messages.append({"role": "assistant", "content": f"Answer {number}."})
    messages.append({"role": "user", "content": "Last question"})
    body = {"model": MINI, "messages": messages}
    refused = await gateway.client.post("/v1/chat/completions", body)
    assert refused.status == 400
    assert refused.error["metadata"]["error_type"] == "context_length_exceeded"
    allowed = {**body, "sophia": {"on_too_long": "middle_out"}}
    answer = await gateway.client.post("/v1/chat/completions", allowed)
    assert answer.status == 200
    assert "messages in the middle were left out" in answer.headers["x-sophia-warning"]
    sent = gateway.up.requests[-1].json()["messages"]
    assert sent[0] == messages[0] and sent[1] == messages[1] and sent[-1] == messages[-1]
    assert sent[2] == messages[-len(sent) + 2] and 3 < len(sent) < len(messages)


@pytest.mark.parametrize("place", ["body", "message"])
async def test_a_number_that_is_too_large_is_no_internal_error(
    gateway: Gateway, place: str
) -> None:
    turns = [
        {"role": role, "content": "word " * 30_000}
        for role in ("user", "assistant", "user", "assistant", "user")
    ]
    body = {"model": MINI, "messages": turns, "sophia": {"on_too_long": "middle_out"}}
    (body if place == "body" else turns[0])["x"] = "@"
    data = json.dumps(body).replace('"@"', "1e999").encode()
    answer = await gateway.client.post("/v1/chat/completions", data)
    assert answer.status == 400 and answer.error["metadata"]["fault"] == "caller"
    assert len(gateway.up.requests) == (place == "body"), "shortened, and refused by the upstream"


def test_the_last_steps_of_an_agent_stay_with_their_results() -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Do it."}]
    for number in range(10):
        function = {"name": "f", "arguments": "x" * 1000}
        call = {"id": f"c{number}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": "y" * 2000})
    found = drop_middle_turns(json.dumps({"messages": messages}).encode(), 6000)
    assert found is not None
    kept = json.loads(found[0])["messages"]
    assert kept == [messages[0], *messages[-10:]]


@given(
    st.lists(st.sampled_from(["system", "user", "assistant", "tool"]), min_size=1, max_size=20),
    st.integers(10, 400),
)
def test_shortened_conversations_keep_their_order_and_their_end(
    roles: list[str], room: int
) -> None:
    messages = [{"role": role, "content": f"{at} " + "x" * 40} for at, role in enumerate(roles)]
    found = drop_middle_turns(json.dumps({"model": "m", "messages": messages}).encode(), room)
    if found is None:
        return
    kept = json.loads(found[0])["messages"]
    assert found[1] == len(messages) - len(kept) > 0
    places = [messages.index(message) for message in kept]
    assert kept[-1] == messages[-1] or messages[-1]["role"] == "system"
    turns = [at for at in places if messages[at]["role"] != "system"]
    assert turns == sorted(turns)


@STREAMS
async def test_a_substitute_gets_only_what_it_takes(gateway: Gateway, stream: bool) -> None:
    """The named model gets the request as it is; nothing is changed in silence."""
    gateway.up.script(MINI, ScriptStep(status=503))
    more: dict[str, Any] = {"temperature": 1.2, "top_a": 0.5, "models": [MINI, CODER]}
    answer = await gateway.client.chat(stream=stream, **more)
    assert answer.headers["x-sophia-model"] == CODER
    first, second = [request.json() for request in gateway.up.requests]
    assert (first["temperature"], first["top_a"]) == (1.2, 0.5)
    assert second["temperature"] == 0.5 and "top_a" not in second
    told = (answer.chunks[-1] if stream else answer.json)["sophia"]["adapted"]
    assert told == [
        f"{CODER} does not take top_a, so it was left out.",
        "The temperature was lowered to 0.5 for a code model.",
    ]
