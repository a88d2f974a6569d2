"""The parser of `routing-rules.yaml`: every error has its line and the expected form."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import yaml

from sophia.catalogue.catalogue import Catalogue
from sophia.routing.model_name import POLICIES
from sophia.routing.rules.conditions import ConditionError, parse_condition
from sophia.routing.rules.coverage import FeatureRegion, build_rule_region, region_covers
from sophia.routing.rules.model import Condition, Rule, RuleBook

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
_RULE_KEYS = ("name", "conditions", "preferred_models", "fallback")
_RESERVED = frozenset({"auto", *POLICIES})
_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")

ModelResolver = Callable[[str], str | None]
ModelSuggester = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class RuleProblem:
    """One error: its line (from 1), the problem, and the expected form."""

    line: int
    problem: str
    expected: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.problem}; expected {self.expected}"


class RuleBookError(Exception):
    """Invalid rules; `errors` lists every error in the order of lines."""

    def __init__(self, *errors: RuleProblem) -> None:
        self.errors = tuple(sorted(errors, key=lambda error: error.line))
        super().__init__("\n".join(str(error) for error in self.errors))


def read_rules(text: str, catalogue: Catalogue) -> RuleBook:
    """Return the rules in `text`, with the names of models resolved. Raises RuleBookError."""

    def resolve(name: str) -> str | None:
        resolved = catalogue.resolve(name)
        return resolved.model.id if resolved is not None else None

    return parse_rules(text, resolve, catalogue.similar_ids)


def parse_rules(
    text: str, resolve: ModelResolver, suggest: ModelSuggester = lambda _: ()
) -> RuleBook:
    """Return the rules in `text`, which is YAML.

    `resolve` returns the id of the model that a name stands for, or None, `suggest` similar ids.

    Raises:
        RuleBookError: the text is not YAML, or not a valid rule book.
    """
    root = _load_yaml(text)
    parser = _RuleParser(resolve, suggest)
    rules = parser.parse_rules(root)
    parser.report_unreachable(rules)
    if parser.errors:
        raise RuleBookError(*parser.errors)
    return RuleBook(tuple(rules), hashlib.sha256(text.encode()).hexdigest()[:16])


def _load_yaml(text: str) -> yaml.Node:
    if len(text) > MAX_BYTES or len(text.encode(errors="replace")) > MAX_BYTES:
        expected = f"at most {MAX_BYTES // 1024} kB"
        raise RuleBookError(RuleProblem(1, "the file is too large", expected))
    try:
        _reject_unsafe_yaml(text)
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"not YAML: {error.problem or error.context}"
        raise RuleBookError(RuleProblem(mark.line + 1 if mark else 1, problem, "YAML")) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        problem = f"not YAML: {str(error).splitlines()[0]}"
        raise RuleBookError(RuleProblem(1, problem, "YAML in plain text")) from None
    if root is None:
        raise RuleBookError(RuleProblem(1, "the file is empty", "`rules:` and a list"))
    return root


def _reject_unsafe_yaml(text: str) -> None:
    """Reject what expands small files: aliases, and nesting that no rule needs."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise RuleBookError(RuleProblem(line, "anchors and aliases", "each rule written out"))
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise RuleBookError(RuleProblem(line, "nested too deep", "a flat list of rules"))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _RuleParser:
    """One pass over the nodes of a file that collects all errors."""

    def __init__(self, resolve: ModelResolver, suggest: ModelSuggester) -> None:
        self._resolve = resolve
        self._suggest = suggest
        self.errors: list[RuleProblem] = []

    def parse_rules(self, root: yaml.Node) -> list[Rule]:
        """Return the valid rules."""
        listed = self._parse_mapping(root, ("rules",), "`rules:` and a list").get("rules")
        if listed is None:
            if isinstance(root, yaml.MappingNode):
                self._report(root, "there is no `rules` key", "`rules:` and a list")
            return []
        if not isinstance(listed, yaml.SequenceNode):
            self._report(listed, "`rules` is not a list", "one `- name:` for each rule, or `[]`")
            return []
        rules: dict[str, Rule] = {}
        for node in listed.value:
            rule = self._parse_rule(node)
            if rule is not None and rule.name in rules:
                problem = f"the name {rule.name!r} was used on line {rules[rule.name].line}"
                self._report(node, problem, "a unique name")
            elif rule is not None:
                rules[rule.name] = rule
        return list(rules.values())

    def report_unreachable(self, rules: Sequence[Rule]) -> None:
        """Report the rules that no request can ever match."""
        earlier: list[tuple[Rule, FeatureRegion]] = []
        for rule in rules:
            region = build_rule_region(rule.conditions)
            if region is None:
                reason = "its conditions contradict each other"
                expected = "conditions that can hold together"
            else:
                above = next(
                    (other for other, outer in earlier if region_covers(outer, region)), None
                )
                earlier.append((rule, region))
                if above is None:
                    continue
                reason = f"{above.name!r} on line {above.line} matches all its requests first"
                expected = f"it above {above.name!r}, or other conditions"
            problem = f"rule {rule.name!r} can never match: {reason}"
            self.errors.append(RuleProblem(rule.line, problem, expected))

    def _parse_rule(self, node: yaml.Node) -> Rule | None:
        fields = self._parse_mapping(node, _RULE_KEYS, f"a rule with {', '.join(_RULE_KEYS)}")
        if not isinstance(node, yaml.MappingNode):
            return None
        before = len(self.errors)
        fallback = fields.get("fallback")
        rule = Rule(
            name=self._parse_name(fields.get("name"), node),
            conditions=self._parse_conditions(fields.get("conditions")),
            preferred_models=self._parse_models(fields.get("preferred_models"), node),
            fallback=self._parse_model(fallback) if fallback is not None else None,
            line=node.start_mark.line + 1,
        )
        return rule if len(self.errors) == before else None

    def _parse_name(self, node: yaml.Node | None, rule: yaml.Node) -> str:
        expected = "a name such as `code-generation`: small letters, digits, - _ . (at most 64)"
        name = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
        if node is None:
            self._report(rule, "the rule has no name", expected)
        elif not name or len(name) > 64 or not _NAME_CHARS.issuperset(name):
            self._report(node, "the name is not valid", expected)
        elif name in _RESERVED:
            self._report(node, f"the name {name!r} is reserved", "another name")
        return name

    def _parse_conditions(self, node: yaml.Node | None) -> tuple[Condition, ...]:
        if node is None:
            return ()
        conditions: list[Condition] = []
        fields = self._parse_mapping(node, None, "conditions such as `task_type: coding`")
        for key, value in fields.items():
            try:
                conditions.extend(parse_condition(key, value))
            except ConditionError as error:
                self._report(error.node, error.problem, error.expected)
        return tuple(conditions)

    def _parse_models(self, node: yaml.Node | None, rule: yaml.Node) -> tuple[str, ...]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            problem = "`preferred_models` is missing or not a list"
            self._report(node or rule, problem, "a list with at least one model id")
            return ()
        models: list[str] = []
        for item in node.value:
            model = self._parse_model(item)
            if model in models:
                self._report(item, f"{model} is listed twice", "each model once")
            elif model is not None:
                models.append(model)
        return tuple(models)

    def _parse_model(self, node: yaml.Node) -> str | None:
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            self._report(node, "the model's name is missing", "an id such as `openai/gpt-4o-mini`")
            return None
        model = self._resolve(node.value)
        if model is None:
            similar = " or ".join(self._suggest(node.value))
            expected = f"perhaps {similar}" if similar else "an id from `sophia models list`"
            self._report(node, f"no model is called {node.value[:100]!r}", expected)
        return model

    def _parse_mapping(
        self, node: yaml.Node, allowed: Sequence[str] | None, expected: str
    ) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self._report(node, "this is not a mapping", expected)
            return {}
        fields: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
            if allowed is not None and key not in allowed:
                self._report(key_node, f"unknown key {key[:100]!r}", f"one of {', '.join(allowed)}")
            elif key in fields:
                self._report(key_node, f"{key!r} is given twice", "each key once")
            else:
                fields[key] = value
        return fields

    def _report(self, node: yaml.Node, problem: str, expected: str) -> None:
        self.errors.append(RuleProblem(node.start_mark.line + 1, problem, expected))
