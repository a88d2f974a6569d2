"""Complete answers as text and tool calls, folded from their chunks."""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

NOT_JSON = object()


class ToolCall(Struct, frozen=True):
    """One tool call, with its arguments as the model wrote them."""

    name: str
    arguments: str


class AnswerChoice(Struct, frozen=True, kw_only=True):
    """One choice of a complete answer."""

    text: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    media: bool = False
    finish_reason: str = ""


def parse_choices(chunks: Iterable[bytes]) -> tuple[AnswerChoice, ...]:
    """Return the choices of a complete answer, or of all chunks of a stream."""
    builders: dict[int, _ChoiceBuilder] = {}
    for chunk in chunks:
        body = msgspec.json.decode(chunk)
        for choice in _filter_dicts(body.get("choices")):
            index = choice.get("index")
            builder = builders.setdefault(index if isinstance(index, int) else 0, _ChoiceBuilder())
            builder.add(choice)
    return tuple(builders[index].build() for index in sorted(builders))


def parse_json(text: str) -> object:
    """Return the value of a JSON text, `NOT_JSON` for another text."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return NOT_JSON


class _ChoiceBuilder:
    """One choice under construction."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._media = False
        self._finish = ""

    def add(self, choice: dict[str, Any]) -> None:
        """Add a complete choice or a delta of it."""
        self._finish = choice.get("finish_reason") or self._finish
        part = choice.get("message") or choice.get("delta")
        if not isinstance(part, dict):
            part = {"content": choice.get("text")}
        self._text.append(_extract_text(part.get("content")))
        self._refusal.append(_extract_text(part.get("refusal")))
        self._media = self._media or bool(part.get("images") or part.get("audio"))
        calls = _filter_dicts(part.get("tool_calls"))
        if isinstance(part.get("function_call"), dict):
            calls = [{"index": 0, "function": part["function_call"]}]
        for number, call in enumerate(calls):
            function, place = call.get("function"), call.get("index")
            if not isinstance(function, dict):
                # A call of another kind than functions cannot be compared, but it is an answer.
                self._media = True
                continue
            kept = self._calls.setdefault(place if isinstance(place, int) else number, ["", ""])
            kept[0] += _extract_text(function.get("name"))
            kept[1] += _extract_text(function.get("arguments"))

    def build(self) -> AnswerChoice:
        """Return the complete choice."""
        calls = tuple(ToolCall(name, arguments) for name, arguments in self._calls.values())
        return AnswerChoice(
            text="".join(self._text),
            refusal="".join(self._refusal),
            tool_calls=calls,
            media=self._media,
            finish_reason=self._finish,
        )


def _filter_dicts(values: object) -> list[dict[str, Any]]:
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


def _extract_text(content: object) -> str:
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
