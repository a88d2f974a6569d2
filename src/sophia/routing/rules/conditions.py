"""Conditions of the rules file, decoded from YAML."""

import re

import yaml

from sophia.routing.rules.model import (
    BOOLEAN_FEATURES,
    NUMERIC_FEATURES,
    STRING_FEATURES,
    Condition,
)
from sophia.routing.types import TASK_TYPES

_COMPARISON = re.compile(r"(<=|>=|==|<|>)\s*([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(ms|s)?")
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_TRUE, _FALSE = frozenset({"true", "yes", "on"}), frozenset({"false", "no", "off"})
_EXPECTED_FORMATS = {
    "complexity": 'a comparison with 0 to 1, such as ">0.7"',
    "latency_requirement": 'a comparison in ms or s, such as "<1000ms"',
    "task_type": f"one of {', '.join(TASK_TYPES)}",
    "language": "an ISO 639-1 code such as `de`",
}
_NUMBER_FORMAT = 'a comparison with a whole number, such as ">=50000"'


class ConditionError(Exception):
    """An invalid condition; `node` is the part at fault."""

    def __init__(self, problem: str, expected: str, node: yaml.Node) -> None:
        self.problem = problem
        self.expected = expected
        self.node = node
        super().__init__(problem)


def parse_condition(key: str, node: yaml.Node) -> list[Condition]:
    """Return the conditions that `key: node` stands for; several comparisons must all hold.

    Raises:
        ConditionError: there is no such feature, or it cannot be compared like that.
    """
    if key in NUMERIC_FEATURES:
        return [_parse_comparison(key, item) for item in _list_items(node)]
    if key in STRING_FEATURES:
        words = frozenset[str | bool](_parse_word(key, item) for item in _list_items(node))
        return [Condition(key, "in", values=words)]
    if key in BOOLEAN_FEATURES:
        return [Condition(key, "in", values=frozenset({_parse_flag(key, node)}))]
    known = ", ".join([*NUMERIC_FEATURES, *STRING_FEATURES, *BOOLEAN_FEATURES])
    raise ConditionError(f"there is no condition {key[:100]!r}", f"one of {known}", node)


def _list_items(node: yaml.Node) -> list[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode):
        return [node]
    if not node.value:
        raise ConditionError("the list is empty", "at least one value", node)
    return list(node.value)


def _scalar_text(node: yaml.Node) -> str:
    # The text as written: YAML would read the language `no` as False.
    return str(node.value).strip() if isinstance(node, yaml.ScalarNode) else ""


def _parse_comparison(key: str, node: yaml.Node) -> Condition:
    expected = _EXPECTED_FORMATS.get(key, _NUMBER_FORMAT)
    text = _scalar_text(node)
    match = _COMPARISON.fullmatch(text)
    if match is None:
        raise ConditionError(f"{key} is not a comparison: {text[:60]!r}", expected, node)
    operator, number, unit = match.groups()
    if (unit is not None) != (key == "latency_requirement"):
        problem = f"{key} has no unit" if unit is None else f"{key} takes no unit"
        raise ConditionError(problem, expected, node)
    bound = float(number) * (1000 if unit == "s" else 1)
    if key == "complexity" and bound > 1:
        raise ConditionError("complexity is between 0 and 1", expected, node)
    return Condition(key, operator, bound)


def _parse_word(key: str, node: yaml.Node) -> str:
    word = _scalar_text(node)
    if not (word in TASK_TYPES if key == "task_type" else _LANGUAGE.fullmatch(word)):
        problem = f"{word[:60]!r} is not a {key.replace('_', ' ')}"
        raise ConditionError(problem, _EXPECTED_FORMATS[key], node)
    return word


def _parse_flag(key: str, node: yaml.Node) -> bool:
    word = _scalar_text(node).lower()
    if word not in _TRUE | _FALSE:
        raise ConditionError(f"{key} is neither true nor false", "`true` or `false`", node)
    return word in _TRUE
