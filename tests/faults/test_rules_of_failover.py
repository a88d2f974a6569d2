"""What continuations, hedges and substitutes keep to: the text so far, the limits, the truth."""

import asyncio
import json
from typing import Any

import pytest
from odd_upstreams import OWN, delta, stream_of
from stage import SSE_HEAD, sse

from gateway import MINI, NEMO, Answer, Gateway, ServerKind, Start
from sophia.config import DeadlineSettings, UpstreamModelSettings, UpstreamSettings
from sophia.sandbox import ScriptStep

PATIENT = DeadlineSettings(connect_s=1.0, content_s=6.0, stall_s=2.0, total_s=9.0)


@pytest.fixture
def server() -> ServerKind:
    """One server is enough here."""
    return "native"


@pytest.fixture
async def gateway(start: Start) -> Any:
    async with start(deadlines=PATIENT) as running:
        yield running


async def continue_after(gateway: Gateway, first: str, rest: str) -> str:
    """Return the text when a stream is cut after `first` and the next call goes on exactly."""
    body = f"data: {json.dumps(delta(content=first))}\n\n".encode()
    gateway.up.script(MINI, ScriptStep(raw=[SSE_HEAD + body, ("sleep", 0.05), "fin"]))
    gateway.up.script(MINI, stream_of(delta(content=rest), delta("stop")))
    answer = await gateway.client.chat(MINI, stream=True, sophia={"on_cut": "continue"})
    assert answer.done
    return answer.text


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("| cat | 1 |\n" * 10, 9 * 12),
        ("Row, row the boat\nDown the stream\n" * 3 + "The end.", 2 * 34),
    ],
    ids=["last row of a table", "refrain"],
)
async def test_an_exact_continuation_with_a_repeated_line_keeps_the_line(
    gateway: Gateway, text: str, cut: int
) -> None:
    assert await continue_after(gateway, text[:cut], text[cut:]) == text


def cut_after(*chunks: dict[str, Any]) -> ScriptStep:
    body = b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks)
    return ScriptStep(raw=[SSE_HEAD + body, ("sleep", 0.05), "fin"])


async def test_two_choices_are_not_continued_as_one_text(gateway: Gateway) -> None:
    """A server that gives a choice too many: the texts of both are sent as one beginning."""
    both = [
        {"index": index, "delta": {"content": text}, "finish_reason": None}
        for index, text in enumerate(("The first answer", "Another answer"))
    ]
    gateway.up.script(MINI, cut_after({"id": "g", "choices": both}))
    gateway.up.script(MINI, stream_of(delta(content=" goes on."), delta("stop")))
    await gateway.client.chat(MINI, stream=True, sophia={"on_cut": "continue"})
    sent = [json.loads(request.body)["messages"][-1] for request in gateway.up.requests]
    assert sent[1:] in ([], [{"role": "assistant", "content": "The first answer"}]), sent


