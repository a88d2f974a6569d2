"""Every client gets its answers from Sophia, whole and streamed."""

import json

import pytest

from clients.programs import AGENTS, LITELLM_PYTHON, OPENAI_CLIENTS, Program, only
from clients.servers import Upstream

pytestmark = [
    pytest.mark.clients,
    pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"]),
]

AUTO = "sophia/auto"
NAMED = "openai/gpt-4o-mini"
THINKER = "deepseek/deepseek-chat-v3.1"
SAID = "Grüße aus Köln 👋: one, two,\n\n three."
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer", "minimum": 7}},
    "required": ["city", "people"],
    "additionalProperties": False,
}


def test_auto_names_the_model_that_answered(
    client: Program, upstream: Upstream, stream: bool
) -> None:
    upstream.script({"text": SAID})
    seen = client.get("chat", model=AUTO, stream=stream)
    assert (seen["text"], seen["finish"]) == (SAID, "stop")
    if client.shows("model", stream):
        assert "/" in seen["model"]
        assert AUTO not in seen["model"]


def test_a_named_model_shows_its_tokens_and_cost(client: Program, stream: bool) -> None:
    seen = client.get("chat", model=NAMED, stream=stream)
    prompt, completion, total = seen["usage"]
    assert prompt > 0 < completion
    assert total == prompt + completion
    assert seen["model"].endswith(NAMED)
    if client.shows("cost", stream):
        expected = prompt * 0.15e-6 + completion * 0.60e-6
        assert seen["cost"] == pytest.approx(expected, abs=2e-9)


def test_an_answer_follows_a_json_schema(client: Program, stream: bool) -> None:
    seen = client.get("chat", model=NAMED, stream=stream, schema=CITY)
    city = json.loads(seen["text"])
    assert city.keys() == {"city", "people"}
    assert city["people"] >= 7


def test_a_cut_answer_says_so(client: Program, stream: bool) -> None:
    seen = client.get("chat", model=NAMED, stream=stream, settings={"max_tokens": 16})
    assert seen["finish"] == "length"


def test_a_thinking_model_shows_its_reasoning(client: Program, stream: bool) -> None:
    extra = {"reasoning": {"effort": "low"}}
    seen = client.get("chat", model=THINKER, stream=stream, extra=extra)
    assert seen["reasoning"].startswith("The question is about")
    assert seen["text"]


@only(*OPENAI_CLIENTS, LITELLM_PYTHON, *AGENTS)
def test_unknown_fields_reach_the_model_unchanged(
    client: Program, upstream: Upstream, stream: bool
) -> None:
    odd = {"kept": [1, 2.5, None, "ü", {}]}
    client.get("chat", model=NAMED, stream=stream, extra={"x_unheard_of": odd})
    assert upstream.last_body()["x_unheard_of"] == odd


def test_a_failing_model_is_replaced_unnoticed(
    client: Program, upstream: Upstream, stream: bool
) -> None:
    upstream.script({"status": 503}, {"text": SAID}, times=1)
    assert client.get("chat", model=AUTO, stream=stream)["text"] == SAID


@only(*OPENAI_CLIENTS)
def test_legacy_completions_still_work(client: Program, upstream: Upstream, stream: bool) -> None:
    upstream.script({"text": SAID})
    seen = client.get("complete", model=NAMED, stream=stream)
    assert (seen["text"], seen["finish"]) == (SAID, "stop")
