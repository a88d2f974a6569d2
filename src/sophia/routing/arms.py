"""Arms: a model in one way of calling it, since a model may shine in one and fail in another."""

from typing import Literal

from sophia.routing.nouns import Prompt

Mode = Literal["", "tools", "reasoning"]
MODES: tuple[Mode, ...] = ("", "tools", "reasoning")
_MARK = "#"


def mode_of(prompt: Prompt) -> Mode:
    """Return how a request calls a model: with tools, with reasoning asked for, or plainly."""
    if prompt.tools:
        return "tools"
    return "reasoning" if prompt.reasoning else ""


def arm_of(model: str, mode: str) -> str:
    """Return the arm's name: `model`, or `model#mode`."""
    return f"{model}{_MARK}{mode}" if mode else model


def model_of(arm: str) -> str:
    """Return the model of an arm."""
    return arm.partition(_MARK)[0]
