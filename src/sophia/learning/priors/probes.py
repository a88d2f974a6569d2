"""Probes: questions with exactly checkable answers, for a first estimate of a new model."""

import json
import math
import re
from collections.abc import Sequence

import yaml
from msgspec import Struct, convert

_NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?")
_LETTER = re.compile(r"\b[A-E]\b")
_FENCE = re.compile(r"```[a-z]*\n?|```")
_TRIMMED_CHARS = " \t\n\"'`*_.:>“”„‚‘’«»()"
_ANSWER_INSTRUCTIONS = {
    "number": "Reply with the number alone.",
    "choice": "Reply with the letter alone.",
    "text": "Reply with that alone and nothing else.",
    "json": "Reply with the JSON alone.",
}


class ProbeToolCall(Struct, frozen=True):
    """A tool call in an answer; `arguments` is JSON."""

    name: str
    arguments: str


class ProbeTool(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool offered with a question; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: dict[str, object]


class ExpectedAnswer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The right answer, in one of five forms; `tolerance` is for numbers."""

    number: float | None = None
    choice: str | None = None
    text: str | None = None
    json: object = None
    call: dict[str, object] | None = None
    tolerance: float = 1e-9

    @property
    def answer_type(self) -> str:
        """Name of the form that is set."""
        forms = ("number", "choice", "text", "json", "call")
        return next(form for form in forms if getattr(self, form) is not None)


class Probe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question, its kind of work, and the right answer."""

    id: str
    kind: str
    question: str
    check: ExpectedAnswer
    tool: ProbeTool | None = None

    @property
    def prompt(self) -> str:
        """The question with an instruction on the form of the answer."""
        instruction = _ANSWER_INSTRUCTIONS.get(self.check.answer_type, "")
        return f"{self.question}\n\n{instruction}" if instruction else self.question


def parse_probes(text: str) -> tuple[Probe, ...]:
    """Return the probes in YAML `text`. Raises msgspec.ValidationError for another form."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return convert(yaml.load(text, Loader=loader), tuple[Probe, ...])  # noqa: S506 - a safe loader


def is_probe_answer_correct(
    check: ExpectedAnswer, text: str, calls: Sequence[ProbeToolCall] = ()
) -> bool:
    """Return whether an answer is right; its last number, letter or line counts."""
    match check.answer_type:
        case "call":
            return len(calls) == 1 and _json_equal(_parse_json(calls[0].arguments), check.call)
        case "number":
            return _matches_number(text, check.number or 0.0, check.tolerance)
        case "choice":
            letters = _LETTER.findall(text)
            return bool(letters) and letters[-1] == check.choice
        case "json":
            return _json_equal(_parse_json(_FENCE.sub("", text)), check.json)
    lines = [line for line in text.splitlines() if line.strip(_TRIMMED_CHARS)]
    return bool(lines) and _normalize(lines[-1]) == _normalize(check.text or "")


def _matches_number(text: str, expected: float, tolerance: float) -> bool:
    numbers = _NUMBER.findall(text)
    if not numbers:
        return False
    value = float(numbers[-1].replace(",", "").replace("−", "-"))
    return math.isclose(value, expected, rel_tol=1e-9, abs_tol=tolerance)


def _normalize(text: str) -> str:
    return " ".join(text.strip(_TRIMMED_CHARS).split()).casefold()


def _parse_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json_equal(value: object, expected: object) -> bool:
    """Return whether two JSON values are equal; case is ignored, and 3 equals 3.0 but not true."""
    if isinstance(value, dict) and isinstance(expected, dict):
        same = (_json_equal(item, expected.get(name)) for name, item in value.items())
        return value.keys() == expected.keys() and all(same)
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(_json_equal, value, expected))
    if isinstance(value, str) and isinstance(expected, str):
        return _normalize(value) == _normalize(expected)
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(value, int | float) and isinstance(expected, int | float):
        try:
            return math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-9)
        except OverflowError:
            # JSON allows integers of any length; a broken model writes hundreds of digits.
            return False
    return value is None and expected is None
