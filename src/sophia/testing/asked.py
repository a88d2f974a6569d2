"""What a request asks for, read as OpenRouter reads it: only what the sandbox needs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

import msgspec

from sophia.testing.listing import Listed
from sophia.testing.refusal import Refusal

Table = Mapping[str, object]
EFFORTS: Mapping[str, int] = {"none": 0, "minimal": 8, "low": 16, "medium": 32, "high": 64}
IMAGE_TOKENS = 85
MESSAGE_TOKENS = 4
MAX_CHOICES = 128


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is its JSON schema."""

    name: str
    parameters: object


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for text. Token counts are the sandbox's own; prices are USD per million tokens.

    `prompt` is the last thing the user said. `calls` are the tools that the answer must call.
    `schema` is None for plain text. `thinking` is the most pieces of reasoning, 0 for none.
    """

    models: tuple[str, ...]
    messages: tuple[Table, ...]
    prompt: str
    prompt_tokens: int
    stream: bool
    n: int
    max_tokens: int | None
    calls: tuple[Tool, ...]
    schema: object | None
    thinking: int
    show_thinking: bool
    top_logprobs: int | None
    temperature: float | None
    max_prompt_price: Decimal | None
    max_completion_price: Decimal | None
    legacy: bool = False

    def check(self, model: Listed) -> None:
        """Say whether `model` has an endpoint that takes this request.

        Raises:
            Refusal: too long for its context (400), or dearer than `provider.max_price` (404).
        """
        rates = model.rates[0]
        asked = (
            (self.max_prompt_price, rates.prompt),
            (self.max_completion_price, rates.completion),
        )
        if any(limit is not None and price * 1_000_000 > limit for limit, price in asked):
            message = f"No endpoints found for {model.id} that match your max_price."
            raise Refusal(404, "not_found", message)
        needed = self.prompt_tokens + (self.max_tokens or 0)
        if needed > model.context_length:
            raise Refusal(
                400,
                "context_length_exceeded",
                f"This endpoint's maximum context length is {model.context_length} tokens. "
                f"However, you requested about {needed} tokens ({self.prompt_tokens} of text "
                f"input, {self.max_tokens or 0} in the output). Please reduce either one.",
            )


def read_body(data: bytes) -> Table:
    """Decode a request body.

    Raises:
        Refusal: it is not a JSON object (400).
    """
    try:
        body = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise _bad(f"Invalid JSON in the request body: {error}") from None
    if not isinstance(body, dict):
        raise _bad("The request body must be a JSON object")
    return body


def read_chat(body: Table) -> Asked:
    """Read the body of a chat completion.

    Raises:
        Refusal: a field is missing or wrong (400).
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _bad("messages: expected a non-empty array")
    if not all(isinstance(message, dict) and message.get("role") for message in messages):
        raise _bad("messages: each needs a role")
    prompt = next((text_of(m) for m in reversed(messages) if m["role"] == "user"), "")
    tokens = 3 + sum(MESSAGE_TOKENS + _tokens(message) for message in messages)
    tools = _tools(body.get("tools"))
    tokens += sum(len(msgspec.json.encode(tool.parameters)) // 4 + 8 for tool in tools)
    answered = messages[-1]["role"] == "tool"
    calls = _calls(tools, body.get("tool_choice"), "" if answered else prompt)
    return _asked(body, tuple(messages), prompt, tokens, calls)


def read_legacy(body: Table) -> Asked:
    """Read the body of a text completion.

    Raises:
        Refusal: a field is missing or wrong (400).
    """
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt:
        raise _bad("prompt: expected a non-empty string")
    message = {"role": "user", "content": prompt}
    return replace(_asked(body, (message,), prompt, _tokens(message), ()), legacy=True)


def _asked(
    body: Table,
    messages: tuple[Table, ...],
    prompt: str,
    tokens: int,
    calls: tuple[Tool, ...],
) -> Asked:
    limits = _table(_table(body.get("provider")).get("max_price"))
    logprobs = bool(body.get("logprobs"))
    return Asked(
        models=_models(body),
        messages=messages,
        prompt=prompt,
        prompt_tokens=tokens,
        stream=body.get("stream") is True,
        n=_choices(body),
        max_tokens=_count(body, "max_completion_tokens") or _count(body, "max_tokens"),
        calls=calls,
        schema=_schema(body.get("response_format")),
        thinking=_thinking(body),
        show_thinking=_table(body.get("reasoning")).get("exclude") is not True,
        top_logprobs=(_count(body, "top_logprobs", 0) or 0) if logprobs else None,
        temperature=_number(body.get("temperature")),
        max_prompt_price=_price(limits.get("prompt")),
        max_completion_price=_price(limits.get("completion")),
    )


def _models(body: Table) -> tuple[str, ...]:
    named = [body.get("model"), *_list(body.get("models"))]
    models = tuple(dict.fromkeys(name for name in named if isinstance(name, str) and name))
    if not models:
        raise _bad("No models provided")
    return models


def _tools(value: object) -> tuple[Tool, ...]:
    functions = [_table(_table(tool).get("function")) for tool in _list(value)]
    return tuple(Tool(str(f["name"]), f.get("parameters")) for f in functions if f.get("name"))


def _calls(tools: tuple[Tool, ...], choice: object, prompt: str) -> tuple[Tool, ...]:
    if choice == "none":
        return ()
    if name := _table(_table(choice).get("function")).get("name"):
        return tuple(tool for tool in tools if tool.name == name)
    asked = prompt.lower()
    named = tuple(
        t for t in tools if t.name.lower() in asked or t.name.lower().replace("_", " ") in asked
    )
    return named or (tools[:1] if choice == "required" else ())


def _schema(response_format: object) -> object | None:
    wanted = _table(response_format)
    match wanted.get("type"):
        case "json_schema":
            return _table(wanted.get("json_schema")).get("schema") or {}
        case "json_object":
            return {"type": "object", "properties": {"answer": {"type": "string"}}}
        case _:
            return None


def _thinking(body: Table) -> int:
    wanted = _table(body.get("reasoning"))
    effort = wanted.get("effort") or body.get("reasoning_effort")
    if wanted.get("enabled") is False:
        return 0
    if isinstance(budget := wanted.get("max_tokens"), int):
        return max(budget, 0)
    if effort:
        return EFFORTS.get(str(effort), EFFORTS["high"])
    return EFFORTS["medium"] if wanted or body.get("include_reasoning") else 0


def text_of(message: Table) -> str:
    """Return the text of a message, with its parts on lines of their own."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(str(part["text"]) for part in map(_table, _list(content)) if "text" in part)


def _tokens(message: Table) -> int:
    images = sum(1 for part in _list(message.get("content")) if "text" not in _table(part))
    calls = message.get("tool_calls")
    called = len(msgspec.json.encode(calls)) // 4 if calls else 0
    return -(-len(text_of(message).encode()) // 4) + IMAGE_TOKENS * images + called


def _count(body: Table, name: str, least: int = 1) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _bad(f"{name}: expected a whole number of at least {least}")
    return value


def _choices(body: Table) -> int:
    n = _count(body, "n") or 1
    if n > MAX_CHOICES:
        raise _bad(f"n: expected at most {MAX_CHOICES}")
    return n


def _price(value: object) -> Decimal | None:
    try:
        return None if value is None else Decimal(str(value))
    except InvalidOperation:
        raise _bad("provider.max_price: expected US dollars per million tokens") from None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _table(value: object) -> Table:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _bad(message: str) -> Refusal:
    return Refusal(400, "invalid_request", message)
