"""What callers do without a word is kept as weak signs, for their own key, and both ways."""

from typing import Any

import pytest

from feedback_traffic import replayed
from gateway import MINI, SONNET, Answer, Gateway, Start, chat
from sophia.config import LearningSettings
from sophia.core.ids import decode_id
from sophia.learning.feedback.sources import PRIOR_CHANNELS, compute_squared_correlation
from sophia.sandbox import ScriptStep

QUESTION = "Explain to a child why the leaves of a maple turn red."
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
SOON = LearningSettings(after=20)


@pytest.fixture
def server() -> str:
    return "native"


async def ask(gateway: Gateway, text: str = QUESTION, **more: Any) -> Answer:
    hints = {"models": [MINI]} | more.pop("hints", {})
    answer = await gateway.client.chat("sophia/auto", text=text, sophia=hints, **more)
    assert answer.status == 200
    return answer


async def signs(gateway: Gateway) -> list[tuple[str, float, str]]:
    """Return all that was kept, in the order it came."""
    await gateway.sophia.feedback_writer.close()  # type: ignore[union-attr]
    rows = sorted(await gateway.rows("feedback"), key=lambda row: row["at_ms"])
    return [(row["channel"], row["score"], row["label"]) for row in rows]


async def test_asking_the_same_again_is_a_sign_against_the_former_answer(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        first = await ask(gateway)
        await ask(gateway)
        assert await signs(gateway) == [("retry", 0.0, "asked again")]
        (row,) = await gateway.rows("feedback")
        assert row["decision_id"] == decode_id("dec", first.headers["x-sophia-decision-id"])
        (lesson,) = await gateway.rows("lessons")
        assert (lesson["arm"], lesson["channel"], lesson["first"]) == (MINI, "retry", 0)
        assert (
            lesson["weight"] == pytest.approx(compute_squared_correlation(PRIOR_CHANNELS["retry"]))
            and lesson["weight"] < 0.1
        )


async def test_the_same_question_after_its_answer_counts_and_another_one_does_not(
    start: Start,
) -> None:
    user, other = {"role": "user", "content": QUESTION}, {"role": "user", "content": "And yellow?"}
    said = {"role": "assistant", "content": "Because."}
    async with start(learning=SOON) as gateway:
        await ask(gateway)
        await ask(gateway, messages=[user, said, other])
        assert await signs(gateway) == []
        await ask(gateway, messages=[user, said, user])
        assert await signs(gateway) == [("retry", 0.0, "asked again")]


async def test_who_sends_the_same_over_and_over_is_a_program(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        for _ in range(8):
            await ask(gateway)
        assert len(await signs(gateway)) == 2


@pytest.mark.parametrize("more", [{"user": "b"}, {"session_id": "b"}])
async def test_another_user_or_conversation_asks_for_itself(
    start: Start, more: dict[str, str]
) -> None:
    async with start(learning=SOON) as gateway:
        await ask(gateway, **dict.fromkeys(more, "a"))
        await ask(gateway, **more)
        assert await signs(gateway) == []


async def test_the_turns_of_a_tool_loop_are_not_the_callers(start: Start) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    asked = {"role": "user", "content": QUESTION}
    back = [
        asked,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "Red."},
    ]
    async with start(learning=SOON) as gateway:
        await ask(gateway, messages=[asked], tools=[TOOL])
        await ask(gateway, messages=back, tools=[TOOL])
        await ask(gateway, messages=back, tools=[TOOL])
        assert await signs(gateway) == []


async def test_leaving_a_stream_is_a_sign_and_from_then_on_so_is_reading_one(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        await ask(gateway, "Zero.", stream=True)
        gateway.up.script(MINI, ScriptStep(stall_after=4))
        body = chat("sophia/auto", text="One.", stream=True, sophia={"models": [MINI]})
        async with gateway.client.connection(gateway.client.request(body)) as reader:
            await reader.readuntil(b'"content"')
        await gateway.settled(2)
        assert await signs(gateway) == [("completed", 0.0, "left")]
        await ask(gateway, "Two.", stream=True)
        assert (await signs(gateway))[1:] == [("completed", 1.0, "read")]


@pytest.mark.parametrize(
    ("step", "more", "label"),
    [
        (ScriptStep(finish_reason="length"), {}, "truncated"),
        (ScriptStep(finish_reason="content_filter"), {}, "filtered"),
        (
            ScriptStep(tool_arguments='{"at": '),
            {"tools": [TOOL], "tool_choice": "required"},
            "tool_call",
        ),
    ],
    ids=["truncated", "filtered", "tool_call"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_of_no_use_is_a_sign(
    start: Start, step: ScriptStep, more: dict[str, Any], label: str, stream: bool
) -> None:
    async with start(learning=SOON) as gateway:
        gateway.up.script(MINI, step)
        await ask(gateway, stream=stream, **more)
        assert await signs(gateway) == [("validator", 0.0, label)]
        await ask(gateway, "Another one?", **more)
        assert (await signs(gateway))[1:] == [("validator", 1.0, "usable")]


async def test_an_answer_as_short_as_it_was_wanted_is_no_sign(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        gateway.up.script(MINI, ScriptStep(finish_reason="length"))
        await ask(gateway, max_tokens=20)
        assert await signs(gateway) == []


async def test_what_a_cascade_looked_at_gets_its_verdict_from_there_alone(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        gateway.up.script(MINI, ScriptStep(finish_reason="length"), times=None)
        await ask(gateway, hints={"cascade": "check"})
        assert await signs(gateway) == [("validator", 0.0, "truncation")]


async def test_good_answers_named_models_and_a_switch_leave_no_sign(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        await ask(gateway, "One.")
        await ask(gateway, "Two.", stream=True)
        gateway.up.script(SONNET, ScriptStep(finish_reason="length"), times=None)
        for _ in range(2):
            await gateway.client.chat(SONNET, text=QUESTION)
        assert await signs(gateway) == []
    async with start(learning=LearningSettings(implicit=False)) as gateway:
        gateway.up.script(MINI, ScriptStep(finish_reason="length"), times=None)
        await ask(gateway)
        await ask(gateway)
        assert await signs(gateway) == []


async def test_signs_are_no_outcomes_that_the_learned_policy_waits_for(start: Start) -> None:
    """However many signs there are, a key that never said a word stays with the priors."""
    async with start(learning=LearningSettings(after=5)) as gateway:
        gateway.up.script(MINI, ScriptStep(finish_reason="length"), times=None)
        for number in range(12):
            answer = await ask(gateway, f"{number}?")
            assert answer.json["sophia"]["policy"] == "priors"
        assert len(await signs(gateway)) == 12 == len(await gateway.rows("lessons"))


async def test_no_more_signs_of_a_key_are_taken_than_there_is_time_for(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        gateway.up.script(MINI, ScriptStep(finish_reason="length"), times=None)
        for number in range(40):
            await ask(gateway, f"{number}?")
        assert 20 <= len(await signs(gateway)) <= 24


async def test_one_keys_signs_move_nothing_of_another_keys(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        stranger = await gateway.new_key()
        await gateway.catch_up()
        body = {"model": "sophia/learned", "messages": [{"role": "user", "content": QUESTION}]}

        async def expected(key: str | None = None) -> dict[str, float]:
            told = (await gateway.client.post("/v1/route", body, key=key)).json
            return {one["model"]: one["quality"] for one in told["candidates"]}

        before, own = await expected(), await expected(stranger)
        await ask(gateway)
        await ask(gateway, key=stranger)
        assert await signs(gateway) == [], "the same words of another key are no retry"
        gateway.up.script(MINI, ScriptStep(finish_reason="length"), times=None)
        for number in range(15):
            await ask(gateway, f"{number}?", key=stranger)
        await signs(gateway)
        assert await expected() == before and await expected(stranger) != own


async def test_a_word_after_a_sign_is_still_the_first_word(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        gateway.up.script(MINI, ScriptStep(finish_reason="length"))
        answer = await ask(gateway)
        await signs(gateway)
        verdict = {"decision_id": answer.headers["x-sophia-decision-id"], "score": 0.2}
        assert (await gateway.client.post("/v1/feedback", verdict)).status == 200
        first = [(row["channel"], row["first"]) for row in await gateway.rows("lessons")]
        assert first == [("validator", 0), ("score", 1)]


async def test_decisions_replay_with_signs_among_the_lessons(start: Start) -> None:
    async with start(learning=SOON) as gateway:
        for number in range(30):
            answer = await ask(
                gateway, f"{number % 25} {QUESTION}", hints={"models": [MINI, SONNET]}
            )
            verdict = {"decision_id": answer.headers["x-sophia-decision-id"], "score": 0.8}
            await gateway.client.post("/v1/feedback", verdict)
        await signs(gateway)
        assert {row["channel"] for row in await gateway.rows("lessons")} == {"score", "retry"}
        result = await replayed(gateway)
        assert result.identical >= 5 and result.different == ()
