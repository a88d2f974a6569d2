"""What routing sees of a request: enough to sort it, and never more than a fixed glance."""

import pytest
from routing_prompts import PROMPTS
from routing_world import asked

from sophia.learning.online.packaged import load_classifier
from sophia.routing.features.extract import (
    MAX_EXCERPT_CHARS,
    bound_prompt_tokens,
    build_excerpt,
    estimate_prompt_tokens,
    extract_features,
)
from sophia.routing.types import TASK_TYPES, Hints, Prompt


def test_the_task_type_is_right_for_most_prompts() -> None:
    """Undeclared task types are estimated well enough to route by."""
    assert len(PROMPTS) >= 60
    right = [extract_features(asked(text), Hints()).task_type == label for label, text in PROMPTS]
    assert sum(right) / len(right) >= 0.85


@pytest.mark.parametrize("task", TASK_TYPES)
def test_no_task_type_is_neglected(task: str) -> None:
    """A high average must not hide a type that is never recognised."""
    mine = [text for label, text in PROMPTS if label == task]
    assert len(mine) >= 15
    assert (
        sum(extract_features(asked(text), Hints()).task_type == task for text in mine) / len(mine)
        >= 0.75
    )


def test_declared_hints_are_taken_as_they_are() -> None:
    """What the caller declares is never estimated."""
    seen = extract_features(
        asked("Write a poem."), Hints(task_type="coding", complexity=0.91, max_latency_ms=700)
    )
    assert (seen.task_type, seen.task_declared, seen.task_confidence) == ("coding", True, 1.0)
    assert (seen.complexity, seen.complexity_declared) == (0.91, True)
    assert (seen.max_latency_ms, seen.latency_declared) == (700, True)


def test_undeclared_latency_and_cost_have_the_plan_s_defaults() -> None:
    """Five seconds and cost-sensitive, as the plan says."""
    seen = extract_features(asked(), Hints())
    assert (seen.max_latency_ms, seen.latency_declared, seen.cost_sensitive) == (5000, False, True)


def test_small_talk_is_simple_and_deep_work_is_complex() -> None:
    """Estimated complexity spans the thresholds of the heuristic table."""
    deep = "Prove by induction the theorem on eigenvalues, derive each lemma rigorously and thoroughly, "
    deep += "compare the evidence, discuss trade-offs, edge cases and assumptions."
    assert extract_features(asked("Hi, how are you?"), Hints()).complexity < 0.3
    assert extract_features(asked(deep * 3), Hints()).complexity > 0.8


@pytest.mark.parametrize("size", [400, 4_000, 64_000, 1_000_000])
def test_the_text_looked_at_does_not_grow_with_the_prompt(size: int) -> None:
    """The decision costs the same at any length, because the glance is capped."""
    text = "word " * (size // 5)
    assert (
        len(build_excerpt(Prompt(text=text, system=text, chars=size, utf8_bytes=size)))
        <= MAX_EXCERPT_CHARS
    )


def test_an_instruction_at_the_end_of_a_long_text_is_seen() -> None:
    """The glance covers both ends of a message."""
    text = "The cat sat on the mat. " * 300 + "Summarise the text above and compare its themes."
    assert extract_features(asked(text), Hints()).task_type == "analysis"


def test_prompt_tokens_stay_below_their_bound_and_weigh_wide_scripts() -> None:
    """Four Latin characters make a token; a Chinese character makes nearly one."""
    latin, chinese = asked("a" * 4000), asked("字" * 4000)
    assert 950 <= estimate_prompt_tokens(latin) <= 1100
    assert 3000 <= estimate_prompt_tokens(chinese) <= 4200
    for prompt in (latin, chinese, asked("x", tools=40), asked("x", images=3, files=1, audio=1)):
        assert estimate_prompt_tokens(prompt) <= bound_prompt_tokens(prompt)


def test_the_bound_of_a_text_is_its_bytes_and_a_little() -> None:
    """No tokenizer makes more tokens than bytes."""
    assert (
        bound_prompt_tokens(Prompt(text="", system="", chars=10, utf8_bytes=5000, turns=3))
        == 5000 + 8 * 5
    )


def test_expected_output_respects_max_tokens() -> None:
    """An answer is never expected to be longer than it may be."""
    assert (
        extract_features(asked("Write a long story.", max_tokens=20), Hints()).output_tokens == 20
    )


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Was ist die Hauptstadt von Australien und wie groß ist sie?", "de"),
        ("Quelle est la capitale de la France et pour qui ?", "fr"),
        ("¿Cuál es la capital de España y por qué?", "es"),
        ("今天天气怎么样？", "zh"),
        ("この文章を要約してください", "ja"),
        ("Столица Франции?", "ru"),
        ("What is the capital of France?", "en"),
        ("", "en"),
    ],
)
def test_the_language_is_guessed(text: str, language: str) -> None:
    """Rules may ask for a language."""
    assert extract_features(asked(text), Hints()).language == language


LETTER = (
    "Dear Ms Novak, thank you for your letter of 3 May. We are sorry that the delivery was late and "
    "that two of the cups were broken. We will send you new ones this week, free of charge. "
)


def test_a_translation_is_expected_to_be_about_as_long_as_its_text() -> None:
    """And never longer than it may be."""
    long = "Translate the following letter into Spanish:\n\n" + LETTER * 10
    classifier = load_classifier()
    counts = {"chars": 40_000, "utf8_bytes": 40_000}
    found = classifier.encode(asked(long, **counts), Hints()).features
    assert found.output_tokens > 0.7 * found.prompt_tokens
    short = classifier.encode(asked(long, max_tokens=50), Hints()).features
    assert short.output_tokens == 50
