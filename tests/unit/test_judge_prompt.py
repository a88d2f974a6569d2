"""What a judge is shown is quoted as data, bounded, and its reply is a mark or nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.serving.attempts.choices import AnswerChoice, ToolCall
from sophia.serving.judging.prompt import build_judge_messages, elide_middle, parse_judge_score

ASKED = [{"role": "user", "content": "Why?"}]


def shown(
    turns: object, said: AnswerChoice, rubric: str | None = None
) -> tuple[str, dict[str, object]]:
    system, user = build_judge_messages({"messages": turns}, said, rubric)
    return system["content"], json.loads(user["content"])


@given(st.text())
def test_no_answer_gets_out_of_its_quotes(text: str) -> None:
    """Whatever it holds, it comes back as one string in one place, and the instruction stays."""
    usual, _ = shown(ASKED, AnswerChoice(text="fine"))
    told, material = shown(ASKED, AnswerChoice(text=text))
    assert told == usual
    assert set(material) == {"conversation", "answer"}
    assert material["answer"] == {"text": elide_middle(text, 6000)}


def test_the_last_turn_and_the_system_prompt_are_shown_before_older_turns() -> None:
    old = [{"role": "user", "content": f"{number} " + "x" * 2990} for number in range(9)]
    turns = [{"role": "system", "content": "Be brief."}, *old, {"role": "user", "content": "Last?"}]
    _, material = shown(turns, AnswerChoice(text="yes"))
    told = material["conversation"]
    assert isinstance(told, list)
    assert told[0] == {"role": "system", "content": "Be brief."}
    assert told[-1] == {"role": "user", "content": "Last?"}
    assert [turn["content"][0] for turn in told[1:-1]] == ["6", "7", "8"]
    assert sum(len(turn["content"]) for turn in told) < 8100


def test_calls_of_tools_parts_and_a_cut_end_are_shown() -> None:
    turns = [{"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "file"}]}]
    said = AnswerChoice(
        text="", tool_calls=(ToolCall("look", '{"at": 1}'),), finish_reason="length"
    )
    _, material = shown(turns, said)
    assert material["conversation"] == [{"role": "user", "content": "Look"}]
    assert material["answer"] == {
        "text": "",
        "tool_calls": [{"name": "look", "arguments": '{"at": 1}'}],
        "ended": "at the greatest length",
    }


def test_the_operators_rubric_is_part_of_the_instruction() -> None:
    told, _ = shown(ASKED, AnswerChoice(text="x"), "Answers name their {sources}.")
    assert "What counts here: Answers name their {sources}." in told


@pytest.mark.parametrize("turns", [None, "text", [1, {"role": "user"}], [{"content": [None]}]])
def test_odd_conversations_are_shown_as_far_as_they_can_be_read(turns: object) -> None:
    _, material = shown(turns, AnswerChoice(text="x"))
    assert material["answer"] == {"text": "x"}


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"flaws": "", "score": 7}', 0.7),
        ('```json\n{"score": 10}\n```', 1.0),
        (' {"score": 0} ', 0.0),
        ('{"score": 6.5}', 0.65),
        ('{"score": 10.5}', None),
        ('{"score": -1}', None),
        ('{"score": NaN}', None),
        ('{"score": "7"}', None),
        ('{"flaws": ""}', None),
        ('I give it {"score": 7}', None),
        ("7", None),
        ("[" * 100_000, None),
        ("\ud800", None),
        ("", None),
    ],
)
def test_a_reply_is_a_mark_or_nothing(reply: str, score: float | None) -> None:
    assert parse_judge_score(reply) == score
