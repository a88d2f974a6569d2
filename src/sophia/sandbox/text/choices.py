"""The content of one choice, before it is sent as an answer or a stream."""

from dataclasses import dataclass, replace

import msgspec

from sophia.sandbox.api.listing import ListedModel
from sophia.sandbox.api.request import SandboxRequest
from sophia.sandbox.script import ScriptStep
from sophia.sandbox.text.json_sample import sample_json
from sophia.sandbox.text.local_model import StreamingText
from sophia.sandbox.text.template import (
    build_reasoning_text,
    build_template_text,
    extract_name,
    extract_topic,
    split_tokens,
)

MAX_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class GeneratedToolCall:
    """A call of the function `name`; `arguments` are the tokens of its JSON."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedChoice:
    """One choice, as tokens. `streaming_text` of the local model replaces `text`."""

    reasoning: tuple[str, ...]
    text: tuple[str, ...] = ()
    tool_calls: tuple[GeneratedToolCall, ...] = ()
    finish_reason: str
    streaming_text: StreamingText | None = None

    @property
    def tokens(self) -> int:
        """The number of tokens, without the streaming text."""
        call_tokens = sum(1 + len(call.arguments) for call in self.tool_calls)
        return len(self.reasoning) + len(self.text) + call_tokens


def generate_choice(
    request: SandboxRequest, model: ListedModel, step: ScriptStep, index: int
) -> GeneratedChoice:
    """Return choice `index` of the answer of `model`, cut at its token limit."""
    limit = min(request.max_tokens or MAX_TOKENS, model.max_output_tokens or MAX_TOKENS)
    reasoning = _reasoning_tokens(request, model, step)
    room = max(limit - len(reasoning), 0)
    if calls := _tool_calls(request, step):
        choice = GeneratedChoice(reasoning=reasoning, tool_calls=calls, finish_reason="tool_calls")
        return choice if choice.tokens <= limit else _truncate_calls(choice, limit, room)
    if step.text is not None:
        answer = step.text
    elif request.schema is not None:
        answer = _sample(request.schema, extract_topic(request.prompt))
    else:
        answer = build_template_text(model.id, request.prompt, index)
    text = split_tokens(answer)
    is_cut = len(text) > room or len(reasoning) > limit
    return GeneratedChoice(
        reasoning=reasoning[:limit], text=text[:room], finish_reason="length" if is_cut else "stop"
    )


def _reasoning_tokens(
    request: SandboxRequest, model: ListedModel, step: ScriptStep
) -> tuple[str, ...]:
    if step.reasoning is not None:
        return split_tokens(step.reasoning)
    if request.max_reasoning_tokens and "reasoning" in model.supported_parameters:
        return split_tokens(build_reasoning_text(request.prompt))[: request.max_reasoning_tokens]
    return ()


def _tool_calls(request: SandboxRequest, step: ScriptStep) -> tuple[GeneratedToolCall, ...]:
    if step.text is not None:
        return ()
    calls = []
    for tool in request.tools_to_call:
        schema = tool.parameters or {"type": "object"}
        arguments = step.tool_arguments or _sample(schema, extract_name(request.prompt))
        calls.append(GeneratedToolCall(tool.name, split_tokens(arguments)))
    return tuple(calls)


def _sample(schema: object, text: str) -> str:
    value = sample_json(schema, text.strip("“”"))
    return msgspec.json.encode(value).decode()


def _truncate_calls(choice: GeneratedChoice, limit: int, room: int) -> GeneratedChoice:
    calls: list[GeneratedToolCall] = []
    for call in choice.tool_calls:
        if room > 0:
            calls.append(replace(call, arguments=call.arguments[: room - 1]))
            room -= 1 + len(call.arguments)
    return GeneratedChoice(
        reasoning=choice.reasoning[:limit], tool_calls=tuple(calls), finish_reason="length"
    )
