"""Reading `routing-rules.yaml`: every mistake is told with its line and the form expected."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import yaml

from sophia.routing.conditions import ConditionError, read_condition
from sophia.routing.coverage import region, shadow
from sophia.routing.request import POLICIES
from sophia.routing.rules import Condition, Rule, RuleBook

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
_RULE_KEYS = ("name", "conditions", "preferred_models", "fallback")
_RESERVED = frozenset({"auto", *POLICIES})
_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")

Known = Callable[[str], str | None]
Nearest = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class RuleError:
    """One mistake: the line it stands on (from 1), what is wrong, and the form expected."""

    line: int
    problem: str
    expected: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.problem}; expected {self.expected}"


class RuleBookError(Exception):
    """The rules cannot be used; `errors` lists every mistake in the order of lines."""

    def __init__(self, errors: Sequence[RuleError]) -> None:
        self.errors = tuple(sorted(errors, key=lambda error: error.line))
        super().__init__("\n".join(str(error) for error in self.errors))


def parse(text: str, known: Known, nearest: Nearest | None = None) -> RuleBook:
    """Return the rules in `text`.

    Args:
        text: a rules file, in YAML.
        known: returns the id of the model that a name stands for, or None.
        nearest: returns ids that look like an unknown name, to help with a typing error.

    Raises:
        RuleBookError: the text is no YAML, or not the YAML of a rule book.
    """
    root = _compose(text)
    reading = _Reading(known, nearest)
    rules = reading.rules(root)
    reading.bury(rules)
    if reading.errors:
        raise RuleBookError(reading.errors)
    return RuleBook(tuple(rules), hashlib.sha256(text.encode()).hexdigest()[:16])


def _compose(text: str) -> yaml.Node:
    if len(text) > MAX_BYTES or len(text.encode(errors="replace")) > MAX_BYTES:
        raise RuleBookError(
            [RuleError(1, "the file is too large", f"at most {MAX_BYTES // 1024} kB")]
        )
    try:
        _inspect(text)
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RuleBookError(
            [
                RuleError(
                    mark.line + 1 if mark else 1,
                    f"not YAML: {error.problem or error.context}",
                    "YAML",
                )
            ]
        ) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        problem = f"not YAML: {str(error).splitlines()[0]}"
        raise RuleBookError([RuleError(1, problem, "YAML in plain text")]) from None
    if root is None:
        raise RuleBookError([RuleError(1, "the file is empty", "`rules:` and a list")])
    return root


def _inspect(text: str) -> None:
    """Refuse what makes small files large: aliases, and nesting that no rule needs."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise RuleBookError([RuleError(line, "anchors and aliases", "each rule written out")])
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise RuleBookError([RuleError(line, "nested too deep", "a flat list of rules")])
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Reading:
    """One pass over the nodes of a file, collecting mistakes instead of stopping at the first."""

    def __init__(self, known: Known, nearest: Nearest | None) -> None:
        self._known = known
        self._nearest = nearest
        self.errors: list[RuleError] = []

    def rules(self, root: yaml.Node) -> list[Rule]:
        """Return the rules that could be read."""
        top = self._mapping(root, ("rules",), "`rules:` and a list")
        listed = top.get("rules")
        if listed is None:
            if isinstance(root, yaml.MappingNode):
                self._wrong(root, "there is no `rules` key", "`rules:` and a list")
            return []
        if not isinstance(listed, yaml.SequenceNode):
            self._wrong(listed, "`rules` is not a list", "one `- name:` for each rule, or `[]`")
            return []
        rules: list[Rule] = []
        names: dict[str, int] = {}
        for node in listed.value:
            rule = self._rule(node)
            if rule is None:
                continue
            if rule.name in names:
                self._wrong(
                    node,
                    f"the name {rule.name!r} was used on line {names[rule.name]}",
                    "a name of its own",
                )
            names.setdefault(rule.name, rule.line)
            rules.append(rule)
        return rules

    def bury(self, rules: Sequence[Rule]) -> None:
        """Report the rules that no request can ever meet."""
        for index, rule in enumerate(rules):
            if region(rule.conditions) is None:
                problem = (
                    f"rule {rule.name!r} can never match: its conditions contradict each other"
                )
                self.errors.append(
                    RuleError(rule.line, problem, "conditions that can hold together")
                )
                continue
            above = shadow(rule, rules[:index])
            if above is not None:
                problem = (
                    f"rule {rule.name!r} can never match: "
                    f"{above.name!r} on line {above.line} takes all of it"
                )
                self.errors.append(
                    RuleError(rule.line, problem, f"it above {above.name!r}, or other conditions")
                )

    def _rule(self, node: yaml.Node) -> Rule | None:
        fields = self._mapping(
            node, _RULE_KEYS, "a rule with name, conditions, preferred_models, fallback"
        )
        if not isinstance(node, yaml.MappingNode):
            return None
        before = len(self.errors)
        name = self._name(fields.get("name"), node)
        conditions = self._conditions(fields.get("conditions"))
        preferred = self._models(fields.get("preferred_models"), node)
        last = fields.get("fallback")
        fallback = self._model(last) if last is not None else None
        if len(self.errors) > before:
            return None
        return Rule(name, conditions, preferred, fallback, node.start_mark.line + 1)

    def _name(self, node: yaml.Node | None, rule: yaml.Node) -> str:
        expected = "a name such as `code-generation`: small letters, digits, - _ . (at most 64)"
        if node is None:
            self._wrong(rule, "the rule has no name", expected)
            return ""
        name = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
        if not name or len(name) > 64 or not _NAME_CHARS.issuperset(name):
            self._wrong(node, "that is not a rule's name", expected)
        elif name in _RESERVED:
            self._wrong(node, f"the name {name!r} is Sophia's own", "another name")
        return name

    def _conditions(self, node: yaml.Node | None) -> tuple[Condition, ...]:
        if node is None:
            return ()
        found: list[Condition] = []
        for key, value in self._mapping(
            node, None, "conditions such as `task_type: coding`"
        ).items():
            try:
                found.extend(read_condition(key, value))
            except ConditionError as error:
                self._wrong(error.node or value, error.problem, error.expected)
        return tuple(found)

    def _models(self, node: yaml.Node | None, rule: yaml.Node) -> tuple[str, ...]:
        expected = "a list with at least one model id"
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self._wrong(node or rule, "`preferred_models` is missing or no list", expected)
            return ()
        found: list[str] = []
        for item in node.value:
            model = self._model(item)
            if model in found:
                self._wrong(item, f"{model} is listed twice", "each model once")
            elif model is not None:
                found.append(model)
        return tuple(found)

    def _model(self, node: yaml.Node) -> str | None:
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            self._wrong(node, "that is not a model's name", "an id such as `openai/gpt-4o-mini`")
            return None
        model = self._known(node.value)
        if model is None:
            near = self._nearest(node.value) if self._nearest else ()
            expected = f"perhaps {' or '.join(near)}" if near else "an id from `sophia models`"
            self._wrong(node, f"no model is called {node.value[:100]!r}", expected)
        return model

    def _mapping(
        self, node: yaml.Node, allowed: Sequence[str] | None, expected: str
    ) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self._wrong(node, "that is not a mapping", expected)
            return {}
        found: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
            if allowed is not None and key not in allowed:
                self._wrong(key_node, f"unknown key {key[:100]!r}", f"one of {', '.join(allowed)}")
            elif key in found:
                self._wrong(key_node, f"{key!r} stands here twice", "each key once")
            else:
                found[key] = value
        return found

    def _wrong(self, node: yaml.Node, problem: str, expected: str) -> None:
        self.errors.append(RuleError(node.start_mark.line + 1, problem, expected))
