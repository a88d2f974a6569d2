"""Look at a whole answer: is it all there, no refusal, of the shape that was asked for? Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from sophia.core.calls import Fields
from sophia.serving.json_schema import fit

_SHORT = 400
_MARKS = str.maketrans({"’": "'", "‘": "'", "*": "", "_": "", "#": "", ">": "", '"': ""})
# How refusals open. A known opening counts in a short answer only: long ones go on to help.
_SORRY = (
    r"(i'm |i am |we're )?(very |so |really )?sorry[,.]? (but )?(i|we|that) ?"
    r"('m not able|am not able|'m unable|am unable|can't|cannot|can not|won't)",
    r"(unfortunately, |as an ai[^,.]{0,40}, )?i (can't|cannot|can not|won't|'m unable to|"
    r"am unable to|am not able to) (\w+ ){0,2}"
    r"(help|assist|provide|comply|fulfil|answer|discuss|create|generate|share|engage|"
    r"support|do that|do this)",
    r"i'm (unable|not able) to (\w+ ){0,2}(help|assist|provide|comply|fulfil|answer|do)",
    r"(es )?tut mir (sehr )?leid[,.]? (aber )?(ich|das|dabei|da|hierbei|dazu) "
    r"(kann|darf)",
    r"(leider )?(kann ich|ich kann) (\w+ ){0,3}(nicht|keine) (\w+ ){0,2}(helfen|"
    r"beantworten|unterstützen|bereitstellen|weiterhelfen)",
    r"(je suis )?(vraiment )?désolée?[,.]? (mais )?je ne (peux|puis)",
    r"je ne (peux|puis) pas (vous |t')?(aider|répondre|fournir)",
    r"(lo siento|disculpa|perdón)[,.]? (pero )?no puedo",
    r"no puedo (ayudar|proporcionar|responder|cumplir)",
    r"mi dispiace[,.]? (ma )?non posso",
    r"non posso (aiutar|fornir|risponder)",
    r"(desculpe|sinto muito|lamento)[,.]? (mas )?(eu )?não posso",
    r"het spijt me[,.]? (maar )?(ik|dat) kan",
    r"przykro mi[,.]? (ale )?nie mogę",
    r"(извините|к сожалению|простите)[,.]? (но )?я не могу",
    r"(很|非常)?(抱歉|对不起)[,\uff0c\u3002]? ?(但)?我?(无法|不能|不可以)",
    r"申し訳(ありません|ございません|ない)",
    r"죄송(합니다|하지만|해요)",
)
_OPENINGS = re.compile("|".join(_SORRY))


class Demands(Struct, frozen=True):
    """What a request asked of the answer.

    `form` is `response_format.type`, "" for none; `tools` are the parameters' schemas by name;
    `must_call` is "" when no tool must be called, "*" for any, else the one that must be;
    `limited` says that the caller set the answer's greatest length.
    """

    form: str = ""
    schema: object = None
    tools: Mapping[str, object] = {}
    must_call: str = ""
    limited: bool = False


class ToolCall(Struct, frozen=True):
    """One call of a tool: its name and its arguments as the model wrote them."""

    name: str
    arguments: str


class Said(Struct, frozen=True):
    """One choice of a whole answer."""

    text: str = ""
    refusal: str = ""
    calls: tuple[ToolCall, ...] = ()
    media: bool = False
    finish: str = ""


class Verdict(Struct, frozen=True):
    """What one check found; `why` is empty when it passed. `unchecked` names what it passed over.

    `why` quotes names from the request's own schema, never the answer.
    """

    check: str
    why: str = ""
    unchecked: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.why


def demands(fields: Fields) -> Demands:
    """Return what the client's own fields ask of the answer; what cannot be read asks nothing."""
    form, schema = "", None
    asked = _object(fields, "response_format")
    if isinstance(asked.get("type"), str):
        form = asked["type"]
        inner = asked.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else None
    tools = {}
    for tool in (*_list(fields, "tools"), *_list(fields, "functions")):
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            tools[function["name"]] = function.get("parameters", True)
    limited = any(_read(fields.get(name)) for name in ("max_tokens", "max_completion_tokens"))
    return Demands(form, schema, tools, _must_call(_read(fields.get("tool_choice"))), limited)


def choices(chunks: Iterable[bytes]) -> tuple[Said, ...]:
    """Return what each choice says, from a whole answer or from all chunks of a stream."""
    told: dict[int, _Choice] = {}
    for chunk in chunks:
        body = msgspec.json.decode(chunk)
        for choice in _dicts(body.get("choices")):
            place = choice.get("index")
            told.setdefault(place if isinstance(place, int) else 0, _Choice()).add(choice)
    return tuple(told[number].said() for number in sorted(told))


def examine(said: Sequence[Said], asked: Demands, *, clamped: bool = False) -> tuple[Verdict, ...]:
    """Return the verdicts on all choices, the worst of each check; those that apply, only.

    Args:
        said: the choices of the answer.
        asked: what the request wants.
        clamped: whether Sophia's purse limited the answer's length.
    """
    found: dict[str, Verdict] = {}
    for one in said or (Said(),):
        for verdict in _verdicts(one, asked, clamped):
            before = found.get(verdict.check)
            if before is None or before.passed:
                found[verdict.check] = verdict
    return tuple(found.values())


