"""What is seen in an answer without asking anybody."""

import json
from typing import Any

import msgspec
import pytest

from sophia.serving.checks import Demands, Said, ToolCall, choices, demands, examine, is_refusal

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS = {"weather": {"type": "object", "properties": {"city": {"type": "string"}},
                     "required": ["city"], "additionalProperties": False}}


NOTHING = Demands()


def failed(said: Said, asked: Demands = NOTHING, *, clamped: bool = False) -> list[str]:
    return [one.check for one in examine([said], asked, clamped=clamped) if not one.passed]


def raw(**fields: Any) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in fields.items()}


@pytest.mark.parametrize(
    ("text", "passes"),
    [('{"n": 1}', True), ('{"n": "1"}', False), ("{}", False), ('```json\n{"n": 1}\n```', False),
     ("", False), ('{"n": 1} and more', False)],
)
def test_an_answer_must_fit_the_schema_that_was_asked_for(text: str, passes: bool) -> None:
    asked = Demands("json_schema", SCHEMA)
    assert ("schema" not in failed(Said(text), asked)) == passes


def test_a_json_object_is_no_list() -> None:
    assert failed(Said("[1]"), Demands("json_object")) == ["schema"]
    assert failed(Said('{"a": 1}'), Demands("json_object")) == []
    assert failed(Said("plain"), Demands("text")) == []


def test_what_a_schema_check_passed_over_is_told() -> None:
    asked = Demands("json_schema", {"type": "string", "pattern": "^a"})
    (verdict,) = [one for one in examine([Said('"b"')], asked) if one.check == "schema"]
    assert verdict.passed and verdict.unchecked == ("pattern",)


@pytest.mark.parametrize(
    ("name", "arguments", "passes"),
    [("weather", '{"city": "Ulm"}', True), ("weather", '{"city": 3}', False),
     ("weather", "{}", False), ("weather", '{"city": "Ulm', False), ("weather", "[]", False),
     ("weather", '{"city": "Ulm", "day": 1}', False), ("rain", '{"city": "Ulm"}', False)],
)
def test_a_tool_call_must_be_one_that_was_declared(name: str, arguments: str, passes: bool) -> None:
    said = Said(calls=(ToolCall(name, arguments),))
    assert ("tool_call" not in failed(said, Demands(tools=TOOLS))) == passes


def test_no_arguments_are_an_empty_object() -> None:
    assert failed(Said(calls=(ToolCall("now", ""),)), Demands(tools={"now": True})) == []


@pytest.mark.parametrize(
    ("must", "said", "passes"),
    [("*", Said("text"), False), ("weather", Said("text"), False), ("", Said("text"), True),
     ("other", Said(calls=(ToolCall("weather", '{"city": "Ulm"}'),)), False),
     ("weather", Said(calls=(ToolCall("weather", '{"city": "Ulm"}'),)), True)],
)
def test_a_tool_that_must_be_called_is(must: str, said: Said, passes: bool) -> None:
    asked = Demands(tools=TOOLS, must_call=must)
    assert ("tool_call" not in failed(said, asked)) == passes


@pytest.mark.parametrize(
    ("limited", "clamped", "passes"),
    [(False, False, False), (True, False, True), (True, True, False), (False, True, False)],
)
def test_only_a_length_that_the_caller_set_excuses_an_end(
    limited: bool, clamped: bool, passes: bool
) -> None:
    said = Said("and then", finish="length")
    found = failed(said, Demands(limited=limited), clamped=clamped)
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
    assert failed(Said(text)) == ["refusal"]


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
    assert failed(Said("a", finish="content_filter")) == ["refusal"]
    assert failed(Said(refusal="no")) == ["refusal"]


def test_nothing_is_empty() -> None:
    assert failed(Said(" \n")) == ["empty"]
    assert [one.check for one in examine([], Demands()) if not one.passed] == ["empty"]
    assert failed(Said(media=True)) == []


def test_one_bad_choice_of_several_fails_the_answer() -> None:
    found = examine([Said("fine"), Said(""), Said("fine")], Demands())
    assert [one.check for one in found if not one.passed] == ["empty"]


def test_demands_are_read_from_the_clients_own_fields() -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": TOOLS["weather"]}}
    asked = demands(
        raw(
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
            tools=[tool, {"type": "web"}, "odd"],
            tool_choice={"type": "function", "function": {"name": "weather"}},
            max_completion_tokens=5,
        )
    )
    assert asked == Demands("json_schema", SCHEMA, TOOLS, "weather", True)
    assert demands(raw(tool_choice="required", functions=[{"name": "f"}])) == Demands(
        tools={"f": True}, must_call="*"
    )
    assert demands(raw(max_tokens=None)).limited is False
    assert demands({}) == Demands() == demands(raw(tools=3, response_format="x", tool_choice="auto"))


def test_a_stream_and_a_whole_answer_say_the_same() -> None:
    call = {"id": "c", "type": "function"}
    parts: list[dict[str, Any]] = [
        {"delta": {"role": "assistant", "content": ""}},
        {"delta": {"content": "Let me "}},
        {"delta": {"content": "see.", "tool_calls": [
            call | {"index": 0, "function": {"name": "weather", "arguments": ""}}]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '"Ulm"}'}}]}},
        {"delta": {}, "finish_reason": "tool_calls"},
    ]
    stream = [json.dumps({"choices": [{"index": 0} | part]}).encode() for part in parts]
    message = {"content": "Let me see.", "tool_calls": [
        call | {"function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}]}
    whole = json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()
    expected = (
        Said("Let me see.", "", (ToolCall("weather", '{"city": "Ulm"}'),), False, "tool_calls"),
    )
    assert choices(stream) == choices([whole]) == expected
    assert choices([b'{"choices":[{"index":0,"text":"legacy"}]}']) == (Said("legacy"),)


@pytest.mark.parametrize(
    "choice",
    [{"index": "x", "message": 3}, {"delta": {"content": 7, "tool_calls": 5}}, 4, {},
     {"message": {"tool_calls": [1, {"function": "f"}, {"index": [], "function": {}}]}},
     {"finish_reason": None, "message": {"content": [{"text": 1}, 2], "refusal": {}}}],
)
def test_an_odd_answer_is_looked_at_without_failing(choice: Any) -> None:
    """A check must never be what breaks an answer."""
    said = choices([json.dumps({"choices": [choice]}).encode()])
    examine(said, Demands("json_schema", SCHEMA, TOOLS, "*"))


def test_a_call_of_another_kind_is_an_answer() -> None:
    call = {"type": "custom", "custom": {"name": "sql", "input": "select 1"}}
    (said,) = choices([json.dumps({"choices": [{"message": {"tool_calls": [call]}}]}).encode()])
    assert failed(said) == []
