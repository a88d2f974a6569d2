"""The policy of the first day: a table from task, complexity and length to a role."""

from collections.abc import Callable, Iterable, Sequence

from sophia.routing.chains import CHAINS
from sophia.routing.nouns import Features
from sophia.routing.optimizer import Offer

LONG_CHARS = 50_000


def choose_role(features: Features) -> tuple[str, str]:
    """Return the role that should answer, and the sentence that says why."""
    complexity = features.complexity
    if features.task_type == "coding":
        if complexity > 0.7:
            return "code", f"Demanding code (complexity {complexity:.2f}) goes to the code model."
        return (
            "code specialist",
            f"Everyday code (complexity {complexity:.2f}) goes to the code specialist.",
        )
    if features.task_type == "analysis":
        return _analyst(features)
    if features.task_type == "creative":
        return "creative", "Creative writing goes to the creative model."
    if complexity < 0.3:
        return (
            "fallback",
            f"A simple question (complexity {complexity:.2f}) goes to the small model.",
        )
    if complexity < 0.6:
        return "fast", f"A middling question (complexity {complexity:.2f}) goes to the fast model."
    return (
        "european",
        f"A demanding general question (complexity {complexity:.2f}) goes to the European model.",
    )


def lineup(
    role: str, of_role: Callable[[str], Offer | None], ranked: Sequence[Offer]
) -> list[Offer]:
    """Return the offers in the order of the table, of those that pay for an expected answer.

    First that of `role`, then who steps in for it, then all as they are `ranked`.
    """
    first = [of_role(name) for name in (role, *CHAINS.get(role, ()))]
    offers = [*(offer for offer in first if offer is not None), *ranked]
    return [offer for offer in distinct(offers) if offer.pays]


def distinct(offers: Iterable[Offer]) -> list[Offer]:
    """Return the offers without repeats, in their order."""
    return list({offer.seat.id: offer for offer in offers}.values())


def _analyst(features: Features) -> tuple[str, str]:
    if features.chars > LONG_CHARS:
        return (
            "long context",
            f"A long analysis ({features.chars:,} characters) goes to the long-context model.",
        )
    if features.complexity > 0.8:
        return (
            "complex reasoning",
            f"A hard analysis (complexity {features.complexity:.2f}) goes to the best reasoner.",
        )
    return (
        "fast",
        f"A usual analysis (complexity {features.complexity:.2f}) goes to the fast model.",
    )
