"""Surface features: each counts what its name says, and stays finite."""

import math

import numpy as np
import pytest
from msgspec.structs import replace

from sophia.routing.bandit.context.embedding import truncate_middle
from sophia.routing.bandit.context.surface import build_feature_vector, surface_features
from sophia.routing.features.extract import extract_features
from sophia.routing.types import Hints, Prompt


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("digits", "ab12", 0.5),
        ("numbers", "1 22 333", math.log(4)),
        ("capitals", "ABcd", 0.5),
        ("marks", "a!?b", 0.5),
        ("lines", "a\nb\nc", math.log(3)),
        ("questions", "a? b?", math.log(3)),
        ("commas", "a, b, c,", math.log(4)),
        ("braces", "{ {", math.log(3)),
        ("equals", "a = b", math.log(2)),
        ("backslashes", r"\frac\pi", math.log(3)),
        ("dollars", "$x$", math.log(3)),
        ("underscores", "snake_case", math.log(2)),
        ("sentences", "One. Two. Three", math.log(3)),
        ("ands", "this and that And more", math.log(3)),
        ("quotes", "\"a\" 'b'", math.log(5)),
        ("brackets", "f(x)[0]", math.log(3)),
        ("lettered_options", "Which?\nA. one\nB. two\n(C) three\nD) four", math.log(5)),
        ("numbered_options", "1. one\n2) two", math.log(3)),
        ("options_line", "Options: a, b", 1.0),
        ("blank", "he did _ because", 1.0),
        ("colon_end", "Continue: ", 1.0),
        ("question_end", "Why? ", 1.0),
        ("starts_upper", "Hello", 1.0),
        ("polite", "could you help", 1.0),
        ("imperative", "Write a poem", 1.0),
        ("asks_what", "What is it", 1.0),
        ("first_person", "so I think my cat", math.log(3)),
        ("words", "one two three", math.log(4)),
        ("word_length", "a bcd", 2.0),
    ],
)
def test_a_figure_counts_what_its_name_says(name: str, text: str, value: float) -> None:
    assert _seen(Prompt(text=text, chars=len(text)))[name] == pytest.approx(value)
    assert _seen(Prompt(text="the", chars=3))[name] != pytest.approx(value)


def test_what_a_gateway_knows_of_a_request_is_there() -> None:
    prompt = Prompt(
        text="Hi",
        chars=2,
        turns=3,
        images=1,
        files=2,
        tools=1,
        schema=True,
        max_tokens=99,
        reasoning=True,
    )
    seen = _seen(prompt)
    assert seen["turns"] == pytest.approx(math.log(4))
    assert seen["images"] == pytest.approx(math.log(2))
    assert seen["files"] == pytest.approx(math.log(3))
    assert (seen["has_tools"], seen["one_tool"], seen["schema"], seen["reasoning"]) == (1, 1, 1, 1)
    assert seen["output_limit"] == pytest.approx(math.log(100))
    two = _seen(replace(prompt, tools=2))
    assert (two["has_tools"], two["one_tool"], two["tools"]) == (1, 0, pytest.approx(math.log(3)))


def test_declared_hints_are_seen() -> None:
    hints = Hints(task_type="creative", complexity=0.9, max_latency_ms=1000, cost_sensitive=False)
    seen = _seen(Prompt(text="Hello", chars=5), hints)
    assert seen["type_creative"] == 1.0
    assert seen["type_coding"] == 0.0
    assert seen["complexity"] == 0.9
    assert seen["max_latency"] == pytest.approx(math.log(1001))
    assert seen["cost_sensitive"] == 0.0
    assert _seen(Prompt(text="Hello", chars=5))["max_latency"] == 0.0


@pytest.mark.parametrize("text", ["", " ", "😀" * 50, "漢字", "\x00\x01", "a" * 5000, "\ud800"])
def test_any_text_gives_finite_figures(text: str) -> None:
    seen = _seen(Prompt(text=text, chars=len(text), utf8_bytes=4 * len(text)))
    assert len(seen) == 55
    assert np.isfinite(list(seen.values())).all()


def test_the_vector_has_the_features_in_their_order() -> None:
    prompt, hints = Prompt(text="How many, 1 or 2?", chars=17), Hints()
    features = extract_features(prompt, hints)
    vector = build_feature_vector(prompt, features, prompt.text)
    assert vector.tolist() == list(surface_features(prompt, features, prompt.text).values())


def _seen(prompt: Prompt, hints: Hints | None = None) -> dict[str, float]:
    hints = hints or Hints()
    return surface_features(prompt, extract_features(prompt, hints), truncate_middle(prompt.text))
