"""Drives the OpenRouter model of `pydantic-ai`."""

import asyncio
import json
import os
from typing import Any

from openai import AsyncOpenAI
from pydantic_ai import Agent, ModelRequest, ToolDefinition
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openrouter import OpenRouterModel
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.providers.openrouter import OpenRouterProvider
from talk import Ask, Seen, answer_lines, api_key


def act(ask: Ask, seen: Seen) -> None:
    client = AsyncOpenAI(
        base_url=os.environ["BASE_URL"], api_key=api_key(ask), max_retries=0, timeout=20
    )
    model = OpenRouterModel(ask["model"], provider=OpenRouterProvider(openai_client=client))
    actions = {"agent": agent, "chat": stream if ask.get("stream") else whole}
    asyncio.run(actions[ask["do"]](model, ask, seen))


async def whole(model: OpenRouterModel, ask: Ask, seen: Seen) -> None:
    note(await model_request(model, **parameters(ask)), seen)


async def stream(model: OpenRouterModel, ask: Ask, seen: Seen) -> None:
    async with model_request_stream(model, **parameters(ask)) as events:
        try:
            async for _ in events:
                pass
        finally:
            note(events.get(), seen)


async def agent(model: OpenRouterModel, ask: Ask, seen: Seen) -> None:
    """Let the library call the tool and send its result back by itself."""
    run = Agent(model)

    @run.tool_plain
    def weather(city: str) -> str:
        seen.setdefault("calls", []).append({"name": "weather", "arguments": {"city": city}})
        return ask["result"]

    answer = await run.run(ask["prompt"])
    seen["text"] = answer.output


def parameters(ask: Ask) -> dict[str, Any]:
    request: dict[str, Any] = {
        "function_tools": [definition(tool["function"]) for tool in ask.get("tools", [])]
    }
    if "schema" in ask:
        request["output_mode"] = "native"
        request["output_object"] = OutputObjectDefinition(
            json_schema=ask["schema"], name="answer", strict=True
        )
    return {
        "messages": [ModelRequest.user_text_prompt(ask["prompt"])],
        "model_settings": {**ask.get("settings", {}), "extra_body": ask.get("extra", {})},
        "model_request_parameters": ModelRequestParameters(**request),
    }


def definition(function: dict[str, Any]) -> ToolDefinition:
    return ToolDefinition(
        name=function["name"],
        description=function["description"],
        parameters_json_schema=function["parameters"],
    )


def note(answer: ModelResponse, seen: Seen) -> None:
    usage, details = answer.usage, answer.provider_details or {}
    seen.update(
        text=answer.text or "",
        reasoning=answer.thinking,
        model=answer.model_name,
        finish=details.get("finish_reason"),
        usage=[usage.input_tokens, usage.output_tokens, usage.total_tokens],
        cost=details.get("cost"),
        calls=[
            {"name": part.tool_name, "arguments": json.loads(part.args_as_json_str())}
            for part in answer.parts
            if isinstance(part, ToolCallPart)
        ],
    )


answer_lines(act)
