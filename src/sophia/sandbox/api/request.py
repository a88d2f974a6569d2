"""The parts of a completion request that the sandbox answers to, read as OpenRouter reads them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

import msgspec

from sophia.sandbox.api.described_json import find_described_object
from sophia.sandbox.api.errors import SandboxError
from sophia.sandbox.api.listing import ListedModel
from sophia.sandbox.api.shapes import as_list, as_mapping, count_text_tokens

JsonMapping = Mapping[str, object]
EFFORT_TOKENS: Mapping[str, int] = {"none": 0, "minimal": 8, "low": 16, "medium": 32, "high": 64}
IMAGE_TOKENS = 85
MESSAGE_TOKENS = 4
MAX_CHOICES = 128
TOOL_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+|\d+")
# Words of tools' names that a prompt may use without meaning the tool.
COMMON_TOOL_WORDS = frozenset(
    {"call", "create", "current", "data", "delete", "fetch", "file", "find", "from", "list", "make"}
    | {"read", "search", "send", "show", "text", "tool", "update", "with", "write"}
)


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A function that the model may call; `parameters` is its JSON schema."""

    name: str
    parameters: object


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRequest:
    """One request for text; token counts are the sandbox's own.

    `max_prices` of prompt and completion are in US dollars per million tokens.
    `prompt` is the last user message. `tools_to_call` are the tools that the answer must call.
    `schema` is None for plain text. `max_reasoning_tokens` is 0 for no reasoning.
    """

    models: tuple[str, ...]
    messages: tuple[JsonMapping, ...]
    prompt: str
    prompt_tokens: int
    stream: bool
    n: int
    max_tokens: int | None
    tools_to_call: tuple[FunctionTool, ...]
    schema: object | None
    max_reasoning_tokens: int
    show_reasoning: bool
    top_logprobs: int | None
    temperature: float | None
    max_prices: tuple[Decimal | None, Decimal | None]
    legacy: bool = False

    def check(self, model: ListedModel) -> None:
        """Check the limits of `model`.

        Raises SandboxError: above `provider.max_price` (404), or too long for its context (400).
        """
        rates = model.rates[0]
        limits = zip(self.max_prices, (rates.prompt, rates.completion), strict=True)
        if any(limit is not None and price * 1_000_000 > limit for limit, price in limits):
            raise SandboxError(404, f"No endpoints found for {model.id} that match your max_price.")
        needed = self.prompt_tokens + (self.max_tokens or 0)
        if needed > model.context_length:
            raise SandboxError(
                400,
                f"This endpoint's maximum context length is {model.context_length} tokens. "
                f"However, you requested about {needed} tokens ({self.prompt_tokens} of text "
                f"input, {self.max_tokens or 0} in the output). Please reduce either one.",
                error_type="context_length_exceeded",
            )


def parse_body(data: bytes) -> JsonMapping:
    """Decode a request body. Raises SandboxError (400) if it is not a JSON object."""
    try:
        body = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise SandboxError(400, f"Invalid JSON in the request body: {error}") from None
    if not isinstance(body, dict):
        raise SandboxError(400, "The request body must be a JSON object")
    return body


def parse_chat(body: JsonMapping) -> SandboxRequest:
    """Read the body of a chat completion. Raises SandboxError (400)."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise SandboxError(400, "messages: expected a non-empty array")
    if not all(isinstance(message, dict) and message.get("role") for message in messages):
        raise SandboxError(400, "messages: each needs a role")
    prompt = next((message_text(m) for m in reversed(messages) if m["role"] == "user"), "")
    tokens = 3 + sum(MESSAGE_TOKENS + _count_tokens(message) for message in messages)
    tools = _parse_tools(body.get("tools"))
    tokens += sum(len(msgspec.json.encode(tool.parameters)) // 4 + 8 for tool in tools)
    is_tool_result = messages[-1]["role"] == "tool"
    calls = _select_calls(tools, body.get("tool_choice"), "" if is_tool_result else prompt)
    return _build_request(body, tuple(messages), prompt, tokens, calls)


def parse_completion(body: JsonMapping) -> SandboxRequest:
    """Read the body of a text completion. Raises SandboxError (400)."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt:
        raise SandboxError(400, "prompt: expected a non-empty string")
    message = {"role": "user", "content": prompt}
    request = _build_request(body, (message,), prompt, _count_tokens(message), ())
    return replace(request, legacy=True)


