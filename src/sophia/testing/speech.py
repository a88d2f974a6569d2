"""What a model says to one request, before it is cut into an answer or a stream."""

from dataclasses import dataclass, replace

import msgspec

from sophia.testing.asked import Asked
from sophia.testing.listing import Listed
from sophia.testing.local import Live
from sophia.testing.sample import sample
from sophia.testing.script import Step
from sophia.testing.text import pieces, template_text, thought_text, topic_of

CALL_PREFIX = "call_sandbox"
MAX_PIECES = 4096


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of the function `name`; `arguments` are the pieces of its JSON."""

    id: str
    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Speech:
    """One choice. Each piece of reasoning, text and arguments counts as one token.

    `live`, when set, stands in place of `text`, while a real model generates it.
    """

    reasoning: tuple[str, ...]
    text: tuple[str, ...]
    calls: tuple[ToolCall, ...]
    finish_reason: str
    live: Live | None = None

    @property
    def tokens(self) -> int:
        """How many tokens this is in all, without what is live."""
        called = sum(1 + len(call.arguments) for call in self.calls)
        return len(self.reasoning) + len(self.text) + called


def compose(asked: Asked, model: Listed, step: Step, turn: int = 0) -> Speech:
    """Return choice `turn` of what `model` says to `asked`, cut at its token limit."""
    limit = min(asked.max_tokens or MAX_PIECES, model.max_output or MAX_PIECES)
    thoughts = _thoughts(asked, model, step)
    if calls := _calls(asked, step):
        whole = Speech(thoughts, (), calls, "tool_calls")
        return whole if whole.tokens <= limit else _cut_calls(whole, limit)
    said = pieces(_said(asked, model, step, turn))
    room = max(limit - len(thoughts), 0)
    finish = "length" if len(said) > room or len(thoughts) > limit else "stop"
    return Speech(thoughts[:limit], said[:room], (), finish)


def _said(asked: Asked, model: Listed, step: Step, turn: int) -> str:
    if step.text is not None:
        return step.text
    if asked.schema is not None:
        value = sample(asked.schema, _bare_topic(asked))
        return msgspec.json.encode(value).decode()
    return template_text(model.id, asked.prompt, turn)


def _thoughts(asked: Asked, model: Listed, step: Step) -> tuple[str, ...]:
    if step.reasoning is not None:
        return pieces(step.reasoning)
    if asked.thinking and "reasoning" in model.parameters:
        return pieces(thought_text(asked.prompt))[: asked.thinking]
    return ()


def _calls(asked: Asked, step: Step) -> tuple[ToolCall, ...]:
    if step.text is not None:
        return ()
    calls = []
    for number, tool in enumerate(asked.calls):
        value = sample(tool.parameters or {"type": "object"}, _bare_topic(asked))
        arguments = step.tool_arguments or msgspec.json.encode(value).decode()
        calls.append(ToolCall(f"{CALL_PREFIX}_{number}", tool.name, pieces(arguments)))
    return tuple(calls)


def _bare_topic(asked: Asked) -> str:
    return topic_of(asked.prompt).strip("“”")


def _cut_calls(speech: Speech, limit: int) -> Speech:
    thoughts = speech.reasoning[:limit]
    room = limit - len(thoughts)
    calls: list[ToolCall] = []
    for call in speech.calls:
        if room > 0:
            calls.append(replace(call, arguments=call.arguments[: room - 1]))
            room -= 1 + len(call.arguments)
    return Speech(thoughts, (), tuple(calls), "length")
