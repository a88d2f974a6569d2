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

    An example such as `{"title": "a few words", "score": N}` becomes a schema whose defaults are
    its words; a letter or number in it becomes a number from 5 to 9, the same for the same text.
    """
    decoder = json.JSONDecoder()
    for start in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, start.start())
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict) and isinstance(value.get("properties"), dict):
            return value
    examples = EXAMPLE.findall(text)
    if not examples:
        return None
    score = LOWEST_SCORE + hashlib.sha256(text.encode()).digest()[0] % SCORES
    properties = {
        name: {"default": _read_value(value.strip(), score)}
        for name, value in FIELD.findall(examples[-1])
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _read_value(text: str, score: int) -> object:
    if text.startswith('"'):
        return text.strip('"')
    return {"true": True, "false": False, "null": None}.get(text, score)
