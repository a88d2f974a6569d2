"""The policy of the first day: a table from task, complexity and length to a role."""

from sophia.routing.nouns import Features

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
