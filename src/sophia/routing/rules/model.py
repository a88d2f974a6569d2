"""Routing rules of the operator, and the first one that a request matches."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sophia.core.errors import UnknownModel
from sophia.routing.model_name import AUTO_MODEL, MODEL_PREFIX, POLICIES, TRADEOFFS
from sophia.routing.types import Features, Hints

COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}

NUMERIC_FEATURES = ("complexity", "latency_requirement", "chars", "prompt_tokens", "turns")
STRING_FEATURES = ("task_type", "language")
BOOLEAN_FEATURES = ("cost_sensitive",)
_FIELDS = {"latency_requirement": "max_latency_ms"}
"""Fields of `Features` with another name than in the rules file."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of a feature: numbers against `bound`, words and flags `in` a set of `values`."""

    key: str
    operator: str
    bound: float = 0.0
    values: frozenset[str | bool] = frozenset()

    def holds(self, features: Features) -> bool:
        """Return whether `features` meet the condition; an undeclared latency meets none."""
        value = getattr(features, _FIELDS.get(self.key, self.key))
        if self.operator == "in":
            return value in self.values
        if self.key == "latency_requirement" and not features.latency_declared:
            return False
        return COMPARISONS[self.operator](value, self.bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Models for requests that meet every condition: the preferred in order, then `fallback`."""

    name: str
    conditions: tuple[Condition, ...]
    preferred_models: tuple[str, ...]
    fallback: str | None = None
    line: int = 0

    def matches(self, features: Features) -> bool:
        """Return whether every condition holds."""
        for condition in self.conditions:  # noqa: SIM110 - on every request's path, and twice as fast
            if not condition.holds(features):
                return False
        return True


@dataclass(frozen=True, slots=True)
class RuleBook:
    """Rules in file order; `version` changes with the text they were read from.

    `bundled` rules came with the package: they apply where they are asked for by name.
    """

    rules: tuple[Rule, ...] = ()
    version: str = ""
    bundled: bool = False


def find_rule(rulebook: RuleBook, hints: Hints, features: Features) -> Rule | None:
    """Return the rule that decides: the one asked for, else the first whose conditions all hold.

    None when no rule matches, or a policy is asked for. Raises UnknownModel for an unknown name.
    """
    if hints.rule is None:
        if hints.policy or rulebook.bundled:
            return None
        for rule in rulebook.rules:
            if rule.matches(features):
                return rule
        return None
    asked_for = next((rule for rule in rulebook.rules if rule.name == hints.rule), None)
    if asked_for is None:
        names = [AUTO_MODEL, *(f"{AUTO_MODEL}:{name}" for name in TRADEOFFS)]
        names += [f"{MODEL_PREFIX}{name}" for name in POLICIES]
        names += [f"{MODEL_PREFIX}{known.name}" for known in rulebook.rules]
        raise UnknownModel(
            f"There is no {MODEL_PREFIX + hints.rule!r}. "
            f"Sophia's own names are: {', '.join(sorted(names))}.",
            param="model",
        )
    return asked_for
