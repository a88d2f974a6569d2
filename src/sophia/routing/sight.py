"""What learned policies see of a request: its task, its meaning and its surface as numbers."""

import math
import re

import numpy as np

from sophia.routing.embedding import Embedding, Ids, ends
from sophia.routing.nouns import TASK_TYPES, Features, Hints, Prompt
from sophia.routing.policies.policy import Vector

_PLAN = (
    "length",
    "complexity",
    "max_latency",
    "cost_sensitive",
    *(f"type_{name}" for name in TASK_TYPES),
)
_REQUEST = (
    "code",
    "maths",
    "english",
    "wide_script",
    "has_tools",
    "one_tool",
    "tools",
    "images",
    "files",
    "audio",
    "schema",
    "json_object",
    "reasoning",
    "turns",
    "has_system",
    "output_limit",
    "expected_output",
)
_SURFACE = (
    "looked_at",
    "words",
    "word_length",
    "digits",
    "numbers",
    "marks",
    "capitals",
    "lines",
    "questions",
    "commas",
    "braces",
    "equals",
    "backslashes",
    "dollars",
    "underscores",
    "sentences",
    "ands",
    "quotes",
    "brackets",
    "lettered_options",
    "numbered_options",
    "options_line",
    "blank",
    "colon_end",
    "question_end",
    "starts_upper",
    "polite",
    "imperative",
    "asks_what",
    "first_person",
)
FEATURE_NAMES: tuple[str, ...] = (*_PLAN, *_REQUEST, *_SURFACE)

_SINGLE = [ord(char) for char in "\n?,{=\\$_"]
_CLOSERS = [ord(char) for char in ").:"]
_KINDS = np.array(
    [
        [float(test(chr(code))) for code in range(256)]
        for test in (
            str.isdigit,
            lambda char: not char.isalnum() and not char.isspace(),
            str.isupper,
        )
    ]
)
# The letter comes first, so that the search can leap to it.
_OPTION = re.compile(r"[A-J](?<![^\s(].)[).:]\s")
_NUMBERED = re.compile(r"(?m)^[ \t]*\(?\d{1,2}[).]\s")
_NUMBER = re.compile(r"\d+")
_IMPERATIVES = frozenset(
    {"write", "create", "find", "calculate", "compute", "get", "make", "give", "tell", "show"}
    | {"explain", "list", "generate", "solve", "determine", "translate", "summarize", "draw"}
    | {"summarise", "rewrite", "convert", "fix", "implement", "describe", "what's"}
)
_ASKING = frozenset(
    {"what", "which", "who", "when", "where", "how", "why", "is", "are"}
    | {"can", "could", "does", "do", "did"}
)
_POLITE = ("please", "could you", "can you", "would you")


def features_of(prompt: Prompt, features: Features, hints: Hints) -> Vector:
    """Return the request as numbers, (len(FEATURE_NAMES),); counts are logarithms."""
    text = ends(prompt.text)
    return np.array([*_of_plan(features), *_of_request(prompt, features), *_of_text(text)])


def text_of(prompt: Prompt) -> str:
    """Return the text that the embedding reads: the ends of the last message."""
    return ends(prompt.text)


def _of_plan(features: Features) -> list[float]:
    return [
        math.log1p(features.chars),
        features.complexity,
        math.log1p(features.max_latency_ms) if features.latency_declared else 0.0,
        float(features.cost_sensitive),
        *(float(features.task_type == name) for name in TASK_TYPES),
    ]


def _of_request(prompt: Prompt, features: Features) -> list[float]:
    log = math.log1p
    wide = prompt.utf8_bytes - prompt.chars
    return [
        features.code,
        features.maths,
        float(features.language == "en"),
        wide / prompt.chars if wide > 0 and prompt.chars else 0.0,
        float(prompt.tools > 0),
        float(prompt.tools == 1),
        log(prompt.tools),
        log(prompt.images),
        log(prompt.files),
        log(prompt.audio),
        float(prompt.schema),
        float(prompt.json_object),
        float(prompt.reasoning),
        log(prompt.turns),
        float(bool(prompt.system)),
        log(prompt.max_tokens) if prompt.max_tokens else 0.0,
        log(features.output_tokens),
    ]


def _of_text(text: str) -> list[float]:
    log = math.log1p
    size = len(text) or 1
    words = text.split()
    lower = text.lower()
    # One pass over the bytes counts every character at once.
    counts = np.bincount(np.frombuffer(text.encode("latin-1", "replace"), np.uint8), minlength=256)
    kinds = (_KINDS @ counts).tolist()
    single = np.log1p(counts[_SINGLE]).tolist()
    first = words[0].lower().strip("\"'[(") if words else ""
    end = text.rstrip()[-1:]
    options = len(_OPTION.findall(text)) if counts[_CLOSERS].any() else 0
    numbered = len(_NUMBERED.findall(text)) if kinds[0] else 0
    return [
        log(size),
        log(len(words)),
        sum(map(len, words)) / (len(words) or 1),
        kinds[0] / size,
        log(len(_NUMBER.findall(text))) if kinds[0] else 0.0,
        kinds[1] / size,
        kinds[2] / size,
        *single,
        log(text.count(". ")),
        log(lower.count(" and ")),
        log(float(counts[34] + counts[39])),
        log(float(counts[40] + counts[91])),
        log(options),
        log(numbered),
        float("options:" in lower or "choices:" in lower),
        float(" _ " in text or "___" in text),
        float(end == ":"),
        float(end == "?"),
        float(text[:1].isupper()),
        float(any(word in lower for word in _POLITE)),
        float(first in _IMPERATIVES),
        float(first in _ASKING),
        log(lower.count(" i ") + lower.count("i'm") + lower.count(" my ")),
    ]


def embed(embedding: Embedding, prompt: Prompt) -> tuple[Ids, Vector]:
    """Return the token ids of what is read of a request, and their vector."""
    ids = embedding.ids(text_of(prompt))
    return ids, embedding.vector(ids)
