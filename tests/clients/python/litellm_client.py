"""Drives `litellm` through its OpenRouter provider."""

import os
from typing import Any

# Otherwise the import asks a public host for newer prices.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from talk import Ask, Pieces, Seen, answer_lines, api_key, call, fields

litellm.suppress_debug_info = True


def act(ask: Ask, seen: Seen) -> None:
    asked = fields(ask)
    asked["model"] = f"openrouter/{ask['model']}"
    asked.update(
        api_base=os.environ["BASE_URL"],
        api_key=api_key(ask),
        num_retries=0,
        max_retries=0,
        timeout=20,
        **ask.get("extra", {}),
    )
    if ask.get("stream"):
        stream(asked, seen)
    else:
        whole(asked, seen)


def whole(asked: dict[str, Any], seen: Seen) -> None:
    answer = litellm.completion(**asked)
    choice = answer.choices[0]
    seen.update(
        text=choice.message.content,
        reasoning=getattr(choice.message, "reasoning_content", None),
        finish=choice.finish_reason,
        model=answer.model,
        usage=counts(answer.usage),
        cost=answer._hidden_params["response_cost"],
        calls=[
            call(part.function.name, part.function.arguments)
            for part in choice.message.tool_calls or []
        ],
    )


def stream(asked: dict[str, Any], seen: Seen) -> None:
    pieces = Pieces()
    for chunk in litellm.completion(**asked, stream=True, stream_options={"include_usage": True}):
        seen["model"] = chunk.model
        if usage := getattr(chunk, "usage", None):
            seen.update(usage=counts(usage), cost=getattr(usage, "cost", None))
        for choice in chunk.choices:
            seen["text"] += choice.delta.content or ""
            seen["reasoning"] += getattr(choice.delta, "reasoning_content", None) or ""
            seen["finish"] = choice.finish_reason or seen.get("finish")
            for part in choice.delta.tool_calls or []:
                pieces.add(part.index, part.function.name, part.function.arguments)
    seen["calls"] = pieces.calls()


def counts(usage: Any) -> list[int]:
    return [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens]


answer_lines(act)
