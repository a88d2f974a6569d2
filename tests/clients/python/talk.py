"""The line protocol of every client program: one JSON request per line in, one result out.

A request holds `do`, `model`, `prompt` and, where they matter, `stream`, `tools`, `schema`,
`settings` (named fields), `extra` (unknown fields) and `key`. A result holds `text`,
`finish`, `model`, `calls`, `usage`, `cost`, `error` and so on, as far as the client shows them.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

Ask = dict[str, Any]
Seen = dict[str, Any]

warnings.simplefilter("ignore")


def answer_lines(act: Callable[[Ask, Seen], None]) -> None:
    """Answer each line of standard input; an exception of the client is part of the result."""
    for line in sys.stdin:
        seen: Seen = {"text": "", "reasoning": ""}
        try:
            act(json.loads(line), seen)
        except Exception as error:  # noqa: BLE001 - what clients raise is what is tested
            seen["error"] = describe(error)
        print(json.dumps(seen), flush=True)


def describe(error: Exception) -> dict[str, Any]:
    """Return the attributes of `error`; `code` is the one of the body."""
    body = getattr(error, "body", None)
    return {
        "types": [kind.__name__ for kind in type(error).__mro__],
        "status": getattr(error, "status_code", None),
        "code": body.get("code") if isinstance(body, dict) else None,
        "message": str(error),
    }


def api_key(ask: Ask) -> str:
    """Return the key to send."""
    return str(ask.get("key") or os.environ["API_KEY"])


def fields(ask: Ask) -> dict[str, Any]:
    """Return the request as the fields of a chat completion, for clients that take those by name."""
    asked = {
        "model": ask["model"],
        "messages": [{"role": "user", "content": ask["prompt"]}],
        **ask.get("settings", {}),
    }
    if "tools" in ask:
        asked["tools"] = ask["tools"]
    if "schema" in ask:
        schema = {"name": "answer", "strict": True, "schema": ask["schema"]}
        asked["response_format"] = {"type": "json_schema", "json_schema": schema}
    return asked


def call(name: str, arguments: str) -> dict[str, Any]:
    """Return a tool call for the result, with its arguments decoded."""
    return {"name": name, "arguments": json.loads(arguments)}


class Pieces:
    """Joins the fragments of streamed tool calls by their index."""

    def __init__(self) -> None:
        self._parts: dict[int, list[str]] = {}

    def add(self, index: int, name: str | None, arguments: str | None) -> None:
        """Add one fragment; only the first one has a name."""
        parts = self._parts.setdefault(index, ["", ""])
        parts[0] += name or ""
        parts[1] += arguments or ""

    def calls(self) -> list[dict[str, Any]]:
        """Return the joined calls in the order of their index."""
        return [call(*parts) for _, parts in sorted(self._parts.items())]
