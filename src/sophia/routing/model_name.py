"""Names in the `model` field: a choice by Sophia, or a model."""

from msgspec.structs import replace

from sophia.routing.types import Hints, Tradeoff

MODEL_PREFIX = "sophia/"
AUTO_MODEL = "sophia/auto"
TRADEOFFS: tuple[Tradeoff, ...] = ("cheap", "fast", "best", "balanced")
LEARNED_POLICY = "learned"
POLICIES = ("heuristic", LEARNED_POLICY, "cheap", "fast", "best")


def is_route_name(model: str) -> bool:
    """Return whether the choice of the model is left to Sophia."""
    return model.startswith(MODEL_PREFIX)


def apply_model_name(model: str, hints: Hints) -> Hints:
    """Return `hints` with the trade-off, policy or rule that a `sophia/…` name asks for."""
    if model == AUTO_MODEL or not is_route_name(model):
        return hints
    name, _, suffix = model[len(MODEL_PREFIX) :].partition(":")
    if name == "auto":
        if not suffix:
            return hints
        if suffix in TRADEOFFS:
            return replace(hints, tradeoff=suffix)
        name = f"auto:{suffix}"
    if name in POLICIES:
        return replace(hints, policy=name)
    return replace(hints, rule=name)
