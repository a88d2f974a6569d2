"""Rules: conditions that the operator wrote, and which of them a request meets first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from sophia.routing.nouns import Features

Operator = Literal["<", "<=", ">", ">=", "==", "in"]

NUMBERS: Mapping[str, Callable[[Features], float]] = {
    "complexity": lambda features: features.complexity,
    "latency_requirement": lambda features: features.max_latency_ms,
    "chars": lambda features: features.chars,
    "prompt_tokens": lambda features: features.prompt_tokens,
    "turns": lambda features: features.turns,
}
WORDS: Mapping[str, Callable[[Features], str]] = {
    "task_type": lambda features: features.task_type,
    "language": lambda features: features.language,
}
FLAGS: Mapping[str, Callable[[Features], bool]] = {
    "cost_sensitive": lambda features: features.cost_sensitive,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of a feature: numbers against `bound`, words and flags against `values`."""

    key: str
    operator: Operator
    bound: float = 0.0
    values: frozenset[str | bool] = frozenset()

    def holds(self, features: Features) -> bool:
        """Say whether `features` meet the condition; an undeclared latency meets none."""
        if self.operator == "in":
            read = WORDS.get(self.key)
            return (read(features) if read else FLAGS[self.key](features)) in self.values
        if self.key == "latency_requirement" and not features.latency_declared:
            return False
        return compare(NUMBERS[self.key](features), self.operator, self.bound)


def compare(value: float, operator: Operator, bound: float) -> bool:
    """Return `value operator bound`."""
    if operator == "<":
        return value < bound
    if operator == "<=":
        return value <= bound
    if operator == ">":
        return value > bound
    if operator == ">=":
        return value >= bound
    return value == bound


@dataclass(frozen=True, slots=True)
class Rule:
    """When every condition holds, try `preferred_models` in order, and `fallback` last."""

    name: str
    conditions: tuple[Condition, ...]
    preferred_models: tuple[str, ...]
    fallback: str | None = None
    line: int = 0


@dataclass(frozen=True, slots=True)
class RuleBook:
    """Rules in file order; `version` changes with the text they were read from."""

    rules: tuple[Rule, ...] = ()
    version: str = ""

    def named(self, name: str) -> Rule | None:
        """Return the rule called `name`, if there is one."""
        return next((rule for rule in self.rules if rule.name == name), None)


def match(features: Features, book: RuleBook) -> Rule | None:
    """Return the first rule of `book` whose conditions all hold."""
    for rule in book.rules:
        for condition in rule.conditions:
            if not condition.holds(features):
                break
        else:
            return rule
    return None
