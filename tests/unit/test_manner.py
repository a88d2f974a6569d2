"""How a request wants to be answered: read leniently, so that the upstream judges what it may say."""

from typing import Any

import msgspec
import pytest

from sophia.http.v1.bodies import ChatBody
from sophia.http.v1.manner import Manner, manner_of
from sophia.routing.arms import arm_of, mode_of, model_of, relatives, usual
from sophia.routing.nouns import Prompt

USUAL = Manner(reasoning=True)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Manner()),
        ({"reasoning": {}}, USUAL),
        ({"reasoning": {"effort": "high"}}, Manner(True, "high")),
        ({"reasoning": {"effort": "minimal"}}, Manner(True, "low")),
        ({"reasoning": {"effort": "medium"}}, USUAL),
        ({"reasoning": {"effort": "none"}}, Manner()),
        ({"reasoning": {"enabled": False}}, Manner()),
        ({"reasoning": {"max_tokens": 0}}, Manner()),
        ({"reasoning": {"max_tokens": 1024}}, Manner(True, "low")),
        ({"reasoning": {"max_tokens": 32_000}}, Manner(True, "high")),
        ({"reasoning": {"max_tokens": 8_000}}, USUAL),
        ({"reasoning": {"effort": ["odd"], "new": {"a": 1}}}, USUAL),
        ({"reasoning_effort": "xhigh"}, Manner(True, "high")),
        ({"reasoning_effort": "none"}, Manner()),
        ({"reasoning_effort": "unheard of"}, USUAL),
        ({"provider": {"sort": "price"}}, Manner(providers="price")),
        ({"provider": {"sort": {"by": "latency", "partition": "none"}}}, Manner(providers="fast")),
        ({"provider": {"only": ["acme"], "zdr": True}}, Manner(providers="chosen")),
        ({"provider": {"only": [], "zdr": True}}, Manner()),
        ({"provider": {"sort": 3}, "reasoning_effort": "low"}, Manner(True, "low")),
    ],
    ids=str,
)
def test_the_manner_is_read_from_openrouters_fields(
    fields: dict[str, Any], expected: Manner
) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], **fields}
    assert manner_of(msgspec.json.decode(msgspec.json.encode(body), type=ChatBody)) == expected


@pytest.mark.parametrize(
    ("prompt", "mode", "kin"),
    [
        (Prompt("a"), "", []),
        (Prompt("a", tools=1), "tools", []),
        (Prompt("a", reasoning=True), "reasoning", []),
        (Prompt("a", reasoning=True, effort="low"), "reasoning:low", ["reasoning"]),
        (Prompt("a", providers="price"), "@price", [""]),
        (
            Prompt("a", tools=2, reasoning=True, effort="high", providers="fast"),
            "tools:high@fast",
            ["tools:high", "tools"],
        ),
    ],
)
def test_an_arm_is_named_by_what_is_not_usual_and_knows_its_relatives(
    prompt: Prompt, mode: str, kin: list[str]
) -> None:
    arm = arm_of("acme/one:free", mode)
    assert mode_of(prompt) == mode
    assert model_of(arm) == "acme/one:free"
    assert list(relatives(arm)) == [arm_of("acme/one:free", one) for one in kin]
    assert usual(arm) == arm_of("acme/one:free", kin[-1] if kin else mode)
