"""The forms a condition may take in the rules file."""

import re

import yaml

from sophia.routing.nouns import TASK_TYPES
from sophia.routing.rules import FLAGS, NUMBERS, WORDS, Condition, Operator

_COMPARISON = re.compile(r"(<=|>=|==|<|>)\s*([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(ms|s)?")
_OPERATORS: dict[str, Operator] = {"<": "<", "<=": "<=", ">": ">", ">=": ">=", "==": "=="}
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_TRUE, _FALSE = frozenset({"true", "yes", "on"}), frozenset({"false", "no", "off"})
_FORMS = {
    "complexity": 'a comparison with 0 to 1, such as ">0.7"',
    "latency_requirement": 'a comparison in ms or s, such as "<1000ms"',
}
_NUMBER_FORM = 'a comparison with a whole number, such as ">=50000"'


class ConditionError(Exception):
    """A condition that cannot be read; `node` is the part at fault, where it is known."""

    def __init__(self, problem: str, expected: str, node: yaml.Node | None = None) -> None:
        self.problem = problem
        self.expected = expected
        self.node = node
        super().__init__(problem)


def read_condition(key: str, node: yaml.Node) -> list[Condition]:
    """Return the conditions that `key: node` stands for; several comparisons must all hold.

    Raises:
        ConditionError: there is no such feature, or it cannot be compared like that.
    """
    if key in NUMBERS:
        return [_comparison(key, item) for item in _items(node)]
    if key in WORDS:
        values = frozenset(_word(key, item) for item in _items(node))
        return [Condition(key, "in", values=frozenset[str | bool](values))]
    if key in FLAGS:
        return [Condition(key, "in", values=frozenset({_flag(key, node)}))]
    known = ", ".join([*NUMBERS, *WORDS, *FLAGS])
    raise ConditionError(f"there is no condition {key[:100]!r}", f"one of {known}")


def _items(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        if not node.value:
            raise ConditionError("the list is empty", "at least one value", node)
        return list(node.value)
    return [node]


def _comparison(key: str, node: yaml.Node) -> Condition:
    expected = _FORMS.get(key, _NUMBER_FORM)
    text = str(node.value).strip() if isinstance(node, yaml.ScalarNode) else ""
    found = _COMPARISON.fullmatch(text)
    if found is None:
        raise ConditionError(f"{key} is no comparison: {text[:60]!r}", expected, node)
    operator, number, unit = found.groups()
    if (unit is not None) != (key == "latency_requirement"):
        problem = f"{key} has no unit" if unit is None else f"{key} takes no unit"
        raise ConditionError(problem, expected, node)
    bound = float(number) * (1000 if unit == "s" else 1)
    if key == "complexity" and bound > 1:
        raise ConditionError("complexity runs from 0 to 1", expected, node)
    return Condition(key, _OPERATORS[operator], bound)


def _word(key: str, node: yaml.Node) -> str:
    # The text as it stands: YAML would read the language `no` as False.
    word = str(node.value).strip() if isinstance(node, yaml.ScalarNode) else ""
    if key == "task_type" and word not in TASK_TYPES:
        raise ConditionError(
            f"{word[:60]!r} is no task type", f"one of {', '.join(TASK_TYPES)}", node
        )
    if key == "language" and not _LANGUAGE.fullmatch(word):
        raise ConditionError(
            f"{word[:60]!r} is no language", "an ISO 639-1 code such as `de`", node
        )
    return word


def _flag(key: str, node: yaml.Node) -> bool:
    word = str(node.value).lower() if isinstance(node, yaml.ScalarNode) else ""
    if word not in _TRUE | _FALSE:
        raise ConditionError(f"{key} is neither true nor false", "`true` or `false`", node)
    return word in _TRUE
