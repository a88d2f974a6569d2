"""Content and usage of upstreams, in OpenRouter's shape, which every client reads."""

from math import ceil, isfinite

from sophia.adapters.upstreams.json_text import JsonObject, coerce_object, encode_repaired
from sophia.core.calls import ChunkBatch, Usage
from sophia.core.failures import FailureKind, UpstreamFailure

_REASONING_TYPES = frozenset(
    {"reasoning.text", "reasoning.summary", "reasoning.encrypted", "reasoning.server_tool_call"}
)
_TEXT_FIELDS = frozenset(
    {"content", "reasoning", "reasoning_content", "refusal", "tool_calls", "function_call"}
)
_CONTENT_FIELDS = _TEXT_FIELDS | {"images", "audio", "reasoning_details"}
_PART_FIELDS = frozenset(
    {"text", "thinking", "content", "function", "arguments", "custom", "input"}
)
"""Fields of parts and of tool calls that hold generated text, or parts of it."""
_MAX_EXTRA_CHOICES = 8
_MAX_MEASURED = 200


def check_choice_count(count: int, requested: int) -> None:
    """Raise UpstreamFailure for many more choices than were requested."""
    if count > requested + _MAX_EXTRA_CHOICES:
        raise UpstreamFailure(
            FailureKind.MALFORMED, f"the answer has {count:,} choices and not {requested}"
        )


def measure_content(message: JsonObject) -> tuple[bool, int]:
    """Return whether a message or delta has content, and its bytes of generated text.

    Content is text, reasoning, tool calls or media; the text includes tool arguments, and may come
    in parts.
    """
    has_content, total = False, 0
    for name, value in message.items():
        if value and name in _CONTENT_FIELDS:
            has_content = True
            if name in _TEXT_FIELDS:
                total += _count_text_bytes(value)
    return has_content, total


def measure_choices(answer: JsonObject) -> int:
    """Return the bytes of generated text in an answer or chunk of any shape."""
    choices, total = answer.get("choices"), 0
    for choice in choices[:_MAX_MEASURED] if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            part = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
            total += measure_content(part)[1] if isinstance(part, dict) else 0
    return total


def measure_failed(answer: JsonObject) -> ChunkBatch:
    """Return usage, length of text and id of a whole answer that failed: it may be billed."""
    id = answer.get("id")
    return ChunkBatch(
        chunks=[],
        usage=parse_usage(answer.get("usage")),
        text_bytes=measure_choices(answer),
        id=id if isinstance(id, str) else None,
    )


def _count_text_bytes(value: object) -> int:
    """Return the bytes of text in a content, its parts or calls, and none of media."""
    if isinstance(value, str):
        return count_bytes(value)
    total, rest = 0, [value]
    for part in rest:
        if isinstance(part, str):
            total += count_bytes(part)
        elif isinstance(part, dict):
            rest += [one for name, one in part.items() if name in _PART_FIELDS]
        elif isinstance(part, list):
            rest += part
    return total


def count_bytes(text: str) -> int:
    """Return the length of `text` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def repair_message(message: JsonObject) -> None:
    """Remove or repair, in place, values that strict clients refuse."""
    details = message.get("reasoning_details")
    if details is not None:
        details = details if isinstance(details, list) else []
        message["reasoning_details"] = [
            d for d in details if isinstance(d, dict) and str(d.get("type")) in _REASONING_TYPES
        ]
        if not message["reasoning_details"]:
            del message["reasoning_details"]
    if "tool_calls" in message and not isinstance(message["tool_calls"], list):
        del message["tool_calls"]
    reasoning = message.pop("reasoning_content", None)
    if reasoning and not message.get("reasoning"):
        message["reasoning"] = reasoning


def parse_usage(value: object) -> Usage | None:
    """Return the tokens and cost that an upstream reports, or None when it reports none.

    Negative, huge or non-numeric figures count as not reported.
    """
    if not isinstance(value, dict):
        return None
    prompt = parse_token_count(value.get("prompt_tokens", value.get("input_tokens")))
    completion = parse_token_count(value.get("completion_tokens", value.get("output_tokens")))
    total = parse_token_count(value.get("total_tokens"))
    if prompt is None or (completion is None and total is None):
        return None
    prompt_details = coerce_object(value.get("prompt_tokens_details"))
    completion_details = coerce_object(value.get("completion_tokens_details"))
    reasoning = parse_token_count(completion_details.get("reasoning_tokens")) or 0
    completion = _count_completion(prompt, completion, total, reasoning)
    value["prompt_tokens"] = prompt
    value["completion_tokens"] = completion
    value["total_tokens"] = prompt + completion
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=parse_token_count(prompt_details.get("cached_tokens")) or 0,
        cache_write_tokens=_find_cache_writes(value, prompt_details),
        reasoning_tokens=reasoning,
        cost_nano=_find_cost(value, value.get("cost"), coerce_object(value.get("cost_details"))),
        raw=encode_repaired(value),
    )


def _count_completion(prompt: int, completion: int | None, total: int | None, thoughts: int) -> int:
    """Return the tokens of the answer, with its thoughts, which some servers count beside it."""
    beyond = max((total or 0) - prompt, 0)
    if completion is None:
        return beyond
    if thoughts > completion:
        # More thoughts than tokens: they were counted apart, whatever the total says.
        return max(completion + thoughts, beyond)
    return max(completion, beyond)


def _find_cache_writes(usage: JsonObject, details: JsonObject) -> int:
    names = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
    found = [parse_token_count(one.get(name)) for one in (details, usage) for name in names]
    return next((count for count in found if count), 0)


def parse_generation(body: JsonObject) -> Usage | None:
    """Return the usage that OpenRouter reports of an earlier call, or None without its cost."""
    data = coerce_object(body.get("data"))
    cost = _find_cost(data, data.get("total_cost"), data)
    if cost is None:
        return None
    return Usage(
        prompt_tokens=parse_token_count(data.get("tokens_prompt")) or 0,
        completion_tokens=parse_token_count(data.get("tokens_completion")) or 0,
        cost_nano=cost,
    )


def _find_cost(usage: JsonObject, reported: object, details: JsonObject) -> int | None:
    """Return the cost in nano-dollars, and for a provider's key of one's own what that took."""
    cost = parse_cost(reported)
    if usage.get("is_byok") is not True:
        return cost
    own = parse_cost(details.get("upstream_inference_cost"))
    return cost if own is None else (cost or 0) + own


def parse_token_count(value: object) -> int | None:
    """Return a reported number of tokens, or None if it is negative, huge or no whole number."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < 10**9 else None


def parse_created(value: object) -> int | None:
    """Return a time in whole Unix seconds, or None if it is no finite number."""
    if type(value) is float and isfinite(value):
        return int(value)
    return value if type(value) is int else None


def parse_cost(cost: object) -> int | None:
    """Return a reported cost in US dollars as nano-dollars, or None if it is no cost."""
    if (type(cost) is not float and type(cost) is not int) or not 0 <= cost < 1e6:
        return None
    scaled = cost * 1e9
    if scaled == int(scaled):
        return int(scaled)
    # Three decimals of a nano-dollar absorb the error of the binary fraction before rounding up.
    return ceil(round(scaled, 3))
