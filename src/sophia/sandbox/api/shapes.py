"""Parts of OpenRouter's JSON that answers and pages share."""

from collections.abc import Mapping, Sequence

PROVIDER = "Sandbox"
NANO_PER_USD = 1_000_000_000

JsonObject = dict[str, object]


def build_reasoning_fields(text: str) -> JsonObject:
    """Return the reasoning fields of a message or delta."""
    detail = {"type": "reasoning.text", "text": text, "format": "unknown", "index": 0}
    return {"reasoning": text, "reasoning_details": [detail]}


def build_logprobs(tokens: Sequence[str], top: int) -> JsonObject:
    """Return plausible log probabilities, the same for the same tokens."""
    return {"content": [_logprob(token, top) for token in tokens], "refusal": None}


def _logprob(token: str, top: int) -> JsonObject:
    base = {"token": token, "logprob": -0.05 * (1 + len(token) % 5), "bytes": list(token.encode())}
    others = [{**base, "token": token + "~" * n, "logprob": -0.05 - 1.5 * n} for n in range(1, top)]
    return {**base, "top_logprobs": [base, *others] if top else []}


def count_text_tokens(text: str) -> int:
    """Return the length of `text` in tokens of four bytes."""
    return -(-len(text.encode()) // 4)


def as_mapping(value: object) -> Mapping[str, object]:
    """Return `value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[object]:
    """Return `value` if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []
