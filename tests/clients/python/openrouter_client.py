"""Drives OpenRouter's own package, `openrouter`."""

import os
from typing import Any

from openrouter import OpenRouter
from openrouter.utils import BackoffStrategy, RetryConfig
from talk import Ask, Pieces, Seen, answer_lines, api_key, call, fields

# Left alone, the package repeats every 5xx for an hour.
NO_RETRIES = RetryConfig("none", BackoffStrategy(1, 1, 1, 1), retry_connection_errors=False)


def act(ask: Ask, seen: Seen) -> None:
    with OpenRouter(
        api_key=api_key(ask),
        server_url=os.environ["BASE_URL"],
        retry_config=NO_RETRIES,
        timeout_ms=20_000,
    ) as client:
        actions = {
            "chat": stream if ask.get("stream") else whole,
            "embed": embed,
            "list": list_models,
        }
        actions[ask["do"]](client, ask, seen)


def whole(client: OpenRouter, ask: Ask, seen: Seen) -> None:
    answer = client.chat.send(**fields(ask), **ask.get("extra", {}))
    choice = answer.choices[0]
    note_usage(answer, seen)
    seen.update(
        text=choice.message.content,
        reasoning=choice.message.reasoning or "",
        finish=choice.finish_reason,
        calls=[
            call(part.function.name, part.function.arguments)
            for part in choice.message.tool_calls or []
        ],
    )


def stream(client: OpenRouter, ask: Ask, seen: Seen) -> None:
    pieces = Pieces()
    with client.chat.send(**fields(ask), **ask.get("extra", {}), stream=True) as chunks:
        for chunk in chunks:
            note_usage(chunk, seen)
            if chunk.error:
                seen["chunk_error"] = {"code": chunk.error.code, "message": chunk.error.message}
            for choice in chunk.choices:
                seen["text"] += choice.delta.content or ""
                seen["reasoning"] += choice.delta.reasoning or ""
                seen["finish"] = choice.finish_reason or seen.get("finish")
                for part in choice.delta.tool_calls or []:
                    pieces.add(part.index, part.function.name, part.function.arguments)
    seen["calls"] = pieces.calls()


def embed(client: OpenRouter, ask: Ask, seen: Seen) -> None:
    answer = client.embeddings.generate(model=ask["model"], input=ask["inputs"])
    note_usage(answer, seen)
    seen["sizes"] = [len(row.embedding) for row in answer.data]
    seen["indexes"] = [row.index for row in answer.data]


def list_models(client: OpenRouter, ask: Ask, seen: Seen) -> None:
    seen["ids"] = []
    page = client.models.list()
    while page is not None:
        seen["ids"] += [model.id for model in page.result.data]
        page = page.next()


def note_usage(answer: Any, seen: Seen) -> None:
    seen["model"] = answer.model
    if answer.usage:
        usage = answer.usage
        seen["usage"] = [
            usage.prompt_tokens,
            getattr(usage, "completion_tokens", 0),
            usage.total_tokens,
        ]
        seen["cost"] = usage.cost


answer_lines(act)