def _build_request(
    body: JsonMapping,
    messages: tuple[JsonMapping, ...],
    prompt: str,
    tokens: int,
    calls: tuple[FunctionTool, ...],
) -> SandboxRequest:
    names = [body.get("model"), *as_list(body.get("models"))]
    models = tuple(dict.fromkeys(name for name in names if isinstance(name, str) and name))
    if not models:
        raise SandboxError(400, "No models provided")
    n = _parse_count(body, "n") or 1
    if n > MAX_CHOICES:
        raise SandboxError(400, f"n: expected at most {MAX_CHOICES}")
    limits = as_mapping(as_mapping(body.get("provider")).get("max_price"))
    temperature = body.get("temperature")
    return SandboxRequest(
        models=models,
        messages=messages,
        prompt=prompt,
        prompt_tokens=tokens,
        stream=body.get("stream") is True,
        n=n,
        max_tokens=_parse_count(body, "max_completion_tokens") or _parse_count(body, "max_tokens"),
        tools_to_call=calls,
        schema=_parse_schema(body.get("response_format"), messages),
        max_reasoning_tokens=_parse_reasoning(body),
        show_reasoning=as_mapping(body.get("reasoning")).get("exclude") is not True,
        top_logprobs=_parse_count(body, "top_logprobs", 0) or 0 if body.get("logprobs") else None,
        temperature=float(temperature) if isinstance(temperature, (int, float)) else None,
        max_prices=(_parse_price(limits.get("prompt")), _parse_price(limits.get("completion"))),
    )


def _parse_tools(value: object) -> tuple[FunctionTool, ...]:
    functions = [as_mapping(as_mapping(tool).get("function")) for tool in as_list(value)]
    return tuple(
        FunctionTool(str(f["name"]), f.get("parameters")) for f in functions if f.get("name")
    )


def _select_calls(
    tools: tuple[FunctionTool, ...], choice: object, prompt: str
) -> tuple[FunctionTool, ...]:
    """Return the tool that `choice` names, else those with a telling word in the prompt."""
    if choice == "none":
        return ()
    if name := as_mapping(as_mapping(choice).get("function")).get("name"):
        return tuple(tool for tool in tools if tool.name == name)
    prompt_words = _split_words(prompt)
    mentioned = tuple(
        tool
        for tool in tools
        if (words := _split_words(tool.name))
        and (
            words <= prompt_words
            or any(len(word) > 3 for word in (words - COMMON_TOOL_WORDS) & prompt_words)
        )
    )
    return mentioned or (tools[:1] if choice == "required" else ())


def _split_words(text: str) -> set[str]:
    """Return the words of a text or of a name such as `get_weather` or `getWeather`."""
    return {word.lower() for word in TOOL_WORD.findall(text)}


def _parse_schema(response_format: object, messages: Sequence[JsonMapping]) -> object | None:
    fields = as_mapping(response_format)
    match fields.get("type"):
        case "json_schema":
            return as_mapping(fields.get("json_schema")).get("schema") or {}
        case "json_object":
            found = (find_described_object(message_text(m)) for m in reversed(messages))
            anything: object = {"type": "object", "properties": {"answer": {"type": "string"}}}
            return next((schema for schema in found if schema is not None), anything)
        case _:
            # A system prompt that describes an object, as a judge's does, asks for it.
            instruction = message_text(messages[0]) if messages[0]["role"] == "system" else ""
            return find_described_object(instruction) if "JSON" in instruction else None


def _parse_reasoning(body: JsonMapping) -> int:
    reasoning = as_mapping(body.get("reasoning"))
    effort = reasoning.get("effort") or body.get("reasoning_effort")
    if reasoning.get("enabled") is False:
        return 0
    if isinstance(budget := reasoning.get("max_tokens"), int):
        return max(budget, 0)
    if effort:
        return EFFORT_TOKENS.get(str(effort), EFFORT_TOKENS["high"])
    return EFFORT_TOKENS["medium"] if reasoning or body.get("include_reasoning") else 0


def message_text(message: JsonMapping) -> str:
    """Return the text of a message, with each of its parts on a line of its own."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(
        str(part["text"]) for part in map(as_mapping, as_list(content)) if "text" in part
    )


def _count_tokens(message: JsonMapping) -> int:
    images = sum(1 for part in as_list(message.get("content")) if "text" not in as_mapping(part))
    calls = message.get("tool_calls")
    call_tokens = len(msgspec.json.encode(calls)) // 4 if calls else 0
    return count_text_tokens(message_text(message)) + IMAGE_TOKENS * images + call_tokens


def _parse_count(body: JsonMapping, name: str, least: int = 1) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SandboxError(400, f"{name}: expected a whole number of at least {least}")
    return value


def _parse_price(value: object) -> Decimal | None:
    try:
        return None if value is None else Decimal(str(value))
    except InvalidOperation:
        raise SandboxError(
            400, "provider.max_price: expected US dollars per million tokens"
        ) from None
