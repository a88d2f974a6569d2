"""Who steps in when the first choice fails, by the role of the first choice."""

from collections.abc import Iterable, Mapping

CHAINS: Mapping[str, tuple[str, ...]] = {
    "complex reasoning": ("european", "fast", "fallback"),
    "code": ("code specialist", "complex reasoning", "fallback"),
    "long context": ("complex reasoning", "fast", "fallback"),
}


def cut(order: Iterable[str], last: str | None, length: int) -> list[str]:
    """Return at most `length` models of `order` without repeats, ending with `last` if it is named.

    With room for a single attempt the first choice stands, not the last resort.
    """
    chain: list[str] = []
    for model in order:
        if model not in chain and (model != last or not chain):
            chain.append(model)
    if last is None or length < 2 or chain[:1] == [last]:
        return chain[:length]
    return [*chain[: length - 1], last]
