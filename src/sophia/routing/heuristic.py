"""Heuristic policy: a table from task, complexity and length to a role, and its fallbacks."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from sophia.routing.quotes import Quote
from sophia.routing.types import Features

LONG_CONTEXT_CHARS = 50_000

FALLBACK_ROLES: Mapping[str, tuple[str, ...]] = {
    "complex reasoning": ("code", "fast", "fallback"),
    "code": ("code specialist", "complex reasoning", "fallback"),
    "long context": ("complex reasoning", "fast", "fallback"),
}


def choose_model_role(features: Features) -> tuple[str, str]:  # noqa: PLR0911 - a row of the table each
    """Return the role that should answer, and a sentence with the reason."""
    complexity, task = features.complexity, features.task_type
    level = f"(complexity {complexity:.2f})"
    if task == "coding":
        if complexity > 0.7:
            return "code", f"Demanding code {level} goes to the code model."
        return "code specialist", f"Everyday code {level} goes to the code specialist."
    if task == "analysis":
        if features.chars > LONG_CONTEXT_CHARS:
            reason = (
                f"A long analysis ({features.chars:,} characters) goes to the long-context model."
            )
            return "long context", reason
        if complexity > 0.8:
            return "complex reasoning", f"A hard analysis {level} goes to the best reasoner."
        return "fast", f"An ordinary analysis {level} goes to the fast model."
    if task == "creative":
        return "creative", "Creative writing goes to the creative model."
    if complexity < 0.3:
        return "fallback", f"A simple question {level} goes to the small model."
    if complexity < 0.6:
        return "fast", f"An ordinary question {level} goes to the fast model."
    return "complex reasoning", f"A demanding question {level} goes to the best reasoner."


def order_quotes(
    role: str, find_by_role: Callable[[str], Quote | None], ranked: Sequence[Quote]
) -> list[Quote]:
    """Return the quotes that cover an expected answer, in the order of the table.

    First the one of `role`, then those of its fallback roles, then all as `ranked`.
    """
    first: dict[str, Quote] = {}
    for name in (role, *FALLBACK_ROLES.get(role, ())):
        quote = find_by_role(name)
        if quote is not None and quote.covers_expected:
            first[quote.pool_model.id] = quote
    others = [one for one in ranked if one.covers_expected and one.pool_model.id not in first]
    return [*first.values(), *others]


def truncate_chain(order: Iterable[str], last_resort: str | None, length: int) -> list[str]:
    """Return at most `length` models of `order` without repeats, ending with `last_resort`.

    With room for a single attempt the first choice stands, not the last resort.
    """
    chain: list[str] = []
    for model in order:
        if len(chain) >= length:
            break
        if model not in chain and (model != last_resort or not chain):
            chain.append(model)
    if last_resort is None or length < 2 or chain[:1] == [last_resort]:
        return chain[:length]
    return [*chain[: length - 1], last_resort]
