"""A fixed hour of traffic and everything that an operator can see of it, as plain JSON."""

import json
import re
from pathlib import Path
from typing import Any

from feedback_traffic import replayed
from gateway import CODER, KNOWN_POOL, MINI, NEMO, NO_TIMERS, Gateway, chat, running
from sophia.config import LearningSettings, RoutingSettings, Settings
from sophia.sandbox import ScriptedUpstream, ScriptStep
from sophia.testing.clock import ManualClock

LEARNING = LearningSettings(after=5)
PYTHON = "Write a Python function that merges two sorted lists, with type hints and a test."
MATHS = "Prove that the square root of two is irrational, step by step, using contradiction."
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "city",
        "schema": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}},
        },
    },
}
AUTO = "sophia/auto"
BODIES: tuple[dict[str, Any], ...] = (
    chat(MINI),
    chat(AUTO),
    chat(AUTO, PYTHON),
    chat(AUTO, MATHS, max_tokens=500),
    chat("sophia/auto:cheap", PYTHON),
    chat("sophia/auto:fast"),
    chat("sophia/auto:best", MATHS),
    chat("sophia/heuristic", PYTHON),
    chat(AUTO, tools=[TOOL]),
    chat(AUTO, response_format=SCHEMA),
    chat(AUTO, PYTHON, sophia={"task_type": "coding", "complexity": 0.9, "min_quality": 0.8}),
    chat(AUTO, MATHS, sophia={"max_cost_usd": 0.001, "cost_sensitive": True}),
    chat(AUTO, sophia={"max_latency_ms": 900, "session_id": "one"}),
    chat(AUTO, "word " * 4000),
    chat(NEMO, models=[CODER, MINI]),
    {
        **chat(AUTO, "And now?"),
        "messages": [
            {"role": "system", "content": "You review contracts."},
            {"role": "user", "content": "Is this clause enforceable?"},
            {"role": "assistant", "content": "It depends."},
            {"role": "user", "content": "On what?"},
        ],
    },
)


async def observe(folder: Path, up: ScriptedUpstream) -> dict[str, Any]:
    """Serve the fixed traffic and return what can be seen of it, by kind."""
    settings = Settings(
        data_dir=str(folder),
        catalogue=NO_TIMERS,
        learning=LEARNING,
        routing=RoutingSettings(pool=KNOWN_POOL),
    )
    clock = ManualClock(1_795_600_000.0)
    seen: dict[str, Any] = {}
    async with running(folder, "native", settings, up, clock) as gateway:
        seen["routes_before"] = await _routes(gateway, clock)
        seen["answers"] = await _answers(gateway, clock)
        await _teach(gateway, clock)
        seen["routes_after"] = await _routes(gateway, clock)
        seen["decisions"] = await _decisions(gateway)
        seen["ledger"] = await _ledger(gateway)
        page = (await gateway.client.get("/metrics")).body.decode().splitlines()
        own = ("block_seconds ", "round_trips_total ")
        seen["metrics"] = [line for line in page if not any(name in line for name in own)]
        result = await replayed(gateway, LEARNING)
        seen["replay"] = [result.identical, len(result.different)]
        key_id = gateway.client.key.split("-")[2]
    return dict(_plain(json.loads(json.dumps(seen).replace(key_id, "KEY"))))


async def _routes(gateway: Gateway, clock: ManualClock) -> list[Any]:
    told = []
    for body in BODIES:
        clock.advance(0.05)
        told.append((await gateway.client.post("/v1/route", body)).json)
    return told


async def _answers(gateway: Gateway, clock: ManualClock) -> list[Any]:
    told: list[Any] = []
    for body in BODIES:
        clock.advance(0.05)
        answer = await gateway.client.post("/v1/chat/completions", body)
        told.append([answer.status, answer.json, dict(answer.headers)])
        clock.advance(0.05)
        answer = await gateway.client.post("/v1/chat/completions", {**body, "stream": True})
        told.append([answer.status, answer.text, answer.chunks[0], answer.chunks[-1]])
    for step in (
        ScriptStep(status=503),
        ScriptStep(status=429, retry_after="7"),
        ScriptStep(cut_after=2),
    ):
        gateway.up.script(MINI, step)
        clock.advance(0.05)
        answer = await gateway.client.post(
            "/v1/chat/completions", {**chat(MINI, models=[NEMO]), "stream": True}
        )
        told.append([answer.status, answer.body.decode()])
    # The cut stream is settled in the background; the clock stands until then.
    intents = await gateway.rows("intents")
    await gateway.settled(len(intents))
    return told


async def _teach(gateway: Gateway, clock: ManualClock) -> None:
    """Score thirty answers: cheap models disappoint on code."""
    for number in range(30):
        clock.advance(1.0)
        text = f"{number} {PYTHON if number % 2 else MATHS}"
        account = (await gateway.client.chat(AUTO, text=text)).json["sophia"]
        score = (number % 5) / 4 if "anthropic" not in account["model"] else 0.9
        verdict = {"decision_id": account["decision_id"], "score": score}
        assert (await gateway.client.post("/v1/feedback", verdict)).status == 200


async def _decisions(gateway: Gateway) -> list[Any]:
    rows = await gateway.sophia.store.decisions(0, 10_000)
    ids = sorted({f"dec-{row.attempt_id:016x}" for row in rows})
    return [(await gateway.client.get(f"/v1/decisions/{id}")).json for id in ids]


async def _ledger(gateway: Gateway) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for name in ("intents", "outcomes", "feedback", "lessons"):
        rows = await gateway.rows(name)
        for row in rows:
            row.pop("plan", None)
        tables[name] = rows
    return tables


_VARYING = re.compile(r"gen-[0-9a-zA-Z-]+|(?<=.created.:)[0-9]+|^[0-9a-f]{16}[+][0-9]+$")


def _plain(value: Any) -> Any:
    """Round floats to six digits, so that another processor gives the same text."""
    match value:
        case float():
            return float(f"{value:.6g}")
        case str():
            return _VARYING.sub("X", value)
        case list():
            return [_plain(one) for one in value]
        case dict():
            return {name: 0 if name == "created" else _plain(one) for name, one in value.items()}
        case _:
            return value
