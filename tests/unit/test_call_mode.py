"""The call mode of a request: parsed leniently, because the upstream checks these fields."""

from typing import Any, NamedTuple

import msgspec
import pytest

from sophia.http.v1.bodies import ChatBody
from sophia.http.v1.call_mode import parse_call_mode
from sophia.routing.bandit.arms import (
    build_call_mode,
    format_arm,
    list_less_specific_arms,
    strip_call_mode,
    strip_effort,
)
from sophia.routing.types import Prompt


class CallMode(NamedTuple):
    reasoning: bool = False
    reasoning_effort: str = ""
    provider_preference: str = ""


USUAL = CallMode(reasoning=True)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, CallMode()),
        ({"reasoning": {}}, USUAL),
        ({"reasoning": {"effort": "high"}}, CallMode(reasoning=True, reasoning_effort="high")),
        ({"reasoning": {"effort": "minimal"}}, CallMode(reasoning=True, reasoning_effort="low")),
        ({"reasoning": {"effort": "medium"}}, USUAL),
        ({"reasoning": {"effort": "none"}}, CallMode()),
        ({"reasoning": {"enabled": False}}, CallMode()),
        ({"reasoning": {"max_tokens": 0}}, CallMode()),
        ({"reasoning": {"max_tokens": 1024}}, CallMode(reasoning=True, reasoning_effort="low")),
        ({"reasoning": {"max_tokens": 32_000}}, CallMode(reasoning=True, reasoning_effort="high")),
        ({"reasoning": {"max_tokens": 8_000}}, USUAL),
        ({"reasoning": {"effort": ["odd"], "new": {"a": 1}}}, USUAL),
        ({"reasoning_effort": "xhigh"}, CallMode(reasoning=True, reasoning_effort="high")),
        ({"reasoning_effort": "none"}, CallMode()),
        ({"reasoning_effort": "unknown"}, USUAL),
        ({"provider": {"sort": "price"}}, CallMode(provider_preference="price")),
        (
            {"provider": {"sort": {"by": "latency", "partition": "none"}}},
            CallMode(provider_preference="fast"),
        ),
        ({"provider": {"only": ["acme"], "zdr": True}}, CallMode(provider_preference="chosen")),
        ({"provider": {"only": [], "zdr": True}}, CallMode()),
        (
            {"provider": {"sort": 3}, "reasoning_effort": "low"},
            CallMode(reasoning=True, reasoning_effort="low"),
        ),
    ],
    ids=str,
)
def test_the_call_mode_follows_openrouters_fields(
    fields: dict[str, Any], expected: CallMode
) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], **fields}
    assert (
        parse_call_mode(msgspec.json.decode(msgspec.json.encode(body), type=ChatBody)) == expected
    )


@pytest.mark.parametrize(
    ("prompt", "mode", "fallbacks"),
    [
        (Prompt(text="a"), "", []),
        (Prompt(text="a", tools=1), "tools", []),
        (Prompt(text="a", reasoning=True), "reasoning", []),
        (Prompt(text="a", reasoning=True, reasoning_effort="low"), "reasoning:low", ["reasoning"]),
        (Prompt(text="a", provider_preference="price"), "@price", [""]),
        (
            Prompt(
                text="a",
                tools=2,
                reasoning=True,
                reasoning_effort="high",
                provider_preference="fast",
            ),
            "tools:high@fast",
            ["tools:high", "tools"],
        ),
    ],
)
def test_an_arm_is_named_by_what_is_not_usual_and_has_fallbacks(
    prompt: Prompt, mode: str, fallbacks: list[str]
) -> None:
    arm = format_arm("acme/one:free", mode)
    assert build_call_mode(prompt) == mode
    assert strip_call_mode(arm) == "acme/one:free"
    assert list(list_less_specific_arms(arm)) == [
        format_arm("acme/one:free", each) for each in fallbacks
    ]
    assert strip_effort(arm) == format_arm("acme/one:free", fallbacks[-1] if fallbacks else mode)
