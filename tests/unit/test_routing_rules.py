"""The rules file: what it means, and how each mistake in it is named."""

from importlib.resources import files

import pytest
from routing_world import BY_ID, DEEPSEEK, FLASH, MINI, SONNET, asked

from sophia.routing.features.extract import extract_features
from sophia.routing.rules.model import RuleBook, find_rule
from sophia.routing.rules.parse import MAX_BYTES, RuleBookError, parse_rules
from sophia.routing.types import Features, Hints

SHIPPED = files("sophia.routing").joinpath("data/routing-rules.yaml").read_text()


def known(name: str) -> str | None:
    return name if name in BY_ID else None


def read(text: str) -> RuleBook:
    return parse_rules(text, known)


def faults(text: str) -> list[tuple[int, str]]:
    with pytest.raises(RuleBookError) as caught:
        read(text)
    assert all(error.expected for error in caught.value.errors)
    return [(error.line, error.problem) for error in caught.value.errors]


def one(conditions: str) -> str:
    return (
        f"rules:\n  - name: r\n    conditions: {{{conditions}}}\n    preferred_models: [{MINI}]\n"
    )


def seen(hints: Hints, text: str = "hello", **counts: int) -> Features:
    return extract_features(asked(text, **counts), hints)


def test_the_shipped_rules_are_the_plan_s_three() -> None:
    """The default rules name models that exist."""
    book = read(SHIPPED)
    assert [rule.name for rule in book.rules] == [
        "code-generation",
        "quick-response",
        "complex-analysis",
    ]
    assert [rule.preferred_models[0] for rule in book.rules] == [DEEPSEEK, FLASH, SONNET]


@pytest.mark.parametrize(
    ("hints", "name"),
    [
        (Hints(task_type="coding", complexity=0.71), "code-generation"),
        (Hints(task_type="coding", complexity=0.70), None),
        (Hints(task_type="general", complexity=0.1, max_latency_ms=999), "quick-response"),
        (Hints(task_type="general", complexity=0.1, max_latency_ms=1000), None),
        (Hints(task_type="general", complexity=0.1), None),
        (Hints(task_type="analysis", complexity=0.81), "complex-analysis"),
        (Hints(task_type="coding", complexity=0.9, max_latency_ms=10), "code-generation"),
    ],
)
def test_the_first_rule_whose_conditions_hold_decides(hints: Hints, name: str | None) -> None:
    """File order is the order of authority; an undeclared latency meets no rule."""
    rule = find_rule(read(SHIPPED), hints, seen(hints))
    assert (rule.name if rule else None) == name


@pytest.mark.parametrize(
    ("conditions", "hints", "holds"),
    [
        ('chars: ">=5"', Hints(), True),
        ('chars: ">5"', Hints(), False),
        ('turns: "==1"', Hints(), True),
        ('prompt_tokens: "<1"', Hints(), False),
        ('latency_requirement: "<=1s"', Hints(max_latency_ms=1000), True),
        ('complexity: [">0.3", "<=0.7"]', Hints(complexity=0.7), True),
        ('complexity: [">0.3", "<=0.7"]', Hints(complexity=0.3), False),
        ("task_type: [coding, creative]", Hints(task_type="creative"), True),
        ("task_type: [coding, creative]", Hints(task_type="general"), False),
        ("cost_sensitive: false", Hints(cost_sensitive=False), True),
        ("cost_sensitive: false", Hints(), False),
        ("language: en", Hints(), True),
        ("language: no", Hints(), False),
    ],
)
def test_a_condition_compares_what_it_says(conditions: str, hints: Hints, holds: bool) -> None:
    """Comparisons, lists and flags mean what a reader thinks."""
    assert (find_rule(read(one(conditions)), hints, seen(hints)) is not None) is holds


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 1, "the file is empty"),
        ("rules: 3", 1, "`rules` is not a list"),
        ("rules: []\nextra: 1", 2, "unknown key 'extra'"),
        ("rules:\n  - [1]", 2, "this is not a mapping"),
        ("rules:\n  - nam: x", 2, "unknown key 'nam'"),
        ("rules:\n - name: x\n   preferred_models: [\n", 4, "not YAML"),
        (one("complexity: 0.7"), 3, "complexity is not a comparison: '0.7'"),
        (one('complexity: ">7"'), 3, "complexity is between 0 and 1"),
        (one('complexity: ">0.7ms"'), 3, "complexity takes no unit"),
        (one('latency_requirement: "<1000"'), 3, "latency_requirement has no unit"),
        (one("weather: sunny"), 3, "there is no condition 'weather'"),
        (one("task_type: cooking"), 3, "'cooking' is not a task type"),
        (one("cost_sensitive: maybe"), 3, "cost_sensitive is neither true nor false"),
        (one("language: Klingon"), 3, "'Klingon' is not a language"),
        (one("task_type: []"), 3, "the list is empty"),
        ("rules:\n  - name: r\n    preferred_models: [gpt-9]", 3, "no model is called 'gpt-9'"),
        (
            "rules:\n  - name: auto\n    preferred_models: [" + MINI + "]",
            2,
            "the name 'auto' is reserved",
        ),
        ("rules:\n  - name: r\n", 2, "`preferred_models` is missing or not a list"),
        ("rules: &a\n  - *a", 1, "anchors and aliases"),
        ("[" * 60, 1, "nested too deep"),
        ("#" * (MAX_BYTES + 1), 1, "the file is too large"),
        ('"\\UFFFFFFFF"', 1, "not YAML"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, line: int, problem: str) -> None:
    """The line, the problem, the expected form."""
    found = faults(text)
    assert found[0][0] == line
    assert found[0][1].startswith(problem)


