"""What the `model` field asks for: a choice by Sophia, or a model by name."""

from dataclasses import dataclass

from sophia.routing.nouns import Hints, Tradeoff

PREFIX = "sophia/"
AUTO = "sophia/auto"
TRADEOFFS: tuple[Tradeoff, ...] = ("cheap", "fast", "best", "balanced")


@dataclass(frozen=True, slots=True)
class Target:
    """A request for Sophia's own choice, with the trade-off, rule or policy its name implies."""

    tradeoff: Tradeoff | None = None
    name: str | None = None

    def apply(self, hints: Hints, policies: tuple[str, ...]) -> Hints:
        """Return `hints` with what the name adds; `policies` are the policies there are."""
        if self.tradeoff is not None:
            return hints._replace(tradeoff=self.tradeoff)
        if self.name is None:
            return hints
        if self.name in policies:
            return hints._replace(policy=self.name)
        return hints._replace(rule=self.name)


def parse(model: str) -> Target | None:
    """Return what a `sophia/…` name asks for, or None for a catalogue id."""
    if not model.startswith(PREFIX):
        return None
    name, _, suffix = model[len(PREFIX) :].partition(":")
    if name == "auto":
        if suffix in TRADEOFFS:
            return Target(tradeoff=suffix)
        return Target() if not suffix else Target(name=f"auto:{suffix}")
    return Target(name=name)
