"""The JSON object that a prompt describes in words: by a schema, or by an example of it."""

import hashlib
import json
import re

from sophia.sandbox.api.shapes import JsonObject

EXAMPLE = re.compile(r'\{\s*"[^"{}]+"\s*:[^{}]*\}')
FIELD = re.compile(r'"([^"]+)"\s*:\s*("[^"]*"|[^",}]+)')
SCORES = 5
LOWEST_SCORE = 5


def find_described_object(text: str) -> JsonObject | None:
    """Return the schema of the object that `text` describes, None when it describes none.

    An example in JSON becomes a schema of its own values. One such as `{"title": "a few words",
    "score": N}` keeps its words; anything else in it becomes a number from 5 to 9, the same for the
    same text.
    """
    decoder = json.JSONDecoder()
    for start in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, start.start())
        except (json.JSONDecodeError, RecursionError):
            continue
        if not isinstance(value, dict):
            continue
        if isinstance(value.get("properties"), dict) and value.get("type", "object") == "object":
            return value
        if value:
            return _build_schema(value)
    examples = EXAMPLE.findall(text)
    if not examples:
        return None
    score = LOWEST_SCORE + hashlib.sha256(text.encode()).digest()[0] % SCORES
    fields = FIELD.findall(examples[-1])
    return _build_schema({name: _read_value(value.strip(), score) for name, value in fields})


def _build_schema(example: dict[str, object]) -> JsonObject:
    """Return a schema whose only value is `example`."""
    properties = {name: {"default": value} for name, value in example.items()}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _read_value(text: str, score: int) -> object:
    if text.startswith('"'):
        return text.strip('"')
    words = {"true": True, "false": False, "null": None}
    return words.get(text.split("|", maxsplit=1)[0].strip(), score)
