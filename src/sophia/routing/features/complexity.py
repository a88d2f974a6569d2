"""Complexity of a request, 0 to 1: a trained linear model over a few counts of its text.

A ridge regression on the difficulty of benchmark questions (Rasch, 1960) and on written requests;
docs/explanation/task-model.md names them, and says how well it predicts difficulty.
"""

import math
from operator import mul
from typing import NamedTuple

from sophia.routing.features.complexity_weights import BIAS, WEIGHTS
from sophia.routing.types import Prompt

MAX_TEXT_CHARS = 2000
"""Length from which `Prompt.text` may be only a part of its message."""
_WIDE_SCRIPT_WEIGHT = 0.5
_CONTEXT_WEIGHT = 0.25
_MAX_EASIER, _MAX_HARDER, _MAX_DEMANDING, _MAX_CODE = 0.25, 0.5, 3, 0.5
_DIGITS = b"0123456789"
# Our judgement, in log-odds: no table measures these.
_TOOLS_LOG_ODDS, _SCHEMA_LOG_ODDS = 0.3, 0.2
_LONG_CONVERSATION_LOG_ODDS, _REASONING_LOG_ODDS = 0.2, 0.6
_LONG_CONVERSATION_TURNS = 6


class ComplexityCues(NamedTuple):
    """Cues of the vocabulary in a text.

    How much easier and harder its words make the work, how many words ask for demanding work, and
    the marks of code and of maths, 0 to 1.
    """

    easier: float
    harder: float
    demanding: int
    code: float
    maths: float


def compute_complexity_features(
    prompt: Prompt, text: str, cues: ComplexityCues
) -> tuple[float, ...]:
    """Return the model's inputs, in the order of `WEIGHTS`.

    Args:
        prompt: the request; `chars` beyond the last message weigh little, being context.
        text: the lower-cased excerpt that is read of it.
        cues: cues of that excerpt.
    """
    easier, harder, demanding, code, maths = cues
    chars, own_chars = prompt.chars, len(prompt.text)
    wide = max(prompt.utf8_bytes - chars, 0)
    whole = math.log2(1 + (chars + wide * _WIDE_SCRIPT_WEIGHT) / 60)
    if own_chars < MAX_TEXT_CHARS and own_chars < chars:
        share = own_chars / chars
        own = math.log2(1 + (own_chars + wide * share * _WIDE_SCRIPT_WEIGHT) / 60)
        whole = own + _CONTEXT_WEIGHT * (whole - own)
    raw = text.encode("utf-8", "replace")
    return (
        whole,
        min(easier, _MAX_EASIER),
        min(harder, _MAX_HARDER),
        float(min(demanding, _MAX_DEMANDING)),
        min(code, _MAX_CODE),
        maths,
        math.log1p(text.count("\n")),
        math.log1p(len(raw) - len(raw.translate(None, _DIGITS))),
        math.log1p(text.count("\\") + text.count("$")),
    )


def estimate_complexity(prompt: Prompt, text: str, cues: ComplexityCues) -> float:
    """Return the complexity of a request, 0 to 1.

    Roughly the share of the training texts that are easier.
    """
    features = compute_complexity_features(prompt, text, cues)
    score = BIAS + sum(map(mul, WEIGHTS, features))
    if prompt.tools:
        score += _TOOLS_LOG_ODDS
    if prompt.schema:
        score += _SCHEMA_LOG_ODDS
    if prompt.turns > _LONG_CONVERSATION_TURNS:
        score += _LONG_CONVERSATION_LOG_ODDS
    if prompt.reasoning:
        score += _REASONING_LOG_ODDS
    # Written so that no length overflows.
    return round(0.5 + 0.5 * math.tanh(0.5 * score), 3)
