"""Arm names: a model in one call mode, since a model may be good in one and bad in another.

An arm's name is `model`, or `model#call:effort@providers` with the parts that differ from the
default: `acme/one#tools`, `acme/one#reasoning:high`, `acme/one#@price`.
"""

from collections.abc import Iterator

from sophia.routing.types import Prompt

CALL_KINDS = ("", "tools", "reasoning")
_MODE_SEPARATOR, _EFFORT_SEPARATOR, _PROVIDERS_SEPARATOR = "#", ":", "@"


def build_call_mode(prompt: Prompt) -> str:
    """Return the call mode of a request: the call, the effort and the choice of providers."""
    mode = "tools" if prompt.tools else "reasoning" if prompt.reasoning else ""
    if prompt.reasoning_effort:
        mode = f"{mode}{_EFFORT_SEPARATOR}{prompt.reasoning_effort}"
    if prompt.provider_preference:
        mode = f"{mode}{_PROVIDERS_SEPARATOR}{prompt.provider_preference}"
    return mode


def format_arm(model: str, mode: str) -> str:
    """Return the arm's name: `model`, or `model#mode`."""
    return f"{model}{_MODE_SEPARATOR}{mode}" if mode else model


def strip_call_mode(arm: str) -> str:
    """Return the model of an arm."""
    return arm.partition(_MODE_SEPARATOR)[0]


def list_less_specific_arms(arm: str) -> Iterator[str]:
    """Yield the less specific arms of the same call, the closest first.

    The call itself is kept: tool calls and plain text are different skills.
    """
    model, _, mode = arm.partition(_MODE_SEPARATOR)
    for part in (_PROVIDERS_SEPARATOR, _EFFORT_SEPARATOR):
        mode, separator, _ = mode.partition(part)
        if separator:
            yield format_arm(model, mode)


def strip_effort(arm: str) -> str:
    """Return the arm of the same call, whatever the effort and the providers."""
    return [arm, *list_less_specific_arms(arm)][-1]


def is_arm_variant(arm: str) -> bool:
    """Return whether an arm's name holds an effort or a choice of providers."""
    return _MODE_SEPARATOR in arm and next(list_less_specific_arms(arm), None) is not None
