"""What is seen in an answer without asking anybody."""

import json
from typing import Any

import msgspec
import pytest

from sophia.serving.attempts.choices import AnswerChoice, ToolCall, parse_choices
from sophia.serving.cascade.checks import (
    AnswerRequirements,
    check_answer,
    is_refusal,
    parse_requirements,
)

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS = {
    "weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
}


NOTHING = AnswerRequirements()


def failed(
    said: AnswerChoice, asked: AnswerRequirements = NOTHING, *, clamped: bool = False
) -> list[str]:
    return [one.check for one in check_answer([said], asked, clamped=clamped) if not one.passed]


def raw(**fields: Any) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in fields.items()}


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ('{"n": 1}', True),
        ('{"n": "1"}', False),
        ("{}", False),
        ('```json\n{"n": 1}\n```', False),
        ("", False),
        ('{"n": 1} and more', False),
    ],
)
def test_an_answer_must_fit_the_schema_that_was_asked_for(text: str, passes: bool) -> None:
    asked = AnswerRequirements(response_format="json_schema", schema=SCHEMA)
    assert ("schema" not in failed(AnswerChoice(text=text), asked)) == passes


def test_a_json_object_is_no_list() -> None:
    assert failed(AnswerChoice(text="[1]"), AnswerRequirements(response_format="json_object")) == [
        "schema"
    ]
    assert (
        failed(AnswerChoice(text='{"a": 1}'), AnswerRequirements(response_format="json_object"))
        == []
    )
    assert failed(AnswerChoice(text="plain"), AnswerRequirements(response_format="text")) == []


@pytest.mark.parametrize(
    ("name", "arguments", "passes"),
    [
        ("weather", '{"city": "Ulm"}', True),
        ("weather", '{"city": 3}', False),
        ("weather", "{}", False),
        ("weather", '{"city": "Ulm', False),
        ("weather", "[]", False),
        ("weather", '{"city": "Ulm", "day": 1}', False),
        ("rain", '{"city": "Ulm"}', False),
    ],
)
def test_a_tool_call_must_be_one_that_was_declared(name: str, arguments: str, passes: bool) -> None:
    said = AnswerChoice(tool_calls=(ToolCall(name, arguments),))
    assert ("tool_call" not in failed(said, AnswerRequirements(tools=TOOLS))) == passes


def test_no_arguments_are_an_empty_object() -> None:
    assert (
        failed(
            AnswerChoice(tool_calls=(ToolCall("now", ""),)), AnswerRequirements(tools={"now": True})
        )
        == []
    )


@pytest.mark.parametrize(
    ("must", "said", "passes"),
    [
        ("*", AnswerChoice(text="text"), False),
        ("weather", AnswerChoice(text="text"), False),
        ("", AnswerChoice(text="text"), True),
        ("other", AnswerChoice(tool_calls=(ToolCall("weather", '{"city": "Ulm"}'),)), False),
        ("weather", AnswerChoice(tool_calls=(ToolCall("weather", '{"city": "Ulm"}'),)), True),
    ],
)
def test_a_tool_that_must_be_called_is(must: str, said: AnswerChoice, passes: bool) -> None:
    asked = AnswerRequirements(tools=TOOLS, required_tool=must)
    assert ("tool_call" not in failed(said, asked)) == passes


@pytest.mark.parametrize(
    ("limited", "clamped", "passes"),
    [(False, False, False), (True, False, True), (True, True, False), (False, True, False)],
)
def test_only_a_length_that_the_caller_set_excuses_an_end(
    limited: bool, clamped: bool, passes: bool
) -> None:
    said = AnswerChoice(text="and then", finish_reason="length")
    found = failed(said, AnswerRequirements(max_tokens_set=limited), clamped=clamped)
    assert ("truncation" not in found) == passes


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot assist with that request.",
        "**I cannot provide** instructions for this.",
        "As an AI language model, I cannot help you with it.",
        "I'm unable to assist with this.",
        "Sorry, but I won't do that.",
        "Es tut mir leid, aber dabei kann ich nicht helfen.",
        "Leider kann ich dir dabei nicht helfen.",
        "Désolé, mais je ne peux pas vous aider.",
        "Lo siento, pero no puedo ayudarte con eso.",
        "Mi dispiace, ma non posso aiutarti.",
        "Desculpe, mas não posso ajudar.",
        "Het spijt me, maar ik kan je daar niet mee helpen.",
        "Извините, но я не могу помочь.",
        "很抱歉，我无法回答这个问题。",
        "申し訳ありませんが、お手伝いできません。",
        "죄송합니다만 도와드릴 수 없습니다.",
    ],
)
def test_refusals_are_known_in_many_languages(text: str) -> None:
    assert is_refusal(text)
    assert failed(AnswerChoice(text=text)) == ["refusal"]


