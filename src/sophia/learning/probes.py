"""Questions whose answers can be checked exactly, to see early what a new model can do."""

import json
import math
import re
from collections.abc import Sequence

import yaml
from msgspec import Struct, convert

_NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?")
_LETTER = re.compile(r"\b[A-E]\b")
_FENCE = re.compile(r"```[a-z]*\n?|```")
_AROUND = " \t\n\"'`*_.:>“”„‚‘’«»()"
_ENDING = {
    "number": "Reply with the number alone.",
    "choice": "Reply with the letter alone.",
    "text": "Reply with that alone and nothing else.",
    "json": "Reply with the JSON alone.",
}


class Call(Struct, frozen=True):
    """A call of a tool that an answer makes: its name, and its arguments as JSON."""

    name: str
    arguments: str


class Tool(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool that comes with a question; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: dict[str, object]


class Check(Struct, frozen=True, forbid_unknown_fields=True):
    """What the right answer is; one of them is set. `within` is the reach of a number."""

    number: float | None = None
    choice: str | None = None
    text: str | None = None
    json: object = None
    call: dict[str, object] | None = None
    within: float = 1e-9

    @property
    def form(self) -> str:
        """Which of them is set."""
        forms = ("number", "choice", "text", "json", "call")
        return next(form for form in forms if getattr(self, form) is not None)


class Probe(Struct, frozen=True, forbid_unknown_fields=True):
    """One question, the kind of work it is of, and what the right answer is."""

    id: str
    kind: str
    ask: str
    check: Check
    tool: Tool | None = None

    @property
    def prompt(self) -> str:
        """What the model is asked."""
        ending = _ENDING.get(self.check.form, "")
        return f"{self.ask}\n\n{ending}" if ending else self.ask


def read_probes(text: str) -> tuple[Probe, ...]:
    """Return the probes in `text`. Raises msgspec.ValidationError when they have another form."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return convert(yaml.load(text, Loader=loader), tuple[Probe, ...])  # noqa: S506 - a safe loader


def is_right(check: Check, text: str, calls: Sequence[Call] = ()) -> bool:
    """Say whether an answer is right: of what it says the last of the wanted form counts."""
    match check.form:
        case "call":
            return len(calls) == 1 and _same(_parsed(calls[0].arguments), check.call)
        case "number":
            return _is_number(text, check.number or 0.0, check.within)
        case "choice":
            found = _LETTER.findall(text)
            return bool(found) and found[-1] == check.choice
        case "json":
            return _same(_parsed(_FENCE.sub("", text)), check.json)
    lines = [line for line in text.splitlines() if line.strip(_AROUND)]
    return bool(lines) and _plain(lines[-1]) == _plain(check.text or "")


def _is_number(text: str, wanted: float, within: float) -> bool:
    found = _NUMBER.findall(text)
    if not found:
        return False
    value = float(found[-1].replace(",", "").replace("−", "-"))
    return math.isclose(value, wanted, rel_tol=1e-9, abs_tol=within)


def _plain(text: str) -> str:
    return " ".join(text.strip(_AROUND).split()).casefold()


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _same(found: object, wanted: object) -> bool:
    """Say whether two JSON values are equal; words of any case, and 3 is 3.0 but not true."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        same = (_same(value, wanted.get(name)) for name, value in found.items())
        return found.keys() == wanted.keys() and all(same)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_same, found, wanted))
    if isinstance(found, str) and isinstance(wanted, str):
        return _plain(found) == _plain(wanted)
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, int | float) and isinstance(wanted, int | float):
        return _close(found, wanted)
    return found is None and wanted is None


def _close(found: float, wanted: float) -> bool:
    try:
        return math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-9)
    except OverflowError:
        # JSON knows whole numbers of any length; a broken model writes hundreds of digits.
        return False
