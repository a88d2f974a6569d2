"""Every client gets tool calls from Sophia that it can run."""

import pytest

from clients.programs import AGENTS, OPENAI_CLIENTS, Program, only

pytestmark = pytest.mark.clients

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Today's weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Köln", "Łódź"]}},
            "required": ["city"],
        },
    },
}
CALL = {"name": "weather", "arguments": {"city": "Köln"}}
PROMPT = "What is the weather in Köln?"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", ["sophia/auto", "openai/gpt-4o-mini"])
def test_a_tool_call_arrives_complete(client: Program, model: str, stream: bool) -> None:
    seen = client.get("chat", model=model, stream=stream, prompt=PROMPT, tools=[WEATHER])
    assert seen["calls"] == [CALL]
    assert seen["finish"] == "tool_calls"


@only(*OPENAI_CLIENTS)
def test_the_strict_streaming_helper_accumulates_a_call(client: Program) -> None:
    seen = client.get("parse", model="openai/gpt-4o-mini", prompt=PROMPT, tools=[WEATHER])
    assert (seen["calls"], seen["finish"]) == ([CALL], "tool_calls")


@only(*AGENTS)
def test_an_agent_loop_runs_its_tool_and_ends(client: Program) -> None:
    seen = client.get("agent", model="sophia/auto", prompt=PROMPT, tools=[WEATHER], result="sunny")
    assert [call["name"] for call in seen["calls"]] == ["weather"]
    assert seen["text"]