def test_all_mistakes_are_reported_at_once() -> None:
    """Nobody should have to run a check five times."""
    text = (
        one("complexity: 1, weather: sunny")
        + f"  - name: r\n    preferred_models: [{MINI}, nobody]\n"
    )
    assert len(faults(text)) == 3


def test_an_unknown_model_comes_with_the_nearest() -> None:
    """A typing error is mended by reading the message."""
    with pytest.raises(RuleBookError, match=f"perhaps {MINI}"):
        parse_rules(
            "rules:\n  - name: r\n    preferred_models: [gpt-4-mini]", known, lambda _: [MINI]
        )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("", "task_type: coding"),
        ("task_type: [coding, analysis]", "task_type: coding"),
        ('turns: ">=5"', 'turns: ">5"'),
        ('turns: ">5"', 'turns: ">=6"'),
        ('complexity: ">=0"', "task_type: coding"),
        ('complexity: ">0.5"', 'complexity: ">0.7", task_type: coding'),
        ('latency_requirement: "<2s"', 'latency_requirement: "<1000ms"'),
        ("task_type: [coding, analysis, creative, general]", ""),
    ],
)
def test_a_rule_that_an_earlier_one_always_covers_is_refused(first: str, second: str) -> None:
    """A dead rule is a mistake, not a habit."""
    text = (
        one(first)
        + f"  - name: dead\n    conditions: {{{second}}}\n    preferred_models: [{MINI}]\n"
    )
    assert (
        "'dead' can never match: 'r' on line 2 matches all its requests first" in faults(text)[0][1]
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('latency_requirement: ">=0ms"', "task_type: coding"),
        ('complexity: ">0.7"', 'complexity: ">=0.7"'),
        ("task_type: coding", 'complexity: ">0.7"'),
        ("language: de", "task_type: coding"),
    ],
)
def test_a_rule_with_something_left_to_match_is_kept(first: str, second: str) -> None:
    """Overlap is not death."""
    text = (
        one(first)
        + f"  - name: alive\n    conditions: {{{second}}}\n    preferred_models: [{MINI}]\n"
    )
    assert len(read(text).rules) == 2


@pytest.mark.parametrize(
    "conditions", ['complexity: [">0.7", "<0.5"]', 'turns: [">5", "<6"]', 'complexity: ">1"']
)
def test_contradictory_conditions_are_refused(conditions: str) -> None:
    """No request can meet them."""
    assert "its conditions contradict each other" in faults(one(conditions))[0][1]


def test_the_version_changes_with_the_text() -> None:
    """A decision can say which rules it was made under."""
    assert read(SHIPPED).version == read(SHIPPED).version != read(SHIPPED + "\n# more").version
