"""Coverage of rules: the requests that a rule can match, to find rules that never match."""

import math
from collections.abc import Iterable, Mapping

from sophia.routing.rules.model import NUMERIC_FEATURES, Condition
from sophia.routing.types import TASK_TYPES

_Bound = tuple[float, int]
_Range = tuple[_Bound, _Bound]
"""Lowest and highest value, each with 0 if it is included; else with 1 and -1."""
_Values = frozenset[str | bool]
FeatureRegion = Mapping[str, _Range | _Values]
"""The remaining values of each constrained feature."""

_UNBOUNDED: _Range = ((-math.inf, 1), (math.inf, -1))
_NON_NEGATIVE: _Range = ((0.0, 0), (math.inf, -1))
_INTEGER_FEATURES = frozenset({"latency_requirement", "chars", "prompt_tokens", "turns"})
_FEATURE_DOMAINS: FeatureRegion = {
    "complexity": ((0.0, 0), (1.0, 0)),
    "chars": _NON_NEGATIVE,
    "prompt_tokens": _NON_NEGATIVE,
    "turns": _NON_NEGATIVE,
    # An undeclared latency meets no condition, so no condition covers a rule without one.
    "latency_requirement": ((-1.0, 0), (math.inf, -1)),
    "task_type": frozenset(TASK_TYPES),
    "cost_sensitive": frozenset({True, False}),
}


def build_rule_region(conditions: Iterable[Condition]) -> FeatureRegion | None:
    """Return the region of `conditions`, or None when they contradict each other."""
    region: dict[str, _Range | _Values] = {}
    for condition in conditions:
        key = condition.key
        domain = _NON_NEGATIVE if key == "latency_requirement" else _FEATURE_DOMAINS.get(key)
        before = region.get(key, domain)
        if key in NUMERIC_FEATURES:
            assert isinstance(before, tuple)
            low, high = region[key] = _intersect(before, _to_range(condition))
            if low > high:
                return None
        else:
            values = condition.values
            region[key] = values & before if isinstance(before, frozenset) else values
            if not region[key]:
                return None
    return region


def region_covers(outer: FeatureRegion, inner: FeatureRegion) -> bool:
    """Return whether every request of `inner` is also one of `outer`."""
    for key, allowed in outer.items():
        values = inner.get(key, _FEATURE_DOMAINS.get(key))
        if isinstance(allowed, tuple):
            contained = isinstance(values, tuple) and _intersect(allowed, values) == values
        else:
            contained = isinstance(values, frozenset) and values <= allowed
        if not contained:
            return False
    return True


def _to_range(condition: Condition) -> _Range:
    bound, operator = condition.bound, condition.operator
    low, high = _UNBOUNDED
    if operator in (">", ">=", "=="):
        low = (bound, int(operator == ">"))
    if operator in ("<", "<=", "=="):
        high = (bound, -int(operator == "<"))
    if condition.key in _INTEGER_FEATURES:
        # The ends become whole numbers, so that "<6" and ">5" leave nothing between.
        if math.isfinite(low[0]):
            low = (math.floor(low[0]) + 1 if low[1] else math.ceil(low[0]), 0)
        if math.isfinite(high[0]):
            high = (math.ceil(high[0]) - 1 if high[1] else math.floor(high[0]), 0)
    return low, high


def _intersect(one: _Range, other: _Range) -> _Range:
    return max(one[0], other[0]), min(one[1], other[1])
