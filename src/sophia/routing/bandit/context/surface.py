"""Surface features of a request: counts of its text and its parameters, as numbers."""

import math
import re

import numpy as np

from sophia.routing.bandit.policy import Vector
from sophia.routing.types import TASK_TYPES, Features, Prompt

_COUNTED_CHARS = {
    "lines": "\n",
    "questions": "?",
    "commas": ",",
    "braces": "{",
    "equals": "=",
    "backslashes": "\\",
    "dollars": "$",
    "underscores": "_",
}
_COUNTED_CODES = [ord(char) for char in _COUNTED_CHARS.values()]
_OPTION_CLOSERS = [ord(char) for char in ").:"]
_CHARS = [chr(code) for code in range(256)]
# (3, 256): which characters are digits, marks and capitals.
_CHAR_CLASSES = np.array(
    [
        [float(char.isdigit()) for char in _CHARS],
        [float(not char.isalnum() and not char.isspace()) for char in _CHARS],
        [float(char.isupper()) for char in _CHARS],
    ]
)
# The letter comes first, so that the search can skip to it.
_OPTION = re.compile(r"[A-J](?<![^\s(].)[).:]\s")
_NUMBERED_OPTION = re.compile(r"(?m)^[ \t]*\(?\d{1,2}[).]\s")
_NUMBER = re.compile(r"\d+")
_IMPERATIVES = frozenset(
    {"write", "create", "find", "calculate", "compute", "get", "make", "give", "tell", "show"}
    | {"explain", "list", "generate", "solve", "determine", "translate", "summarize", "draw"}
    | {"summarise", "rewrite", "convert", "fix", "implement", "describe", "what's"}
)
_QUESTION_WORDS = frozenset(
    {"what", "which", "who", "when", "where", "how", "why", "is", "are"}
    | {"can", "could", "does", "do", "did"}
)
_POLITE = ("please", "could you", "can you", "would you")


def build_feature_vector(prompt: Prompt, features: Features, text: str) -> Vector:
    """Return the features of a request in their fixed order, (F,)."""
    return np.array(list(surface_features(prompt, features, text).values()))


def surface_features(prompt: Prompt, features: Features, text: str) -> dict[str, float]:
    """Return the features by name, in the order of the task model; counts as logarithms.

    `text` is the last message, its middle left out (`embedding.truncate_middle`).
    """
    log = math.log1p
    wide = prompt.utf8_bytes - prompt.chars
    return {
        "length": log(features.chars),
        "complexity": features.complexity,
        "max_latency": log(features.max_latency_ms) if features.latency_declared else 0.0,
        "cost_sensitive": float(features.cost_sensitive),
        **{f"type_{name}": float(features.task_type == name) for name in TASK_TYPES},
        "code": features.code,
        "maths": features.maths,
        "english": float(features.language == "en"),
        "wide_script": wide / prompt.chars if wide > 0 and prompt.chars else 0.0,
        "has_tools": float(prompt.tools > 0),
        "one_tool": float(prompt.tools == 1),
        "tools": log(prompt.tools),
        "images": log(prompt.images),
        "files": log(prompt.files),
        "audio": log(prompt.audio),
        "schema": float(prompt.schema),
        "json_object": float(prompt.json_object),
        "reasoning": float(prompt.reasoning),
        "turns": log(prompt.turns),
        "has_system": float(bool(prompt.system)),
        "output_limit": log(prompt.max_tokens) if prompt.max_tokens else 0.0,
        "expected_output": log(features.output_tokens),
        **_text_features(text),
    }


def _text_features(text: str) -> dict[str, float]:
    log = math.log1p
    size = len(text) or 1
    words = text.split()
    lower = text.lower()
    # One pass over the bytes counts every character at once.
    counts = np.bincount(np.frombuffer(text.encode("latin-1", "replace"), np.uint8), minlength=256)
    digits, marks, capitals = (_CHAR_CLASSES @ counts).tolist()
    first = words[0].lower().strip("\"'[(") if words else ""
    end = text.rstrip()[-1:]
    options = len(_OPTION.findall(text)) if counts[_OPTION_CLOSERS].any() else 0
    return {
        "looked_at": log(size),
        "words": log(len(words)),
        "word_length": sum(map(len, words)) / (len(words) or 1),
        "digits": digits / size,
        "numbers": log(len(_NUMBER.findall(text))) if digits else 0.0,
        "marks": marks / size,
        "capitals": capitals / size,
        **dict(zip(_COUNTED_CHARS, np.log1p(counts[_COUNTED_CODES]).tolist(), strict=True)),
        "sentences": log(text.count(". ")),
        "ands": log(lower.count(" and ")),
        "quotes": log(float(counts[34] + counts[39])),
        "brackets": log(float(counts[40] + counts[91])),
        "lettered_options": log(options),
        "numbered_options": log(len(_NUMBERED_OPTION.findall(text)) if digits else 0),
        "options_line": float("options:" in lower or "choices:" in lower),
        "blank": float(" _ " in text or "___" in text),
        "colon_end": float(end == ":"),
        "question_end": float(end == "?"),
        "starts_upper": float(text[:1].isupper()),
        "polite": float(any(word in lower for word in _POLITE)),
        "imperative": float(first in _IMPERATIVES),
        "asks_what": float(first in _QUESTION_WORDS),
        "first_person": log(lower.count(" i ") + lower.count("i'm") + lower.count(" my ")),
    }
