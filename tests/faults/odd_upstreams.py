"""Answers of upstreams that differ from OpenRouter's, and an own upstream that gives them."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from stage import SSE

from gateway import MINI, Answer, Gateway, Start
from sophia.config import UpstreamModelSettings, UpstreamSettings
from sophia.sandbox import ScriptStep

OWN = "own/model"
BOM = b"\xef\xbb\xbf"
STREAMS = pytest.mark.parametrize("stream", [False, True])


@asynccontextmanager
async def own(start: Start, **settings: Any) -> AsyncIterator[Gateway]:
    """Yield a Sophia with an own upstream of one paid model, which the scripted upstream plays."""
    model = UpstreamModelSettings(
        id=OWN, served_as=MINI, prompt_usd_per_mtok=1.0, completion_usd_per_mtok=10.0
    )
    async with start() as plain:
        url = plain.up.base_url
    place = UpstreamSettings(name="own", base_url=url, api_key="k", models=(model,), **settings)
    async with start(upstreams=(place,)) as gateway:
        yield gateway


def delta(finish: object = None, **fields: Any) -> dict[str, Any]:
    return {"id": "gen-x", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def events(*chunks: Mapping[str, Any] | str) -> bytes:
    """Return a whole stream; text stands as it is between the braces of an event."""
    payloads = [one if isinstance(one, str) else json.dumps(one) for one in chunks]
    return b"".join(f"data: {payload}\n\n".encode() for payload in (*payloads, "[DONE]"))


def stream_of(*chunks: Mapping[str, Any] | str) -> ScriptStep:
    return ScriptStep(body=events(*chunks), headers=SSE)


def whole(message: Mapping[str, Any], finish: object = "stop", **more: Any) -> ScriptStep:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return ScriptStep(body={"id": "gen-x", "choices": [choice], **more})


def finish_reasons(answer: Answer) -> list[str]:
    streamed = answer.headers["content-type"].startswith("text/event-stream")
    bodies = answer.chunks if streamed else [answer.json]
    return [c["finish_reason"] for body in bodies for c in body["choices"] if c["finish_reason"]]


def calls_of(answer: Answer) -> dict[int, dict[str, str]]:
    """Return the calls of a stream as a client builds them: by index."""
    built: dict[int, dict[str, str]] = {}
    for chunk in answer.chunks:
        for choice in chunk["choices"]:
            for call in choice["delta"].get("tool_calls", ()):
                part = built.setdefault(call["index"], {"id": "", "arguments": ""})
                part["id"] += call.get("id") or ""
                part["arguments"] += call["function"].get("arguments") or ""
    return built


def call(id: str | None = None, arguments: Any = None, **fields: Any) -> dict[str, Any]:
    named = {} if id is None else {"id": id, "type": "function"}
    function = ({"name": "look"} if id else {}) | {"arguments": arguments}
    return {**fields, **named, "function": function}