@pytest.mark.parametrize(
    "text",
    [
        "The sky is blue because of Rayleigh scattering.",
        "I can't think of a better name than Ada.",
        "Sorry is a song by Justin Bieber.",
        "You cannot divide by zero.",
        "Ich kann das gut erklären: Licht wird gestreut.",
        "No, that is not so.",
        "Sorry for the wait! " + "Here is the text. " * 40,
        "I'm sorry, but I can't give exact figures; here is an estimate. " + "More text. " * 60,
    ],
)
def test_what_only_looks_like_a_refusal_is_none(text: str) -> None:
    assert not is_refusal(text)


def test_a_filter_and_a_refusal_field_are_refusals() -> None:
    assert failed(AnswerChoice(text="a", finish_reason="content_filter")) == ["refusal"]
    assert failed(AnswerChoice(refusal="no")) == ["refusal"]


def test_nothing_is_empty() -> None:
    assert failed(AnswerChoice(text=" \n")) == ["empty"]
    assert [one.check for one in check_answer([], AnswerRequirements()) if not one.passed] == [
        "empty"
    ]
    assert failed(AnswerChoice(media=True)) == []


def test_one_bad_choice_of_several_fails_the_answer() -> None:
    found = check_answer(
        [AnswerChoice(text="fine"), AnswerChoice(text=""), AnswerChoice(text="fine")],
        AnswerRequirements(),
    )
    assert [one.check for one in found if not one.passed] == ["empty"]


def test_demands_are_read_from_the_clients_own_fields() -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": TOOLS["weather"]}}
    asked = parse_requirements(
        raw(
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
            tools=[tool, {"type": "web"}, "odd"],
            tool_choice={"type": "function", "function": {"name": "weather"}},
            max_completion_tokens=5,
        )
    )
    assert asked == AnswerRequirements(
        response_format="json_schema",
        schema=SCHEMA,
        tools=TOOLS,
        required_tool="weather",
        max_tokens_set=True,
    )
    assert parse_requirements(
        raw(tool_choice="required", functions=[{"name": "f"}])
    ) == AnswerRequirements(tools={"f": True}, required_tool="*")
    assert parse_requirements(raw(max_tokens=None)).max_tokens_set is False
    assert (
        parse_requirements({})
        == AnswerRequirements()
        == parse_requirements(raw(tools=3, response_format="x", tool_choice="auto"))
    )


def test_a_stream_and_a_whole_answer_say_the_same() -> None:
    call = {"id": "c", "type": "function"}
    parts: list[dict[str, Any]] = [
        {"delta": {"role": "assistant", "content": ""}},
        {"delta": {"content": "Let me "}},
        {
            "delta": {
                "content": "see.",
                "tool_calls": [
                    call | {"index": 0, "function": {"name": "weather", "arguments": ""}}
                ],
            }
        },
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '"Ulm"}'}}]}},
        {"delta": {}, "finish_reason": "tool_calls"},
    ]
    stream = [json.dumps({"choices": [{"index": 0} | part]}).encode() for part in parts]
    message = {
        "content": "Let me see.",
        "tool_calls": [call | {"function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}],
    }
    whole = json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()
    expected = (
        AnswerChoice(
            text="Let me see.",
            tool_calls=(ToolCall("weather", '{"city": "Ulm"}'),),
            finish_reason="tool_calls",
        ),
    )
    assert parse_choices(stream) == parse_choices([whole]) == expected
    assert parse_choices([b'{"choices":[{"index":0,"text":"legacy"}]}']) == (
        AnswerChoice(text="legacy"),
    )


@pytest.mark.parametrize(
    "choice",
    [
        {"index": "x", "message": 3},
        {"delta": {"content": 7, "tool_calls": 5}},
        4,
        {},
        {"message": {"tool_calls": [1, {"function": "f"}, {"index": [], "function": {}}]}},
        {"finish_reason": None, "message": {"content": [{"text": 1}, 2], "refusal": {}}},
    ],
)
def test_an_odd_answer_is_looked_at_without_failing(choice: Any) -> None:
    """A check must never be what breaks an answer."""
    said = parse_choices([json.dumps({"choices": [choice]}).encode()])
    check_answer(
        said,
        AnswerRequirements(
            response_format="json_schema", schema=SCHEMA, tools=TOOLS, required_tool="*"
        ),
    )


def test_a_call_of_another_kind_is_an_answer() -> None:
    call = {"type": "custom", "custom": {"name": "sql", "input": "select 1"}}
    (said,) = parse_choices(
        [json.dumps({"choices": [{"message": {"tool_calls": [call]}}]}).encode()]
    )
    assert failed(said) == []