async def test_a_stream_is_not_continued_after_a_picture(gateway: Gateway) -> None:
    """`Continuation`: never after a delta of anything else than text."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    gateway.up.script(MINI, cut_after(delta(content="Look: "), delta(images=[picture])))
    gateway.up.script(MINI, stream_of(delta(content="and so on"), delta("stop")))
    answer = await gateway.client.chat(MINI, stream=True, sophia={"on_cut": "continue"})
    assert not answer.done and len(gateway.up.requests) == 1


async def test_a_continuation_without_a_word_does_not_make_an_answer_complete(
    gateway: Gateway,
) -> None:
    """Models that take no beginning of their own answer give nothing back: ask the next, or tell."""
    gateway.up.script(MINI, cut_after(delta(content="The sum of the three numb")))
    gateway.up.script(MINI, stream_of(delta(content=""), delta("stop")))
    answer = await gateway.client.chat(
        models=[MINI, NEMO], stream=True, sophia={"on_cut": "continue"}
    )
    assert not answer.done or answer.text != "The sum of the three numb", answer.text


@pytest.mark.parametrize(
    "more", [{"stream_options": {"include_usage": False}}, {"sophia": {"annotate": False}}]
)
async def test_a_left_out_event_is_told_whatever_else_is_not(
    gateway: Gateway, more: dict[str, Any]
) -> None:
    """Row 10: one is left out, and the end of the answer says so."""
    parts = [json.dumps(delta(content="one ")), "{broken", json.dumps(delta(content="three"))]
    gateway.up.script(MINI, sse(*parts, json.dumps(delta("stop")), "[DONE]"))
    answer = await gateway.client.chat(MINI, stream=True, **more)
    told = not answer.done or b"left out" in answer.body or b"left_out" in answer.body
    assert told, answer.body


async def test_a_limit_per_request_that_is_hardly_used_lets_a_stream_go_on(start: Start) -> None:
    """The cut call cost next to nothing, but its clamped hold is asked for a second time."""
    async with start(deadlines=PATIENT) as gateway:
        key = await gateway.new_key(each=0.01)
        await gateway.catch_up()
        gateway.up.script(MINI, ScriptStep(text="word " * 1000, cut_after=5))
        answer = await gateway.client.chat(
            MINI, key=key, stream=True, sophia={"on_cut": "continue"}
        )
        assert answer.done, answer.body[-400:]


async def test_a_continuation_keeps_to_max_tokens(gateway: Gateway) -> None:
    """10 tokens are wanted, and reserved; after 8 of them the second call may write 16 more."""
    gateway.up.script(MINI, ScriptStep(text="word " * 1000, cut_after=8))
    gateway.up.script(MINI, ScriptStep(text="many more " * 1000))
    await gateway.client.chat(MINI, stream=True, max_tokens=10, sophia={"on_cut": "continue"})
    sent = [json.loads(request.body)["max_tokens"] for request in gateway.up.requests]
    assert len(sent) == 2 and sent[1] <= 10, sent


async def ask(gateway: Gateway, stream: bool = False, **more: Any) -> Answer:
    """Ask for MINI with NEMO as the substitute."""
    return await gateway.client.chat(models=[MINI, NEMO], stream=stream, **more)


async def test_a_hedge_that_the_limit_forbids_does_not_use_up_the_fallback(start: Start) -> None:
    """The second call does not fit beside the first; once that has failed at no cost, it does."""
    async with start(deadlines=PATIENT) as gateway:
        for _ in range(25):
            await gateway.client.chat(MINI, stream=True)
        key = await gateway.new_key(each=0.001)
        await gateway.catch_up()
        for hints in ({}, {"hedge": True}):
            gateway.up.script(MINI, ScriptStep(status=503, delay=0.5))
            answer = await gateway.client.chat(
                models=[MINI, NEMO], stream=True, key=key, sophia=hints
            )
            assert answer.status == 200, (hints, answer.body)


@pytest.mark.parametrize("more", [{"max_tokens": 5000}, {}], ids=["more wanted", "none wanted"])
async def test_what_is_reserved_is_also_what_is_asked_for(
    start: Start, more: dict[str, Any]
) -> None:
    """Reserved are the model's `max_output_tokens`; the call may write as much as it likes."""
    model = UpstreamModelSettings(
        id=OWN,
        served_as=MINI,
        prompt_usd_per_mtok=1.0,
        completion_usd_per_mtok=10.0,
        max_output_tokens=100,
    )
    async with start() as plain:
        url = plain.up.base_url
    place = UpstreamSettings(name="own", base_url=url, api_key="k", models=(model,))
    async with start(upstreams=(place,)) as gateway:
        key = await gateway.new_key(each=0.002)
        await gateway.catch_up()
        gateway.up.script(MINI, ScriptStep(text="word " * 5000, usage={"cost": None}))
        await gateway.client.chat(OWN, key=key, **more)
        (row,) = await gateway.settled(1)
        assert row.cost_nano <= 2_000_000, row.cost_nano


async def test_a_refusal_by_a_filter_is_told_though_a_hedge_runs(gateway: Gateway) -> None:
    """Row 16: no other model is tried behind the filter's back."""
    for _ in range(25):
        await gateway.client.chat(MINI, stream=True)
    gateway.up.script(
        MINI, ScriptStep(status=403, error_type="moderation", message="flagged", delay=0.4)
    )
    gateway.up.script(NEMO, ScriptStep(first_delay=1.0))
    answer = await ask(gateway, stream=True, sophia={"hedge": True})
    assert answer.status == 403, answer.body[:200]


@pytest.mark.parametrize(
    "step",
    [
        ScriptStep(status=403, message="This model is not available in your region."),
        ScriptStep(text=""),
    ],
    ids=["region", "empty"],
)
async def test_a_healthy_fallback_answers_whatever_the_first_model_says(
    gateway: Gateway, step: ScriptStep
) -> None:
    """Rows 17 and 22: what refuses or says nothing is in no trouble that repetitions worsen."""
    gateway.up.script(MINI, step, times=None)
    answers = await asyncio.gather(*[ask(gateway) for _ in range(400)])
    refused = [answer for answer in answers if answer.status != 200]
    assert not refused, (len(refused), refused[0].body[:300])
