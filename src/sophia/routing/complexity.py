"""How demanding a request is, 0 to 1: a trained line over a few figures of its surface.

The line is a ridge regression on the difficulty of benchmark questions (Rasch, 1960) and on written
requests; docs/explanation/task-model.md says on which, and how well it foresees difficulty.
"""

import math
from operator import mul
from typing import NamedTuple

from sophia.routing.complexity_weights import BIAS, WEIGHTS
from sophia.routing.nouns import Prompt

FIGURES = (
    "length",
    "easier",
    "harder",
    "demanding",
    "code",
    "maths",
    "lines",
    "digits",
    "notation",
)
"""What the line reads, in the order of `WEIGHTS`."""

WHOLE_CHARS = 2000
"""From so many characters on `Prompt.text` may be a part of its message only."""
_WIDE = 0.5
_CONTEXT = 0.25
_MOST_EASIER, _MOST_HARDER, _MOST_DEMANDING, _MOST_CODE = 0.25, 0.5, 3, 0.5
_DIGITS = b"0123456789"
# No table tells what these add; in log-odds, by judgement.
_TOOLS, _SCHEMA, _TALK, _REASONING = 0.3, 0.2, 0.2, 0.6
_LONG_TALK = 6


class Cues(NamedTuple):
    """What the vocabulary found.

    How much easier and harder its words make the work, how many of them ask for demanding work,
    and the marks of code and of maths, 0 to 1.
    """

    easier: float
    harder: float
    demanding: int
    code: float
    maths: float


def figures(prompt: Prompt, text: str, cues: Cues) -> tuple[float, ...]:
    """Return the figures of a request, len(FIGURES) of them.

    Args:
        prompt: the request; `chars` beyond the last message weigh little, being context.
        text: what is looked at of it, lower-cased.
        cues: of that text.
    """
    easier, harder, demanding, code, maths = cues
    chars = prompt.chars
    said = len(prompt.text)
    whole = math.log2(1 + (chars + max(prompt.utf8_bytes - chars, 0) * _WIDE) / 60)
    if said < WHOLE_CHARS and said < chars:
        share = said / chars
        own = math.log2(1 + (said + max(prompt.utf8_bytes - chars, 0) * share * _WIDE) / 60)
        whole = own + _CONTEXT * (whole - own)
    raw = text.encode("utf-8", "replace")
    return (
        whole,
        min(easier, _MOST_EASIER),
        min(harder, _MOST_HARDER),
        float(min(demanding, _MOST_DEMANDING)),
        min(code, _MOST_CODE),
        maths,
        math.log1p(text.count("\n")),
        math.log1p(len(raw) - len(raw.translate(None, _DIGITS))),
        math.log1p(text.count("\\") + text.count("$")),
    )


def estimate(prompt: Prompt, seen: tuple[float, ...]) -> float:
    """Return how demanding a request with these figures is, 0 to 1.

    About the share of all texts that it was trained on which are easier.
    """
    score = BIAS + sum(map(mul, WEIGHTS, seen))
    if prompt.tools:
        score += _TOOLS
    if prompt.schema:
        score += _SCHEMA
    if prompt.turns > _LONG_TALK:
        score += _TALK
    if prompt.reasoning:
        score += _REASONING
    # Written so that no length overflows.
    return round(0.5 + 0.5 * math.tanh(0.5 * score), 3)
