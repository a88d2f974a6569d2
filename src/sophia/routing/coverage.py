"""Which requests a rule can match at all, so that a rule nobody will ever meet is found early."""

import math
from collections.abc import Iterable, Mapping

from sophia.routing.nouns import TASK_TYPES
from sophia.routing.rules import NUMBERS, Condition, Rule

Span = tuple[float, bool, float, bool]
Region = Mapping[str, Span | frozenset[str | bool]]
"""Per feature: lowest value, whether it is excluded, highest, whether it is; or the values."""

_INTEGERS = frozenset({"latency_requirement", "chars", "prompt_tokens", "turns"})
_DOMAINS: Mapping[str, Span | frozenset[str | bool]] = {
    "complexity": (0.0, False, 1.0, False),
    "chars": (0.0, False, math.inf, True),
    "prompt_tokens": (0.0, False, math.inf, True),
    "turns": (0.0, False, math.inf, True),
    # An undeclared latency meets no condition, so nothing covers a rule that does not ask for one.
    "latency_requirement": (-1.0, False, math.inf, True),
    "task_type": frozenset(TASK_TYPES),
    "cost_sensitive": frozenset({True, False}),
}


def region(conditions: Iterable[Condition]) -> Region | None:
    """Return what `conditions` leave of each feature, or None when they contradict each other."""
    found: dict[str, Span | frozenset[str | bool]] = {}
    for condition in conditions:
        key = condition.key
        if key in NUMBERS:
            start = (0.0, False, math.inf, True) if key == "latency_requirement" else _DOMAINS[key]
            before = found.get(key, start)
            assert isinstance(before, tuple)
            span = _meet(before, _span(condition))
            if _empty(span):
                return None
            found[key] = span
        else:
            values = found.get(key, _DOMAINS.get(key))
            left = condition.values & values if isinstance(values, frozenset) else condition.values
            if not left:
                return None
            found[key] = left
    return found


def covers(earlier: Region, later: Region) -> bool:
    """Say whether every request of `later` is also one of `earlier`."""
    for key, outer in earlier.items():
        inner = later.get(key, _DOMAINS.get(key))
        if isinstance(outer, tuple) and isinstance(inner, tuple):
            if _meet(outer, inner) != inner:
                return False
        elif not (isinstance(outer, frozenset) and isinstance(inner, frozenset) and inner <= outer):
            return False
    return True


def shadow(rule: Rule, earlier: Iterable[Rule]) -> Rule | None:
    """Return the first of the `earlier` rules that takes everything `rule` could match."""
    own = region(rule.conditions)
    for other in earlier:
        outer = region(other.conditions)
        if own is not None and outer is not None and covers(outer, own):
            return other
    return None


def _span(condition: Condition) -> Span:
    bound, operator = condition.bound, condition.operator
    if condition.key in _INTEGERS:
        return _whole_span(operator, bound)
    if operator in ("<", "<="):
        return (-math.inf, True, bound, operator == "<")
    if operator in (">", ">="):
        return (bound, operator == ">", math.inf, True)
    return (bound, False, bound, False)


def _whole_span(operator: str, bound: float) -> Span:
    """Return the span with its ends on whole numbers, where "<6" and ">5" leave nothing between."""
    if operator in ("<", "<="):
        high = math.ceil(bound) - 1 if operator == "<" else math.floor(bound)
        return (-math.inf, True, high, False)
    if operator in (">", ">="):
        low = math.floor(bound) + 1 if operator == ">" else math.ceil(bound)
        return (low, False, math.inf, True)
    return (math.ceil(bound), False, math.floor(bound), False)


def _meet(one: Span, other: Span) -> Span:
    low, low_open = max((one[0], one[1]), (other[0], other[1]))
    high, closed = min((one[2], not one[3]), (other[2], not other[3]))
    return (low, low_open, high, not closed)


def _empty(span: Span) -> bool:
    low, low_open, high, high_open = span
    return low > high or (low == high and (low_open or high_open))
