"""Arms: a model in one way of calling it, since a model may shine in one and fail in another.

An arm's name is `model`, or `model#call:effort@providers` with the parts that are not usual:
`acme/one#tools`, `acme/one#reasoning:high`, `acme/one#@price`.
"""

from collections.abc import Iterator
from typing import Literal

from sophia.routing.nouns import Prompt

Call = Literal["", "tools", "reasoning"]
CALLS: tuple[Call, ...] = ("", "tools", "reasoning")
_MARK, _EFFORT, _PROVIDERS = "#", ":", "@"


def mode_of(prompt: Prompt) -> str:
    """Return how a request calls a model: the call, the effort and the choice of providers."""
    call: Call = "tools" if prompt.tools else "reasoning" if prompt.reasoning else ""
    mode = f"{call}{_EFFORT}{prompt.effort}" if prompt.effort else call
    return f"{mode}{_PROVIDERS}{prompt.providers}" if prompt.providers else mode


def arm_of(model: str, mode: str) -> str:
    """Return the arm's name: `model`, or `model#mode`."""
    return f"{model}{_MARK}{mode}" if mode else model


def model_of(arm: str) -> str:
    """Return the model of an arm."""
    return arm.partition(_MARK)[0]


def relatives(arm: str) -> Iterator[str]:
    """Yield the arms that are like one in more particulars, the nearest first.

    The call itself is kept: how a model calls tools says little of how it writes.
    """
    model, _, mode = arm.partition(_MARK)
    for part in (_PROVIDERS, _EFFORT):
        mode, cut, _ = mode.partition(part)
        if cut:
            yield arm_of(model, mode)


def usual(arm: str) -> str:
    """Return the arm of the same call, whatever the effort and the providers."""
    return [arm, *relatives(arm)][-1]


def is_particular(arm: str) -> bool:
    """Return whether an arm's name tells more than the call."""
    mode = arm.partition(_MARK)[2]
    return _EFFORT in mode or _PROVIDERS in mode
