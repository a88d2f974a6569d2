"""Middle-out: a conversation that is too long loses turns from its middle, as the caller asked."""

from typing import Any

import msgspec

from sophia.routing.features.extract import IMAGE_TOKENS

_BYTES_PER_TOKEN = 3
_TOKENS_PER_MESSAGE = 4
_SYSTEM_ROLES = ("system", "developer")


def drop_middle_turns(body: bytes, max_tokens: int) -> tuple[bytes, int] | None:
    """Return a body of about `max_tokens` at most, and the number of messages left out.

    The system messages at the start, the first turn and as many of the last turns as fit stay; a
    tool call and its results stay or go together. None when even the last turn does not fit,
    nothing needs to go, or a message holds a number that cannot be read.
    """
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    raw = fields["messages"]
    try:
        messages: list[dict[str, Any]] = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return None
    groups = _group_messages(messages)
    start = next(
        (at for at, group in enumerate(groups) if group[0].get("role") not in _SYSTEM_ROLES),
        len(groups),
    )
    fixed, turns = groups[:start], groups[start:]
    if not turns:
        return None
    others = (len(body) - len(memoryview(raw))) // _BYTES_PER_TOKEN
    left = max_tokens - others - sum(map(_count_tokens, fixed))
    left -= _count_tokens(turns[-1])
    if left < 0:
        return None
    first = turns[:1] if len(turns) > 1 and _count_tokens(turns[0]) <= left else []
    left -= sum(map(_count_tokens, first))
    last = [turns[-1]]
    for group in reversed(turns[len(first) : -1]):
        left -= _count_tokens(group)
        if left < 0:
            break
        last.insert(0, group)
    while len(last) > 1 and last[0][0].get("role") == "assistant" and len(last[0]) == 1:
        # An answer without its question; a tool call with its results needs none.
        last.pop(0)
    kept = [message for group in (*fixed, *first, *last) for message in group]
    dropped = len(messages) - len(kept)
    if not dropped:
        return None
    return msgspec.json.encode({**fields, "messages": kept}), dropped


def _group_messages(messages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the messages with each tool's result beside the call that it answers."""
    groups: list[list[dict[str, Any]]] = []
    for message in messages:
        is_result = message.get("role") in ("tool", "function")
        if groups and is_result and groups[-1][0].get("role") not in _SYSTEM_ROLES:
            groups[-1].append(message)
        else:
            groups.append([message])
    return groups


def _count_tokens(value: object) -> int:
    return _count_bytes(value) // _BYTES_PER_TOKEN + _TOKENS_PER_MESSAGE


def _count_bytes(value: object) -> int:
    """Return about the bytes of text in a JSON value; an attachment counts as an allowance."""
    if isinstance(value, dict):
        return sum(len(name) + 5 + _count_bytes(each) for name, each in value.items())
    if isinstance(value, list):
        return sum(1 + _count_bytes(each) for each in value)
    if isinstance(value, str):
        if value.startswith("data:"):
            return IMAGE_TOKENS * _BYTES_PER_TOKEN
        return len(value.encode("utf-8", "replace")) + 2
    return 6
