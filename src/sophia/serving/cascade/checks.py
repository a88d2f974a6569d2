"""Checks of a complete answer: not empty, not cut off, no refusal, of the requested shape. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from sophia.core.calls import Fields
from sophia.serving.attempts.choices import NOT_JSON, AnswerChoice, ToolCall, parse_json
from sophia.serving.cascade.json_schema import check_json_schema
from sophia.serving.request import read_request_field

_MAX_REFUSAL_CHARS = 400
_PUNCTUATION = str.maketrans({"’": "'", "‘": "'", "*": "", "_": "", "#": "", ">": "", '"': ""})
# Openings of refusals. They count in short answers only: long ones go on to help.
_REFUSAL_PATTERNS = (
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
_REFUSAL_OPENING = re.compile("|".join(_REFUSAL_PATTERNS))


class AnswerRequirements(Struct, frozen=True, kw_only=True):
    """Requirements of a request on its answer.

    Attributes:
        response_format: `response_format.type`, "" for none.
        tools: schemas of the parameters, by tool.
        required_tool: "" for none, "*" for any, else the tool that must be called.
        max_tokens_set: whether the caller limited the length.
    """

    response_format: str = ""
    schema: object = None
    tools: Mapping[str, object] = {}
    required_tool: str = ""
    max_tokens_set: bool = False


class CheckResult(Struct, frozen=True):
    """Result of one check; `problem` is empty when it passed, and never quotes the answer."""

    check: str
    problem: str

    @property
    def passed(self) -> bool:
        """Whether the check found no problem."""
        return not self.problem


def parse_requirements(fields: Fields) -> AnswerRequirements:
    """Return the requirements in the client's own fields; an unreadable field requires nothing."""
    form, schema = "", None
    response_format = read_request_field(fields, "response_format")
    if isinstance(response_format, dict) and isinstance(response_format.get("type"), str):
        form = response_format["type"]
        inner = response_format.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else None
    tools = {}
    for name in ("tools", "functions"):
        listed = read_request_field(fields, name)
        for tool in listed if isinstance(listed, list) else ():
            function = tool.get("function", tool) if isinstance(tool, dict) else None
            if isinstance(function, dict) and isinstance(function.get("name"), str):
                tools[function["name"]] = function.get("parameters", True)
    limited = any(
        read_request_field(fields, name) for name in ("max_tokens", "max_completion_tokens")
    )
    return AnswerRequirements(
        response_format=form,
        schema=schema,
        tools=tools,
        required_tool=_parse_tool_choice(read_request_field(fields, "tool_choice")),
        max_tokens_set=limited,
    )


def check_answer(
    choices: Sequence[AnswerChoice], requirements: AnswerRequirements, *, clamped: bool = False
) -> tuple[CheckResult, ...]:
    """Return the results on all choices, the worst of each check that applies.

    `clamped`: a budget limited the answer's length.
    """
    found: dict[str, CheckResult] = {}
    for choice in choices or (AnswerChoice(),):
        for result in _run_checks(choice, requirements, clamped):
            if result.check not in found or found[result.check].passed:
                found[result.check] = result
    return tuple(found.values())


def is_refusal(text: str) -> bool:
    """Return whether a short text opens like a refusal, in one of a dozen languages."""
    if len(text) > _MAX_REFUSAL_CHARS:
        return False
    plain = " ".join(text.translate(_PUNCTUATION).split()).casefold()
    return _REFUSAL_OPENING.match(plain) is not None


def _run_checks(
    choice: AnswerChoice, requirements: AnswerRequirements, clamped: bool
) -> Iterator[CheckResult]:
    nothing = not (choice.text.strip() or choice.refusal or choice.tool_calls or choice.media)
    yield CheckResult("empty", "the answer is empty" if nothing else "")
    # A caller who set the length asked for an answer that ends there.
    cut = choice.finish_reason == "length" and (clamped or not requirements.max_tokens_set)
    yield CheckResult("truncation", "the answer is cut off" if cut else "")
    refused = bool(choice.refusal) or choice.finish_reason == "content_filter"
    refused = refused or (not choice.tool_calls and is_refusal(choice.text))
    yield CheckResult("refusal", "the answer is a refusal" if refused else "")
    if requirements.response_format in ("json_object", "json_schema") and not choice.tool_calls:
        yield CheckResult("schema", _find_format_problem(choice.text, requirements))
    if choice.tool_calls or requirements.required_tool:
        yield CheckResult("tool_call", _find_tool_problem(choice.tool_calls, requirements))


def _find_format_problem(text: str, requirements: AnswerRequirements) -> str:
    value = parse_json(text)
    if value is NOT_JSON:
        return "the answer is not JSON"
    if requirements.response_format == "json_object":
        return "" if isinstance(value, dict) else "the answer is not a JSON object"
    problem = None if requirements.schema is None else check_json_schema(value, requirements.schema)
    return f"the answer does not fit the schema: {problem}" if problem else ""


def _find_tool_problem(calls: Sequence[ToolCall], requirements: AnswerRequirements) -> str:
    if not calls:
        return "the answer calls no tool"
    if requirements.required_tool not in ("", "*", *(call.name for call in calls)):
        return "the answer does not call the tool that was asked for"
    for call in calls:
        if call.name not in requirements.tools:
            return "the answer calls a tool that was not declared"
        arguments = parse_json(call.arguments or "{}")
        if not isinstance(arguments, dict):
            return f"the arguments of `{call.name}` are no JSON object"
        problem = check_json_schema(arguments, requirements.tools[call.name])
        if problem:
            return f"the arguments of `{call.name}` do not fit: {problem}"
    return ""


def _parse_tool_choice(choice: object) -> str:
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        return name if isinstance(name, str) else "*"
    return "*" if choice == "required" else ""
