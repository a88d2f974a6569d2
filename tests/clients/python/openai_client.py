"""Drives the `openai` package."""

import os
from typing import Any

import openai
from talk import Ask, Pieces, Seen, answer_lines, api_key, call, fields


def act(ask: Ask, seen: Seen) -> None:
    client = openai.OpenAI(
        base_url=os.environ["BASE_URL"], api_key=api_key(ask), max_retries=0, timeout=20
    )
    actions = {
        "chat": stream if ask.get("stream") else whole,
        "complete": complete,
        "embed": embed,
        "list": list_models,
        "parse": parse,
    }
    actions[ask["do"]](client, ask, seen)


def whole(client: openai.OpenAI, ask: Ask, seen: Seen) -> None:
    note_answer(client.chat.completions.create(**fields(ask), extra_body=ask.get("extra")), seen)


def stream(client: openai.OpenAI, ask: Ask, seen: Seen) -> None:
    pieces = Pieces()
    options = {"include_usage": True}
    for chunk in client.chat.completions.create(
        **fields(ask), stream=True, stream_options=options, extra_body=ask.get("extra")
    ):
        note_usage(chunk, seen)
        for choice in chunk.choices:
            seen["text"] += choice.delta.content or ""
            seen["reasoning"] += getattr(choice.delta, "reasoning", None) or ""
            seen["finish"] = choice.finish_reason or seen.get("finish")
            for part in choice.delta.tool_calls or []:
                pieces.add(part.index, part.function.name, part.function.arguments)
    seen["calls"] = pieces.calls()


def parse(client: openai.OpenAI, ask: Ask, seen: Seen) -> None:
    """Use the helper that accumulates a stream; it is stricter than plain iteration."""
    with client.chat.completions.stream(**fields(ask)) as events:
        answer = events.get_final_completion()
    note_answer(answer, seen)


def complete(client: openai.OpenAI, ask: Ask, seen: Seen) -> None:
    asked = {"model": ask["model"], "prompt": ask["prompt"]}
    if not ask.get("stream"):
        answer = client.completions.create(**asked)
        note_usage(answer, seen)
        seen.update(text=answer.choices[0].text, finish=answer.choices[0].finish_reason)
        return
    for chunk in client.completions.create(**asked, stream=True):
        note_usage(chunk, seen)
        for choice in chunk.choices:
            seen["text"] += choice.text
            seen["finish"] = choice.finish_reason or seen.get("finish")


def embed(client: openai.OpenAI, ask: Ask, seen: Seen) -> None:
    answer = client.embeddings.create(model=ask["model"], input=ask["inputs"])
    note_usage(answer, seen)
    seen["sizes"] = [len(row.embedding) for row in answer.data]
    seen["indexes"] = [row.index for row in answer.data]


def list_models(client: openai.OpenAI, ask: Ask, seen: Seen) -> None:
    seen["ids"] = [model.id for model in client.models.list()]


def note_answer(answer: Any, seen: Seen) -> None:
    choice = answer.choices[0]
    note_usage(answer, seen)
    seen.update(
        text=choice.message.content,
        reasoning=getattr(choice.message, "reasoning", None),
        finish=choice.finish_reason,
        calls=[
            call(part.function.name, part.function.arguments)
            for part in choice.message.tool_calls or []
        ],
    )


def note_usage(answer: Any, seen: Seen) -> None:
    seen["model"] = answer.model
    if answer.usage is not None:
        seen["usage"] = [
            answer.usage.prompt_tokens,
            getattr(answer.usage, "completion_tokens", 0),
            answer.usage.total_tokens,
        ]
        seen["cost"] = getattr(answer.usage, "cost", None)


answer_lines(act)
