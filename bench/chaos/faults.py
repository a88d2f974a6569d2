"""The faults of a run. Client and upstream derive them from the seed and the request's number."""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Phase = Literal["warm-up", "faults", "outage", "cuts"]
Framing = Literal["chunked", "length", "close"]

PRIMARY = "openai/gpt-4o-mini"
FALLBACK = "mistralai/mistral-nemo"
CLOSED = "chaos/closed"
"""A model whose only upstream is a port on which nothing listens."""

BEFORE_CONTENT = {
    "refused": "refused connection",
    "reset": "reset after the request",
    "429": "429 with Retry-After: 1",
    "500": "500",
    "502": "502",
    "503": "503",
    "529": "529",
    "html": "HTML with status 200",
    "json-error": "JSON error with status 200",
    "empty": "empty answer",
    "half-json": "half of a JSON text, properly framed",
    "silence": "silence",
    "cut": "connection cut before content",
}
AFTER_CONTENT = {
    "fin": "FIN within a chunk or before the announced length",
    "eof": "FIN where only it ends the answer",
    "rst": "RST",
    "bad-chunk": "chunk size that is no number",
    "stall": "stall",
    "in-band": "error event in the stream",
}
SHARE = 0.1
FRAMINGS: tuple[Framing, ...] = ("chunked", "length", "close")
FRAMINGS_OF: Mapping[str, tuple[Framing, ...]] = {
    "fin": ("chunked", "length"),
    "eof": ("close",),
    "bad-chunk": ("chunked",),
}
WORDS = [
    "",
    "sky,",
    "blue\n“light”",
    "é",
    "路由",
    "😀",
    "\\",
    "\t",
    "scatters",
    "more",
    "than",
    "red",
    "{and}",
    "it:",
    "3.14",
]
WORDS_PER_ANSWER = (12, 40)
MARK = re.compile(r"#(warm-up|faults|outage|cuts)-(\d+)")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `place` is the share of the bytes after the first content that are still sent."""

    kind: str
    framing: Framing = "chunked"
    place: float = 0.0


def choose_fault(seed: int, phase: Phase, number: int, dispatch: int, model: str) -> Fault | None:
    """Return the fault of dispatch `dispatch`, from 0, of a request; None for a normal answer.

    `faults`: one dispatch in ten to any model but the fallback. `outage`: every dispatch to any
    model but the fallback. `cuts`: the first dispatch, whatever the model.
    """
    source = random.Random(f"{seed}/{phase}/{number}/{dispatch}")
    place, framing = source.random(), source.choice(FRAMINGS)
    match phase:
        case "faults" if model != FALLBACK and source.random() < SHARE:
            # A retry cannot be refused: its connection has been accepted.
            return Fault(source.choice(list(BEFORE_CONTENT)[1 if dispatch else 0 :]), framing)
        case "outage" if model != FALLBACK:
            return Fault(source.choice(("503", "reset")), framing)
        case "cuts" if dispatch == 0:
            kind = source.choice(list(AFTER_CONTENT))
            return Fault(kind, source.choice(FRAMINGS_OF.get(kind, FRAMINGS)), place)
        case _:
            return None


def list_words(phase: Phase, number: int) -> list[str]:
    """Return the tokens of the answer that every model gives to a request."""
    source = random.Random(f"{phase}/{number}")
    words = source.choices(WORDS, k=source.randint(*WORDS_PER_ANSWER))
    return [f"Answer {number}:", *(f" {word}" for word in words)]


def is_streamed(phase: Phase, number: int) -> bool:
    """Return whether a request asks for a stream: always when it is cut, else every second."""
    return phase == "cuts" or number % 2 == 0


def build_body(phase: Phase, number: int, fault: Fault | None) -> dict[str, object]:
    """Return the request, the same for every gateway."""
    prompt = f"Why is the sky blue? #{phase}-{number}"
    return {
        "model": CLOSED if fault is not None and fault.kind == "refused" else PRIMARY,
        "messages": [{"role": "user", "content": prompt}],
        "stream": is_streamed(phase, number),
        "max_tokens": 200,
    }