def parse(said: Iterable[Said]) -> bool:
    """Say whether the arguments of all calls of tools are JSON objects."""
    calls = (call for one in said for call in one.calls)
    return all(isinstance(_parsed(call.arguments or "{}"), dict) for call in calls)


def is_refusal(text: str) -> bool:
    """Say whether a short text opens as refusals do, in one of a dozen languages."""
    if len(text) > _SHORT:
        return False
    plain = " ".join(text.translate(_MARKS).split()).casefold()
    return _OPENINGS.match(plain) is not None


def _verdicts(said: Said, asked: Demands, clamped: bool) -> Iterator[Verdict]:
    nothing = not (said.text.strip() or said.refusal or said.calls or said.media)
    yield Verdict("empty", "the answer is empty" if nothing else "")
    # A caller who set the length asked for an answer that ends there.
    cut = said.finish == "length" and (clamped or not asked.limited)
    yield Verdict("truncation", "the answer is cut off" if cut else "")
    refused = bool(said.refusal) or said.finish == "content_filter"
    refused = refused or (not said.calls and is_refusal(said.text))
    yield Verdict("refusal", "the answer is a refusal" if refused else "")
    if asked.form in ("json_object", "json_schema") and not said.calls:
        yield _shaped(said.text, asked)
    if said.calls or asked.must_call:
        yield _called(said.calls, asked)


def _shaped(text: str, asked: Demands) -> Verdict:
    value = _parsed(text)
    if value is _NOT_JSON:
        return Verdict("schema", "the answer is not JSON")
    if asked.form == "json_object" or asked.schema is None:
        wrong = asked.form == "json_object" and not isinstance(value, dict)
        return Verdict("schema", "the answer is not a JSON object" if wrong else "")
    found = fit(value, asked.schema)
    why = f"the answer does not fit the schema: {found.problem}" if found.problem else ""
    return Verdict("schema", why, found.unchecked)


def _called(calls: Sequence[ToolCall], asked: Demands) -> Verdict:
    unchecked: set[str] = set()
    if not calls:
        return Verdict("tool_call", "the answer calls no tool")
    if asked.must_call not in ("", "*") and all(call.name != asked.must_call for call in calls):
        return Verdict("tool_call", "the answer does not call the tool that was asked for")
    for call in calls:
        if call.name not in asked.tools:
            return Verdict("tool_call", "the answer calls a tool that was not declared")
        arguments = _parsed(call.arguments or "{}")
        if not isinstance(arguments, dict):
            return Verdict("tool_call", f"the arguments of `{call.name}` are no JSON object")
        found = fit(arguments, asked.tools[call.name])
        unchecked.update(found.unchecked)
        if found.problem:
            return Verdict(
                "tool_call", f"the arguments of `{call.name}` do not fit: {found.problem}"
            )
    return Verdict("tool_call", "", tuple(sorted(unchecked)))


class _Choice:
    """One choice as it is put together."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._media = False
        self._finish = ""

    def add(self, choice: dict[str, Any]) -> None:
        """Take up what a whole choice or a part of it says."""
        self._finish = choice.get("finish_reason") or self._finish
        part = choice.get("message") or choice.get("delta")
        if not isinstance(part, dict):
            part = {"content": choice.get("text")}
        self._text.append(_text_of(part.get("content")))
        self._refusal.append(_text_of(part.get("refusal")))
        self._media = self._media or bool(part.get("images") or part.get("audio"))
        calls = _dicts(part.get("tool_calls"))
        if isinstance(part.get("function_call"), dict):
            calls = [{"index": 0, "function": part["function_call"]}]
        for number, call in enumerate(calls):
            self._add_call(call, number)

    def _add_call(self, call: dict[str, Any], number: int) -> None:
        function, place = call.get("function"), call.get("index")
        if not isinstance(function, dict):
            # A call of another kind than functions cannot be compared, but it is an answer.
            self._media = True
            return
        kept = self._calls.setdefault(place if isinstance(place, int) else number, ["", ""])
        kept[0] += _text_of(function.get("name"))
        kept[1] += _text_of(function.get("arguments"))

    def said(self) -> Said:
        """Return the choice, put together."""
        calls = tuple(ToolCall(name, arguments) for name, arguments in self._calls.values())
        return Said("".join(self._text), "".join(self._refusal), calls, self._media, self._finish)


_NOT_JSON = object()


def _parsed(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return _NOT_JSON


def _dicts(values: object) -> list[dict[str, Any]]:
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


def _text_of(content: object) -> str:
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _must_call(choice: object) -> str:
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        return name if isinstance(name, str) else "*"
    return "*" if choice == "required" else ""


def _object(fields: Fields, name: str) -> dict[str, Any]:
    value = _read(fields.get(name))
    return value if isinstance(value, dict) else {}


def _list(fields: Fields, name: str) -> list[Any]:
    value = _read(fields.get(name))
    return value if isinstance(value, list) else []


def _read(value: object) -> object:
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value
