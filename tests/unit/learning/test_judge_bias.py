"""Judges: another family comes first; a bias for the own family is measured and subtracted."""

import numpy as np
import pytest

from sophia.learning.feedback.judge_bias import (
    BiasEstimate,
    choose_judge,
    correct_score,
    estimate_biases,
    is_same_family,
    model_families,
)

GPT, CLAUDE, GEMINI = (
    "openai/gpt-5.4-mini",
    "anthropic/claude-sonnet-4.5",
    "google/gemini-3.5-flash",
)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (GPT, {"openai"}),
        ("~anthropic/claude-opus-latest", {"anthropic"}),
        ("google/gemma-4-31b-it:free", {"google"}),
        ("deepseek/deepseek-r1-distill-llama-70b", {"deepseek", "meta-llama"}),
        ("nvidia/llama-3.1-nemotron-70b-instruct", {"nvidia", "meta-llama"}),
        ("perplexity/sonar", {"perplexity"}),
        ("gpt-4o", {"openai"}),
        ("unknown", set()),
    ],
)
def test_a_family_shows_in_the_author_and_in_the_name(model: str, expected: set[str]) -> None:
    assert model_families(model) == expected


def test_models_of_a_family_are_recognised() -> None:
    assert is_same_family(GPT, "openai/gpt-oss-20b")
    assert is_same_family("meta-llama/llama-3.3-70b", "nvidia/llama-3.1-nemotron-70b-instruct")
    assert not is_same_family(GPT, CLAUDE)


def test_a_judge_of_another_family_is_sampled() -> None:
    judges = [GPT, CLAUDE, GEMINI]
    drawn = {choose_judge("openai/gpt-4.1", judges, at / 100) for at in range(100)}
    assert drawn == {CLAUDE, GEMINI}
    assert choose_judge("openai/gpt-4.1", [GPT], 0.0) is None
    assert choose_judge("openai/gpt-4.1", [], 0.5) is None


def comparisons(count: int, bias: float, leniency: float = 0.05) -> list[tuple[str, str, float]]:
    rng = np.random.default_rng(2)
    rows = []
    for at in range(count):
        arm = (GPT, CLAUDE)[at % 2]
        extra = leniency + (bias if arm == GPT else 0)
        rows.append(("openai/gpt-5", arm, extra + rng.normal(0, 0.2)))
    return rows


def test_bias_is_measured_beyond_general_leniency() -> None:
    biases = estimate_biases(comparisons(2000, 0.12))
    own = biases["openai/gpt-5", "openai"]
    assert own.mean == pytest.approx(0.12, abs=0.025)
    assert own.sd < 0.015
    assert own.pairs == 1000
    assert biases["openai/gpt-5", "anthropic"].mean == pytest.approx(0, abs=0.01)


def test_few_comparisons_are_shrunk_towards_no_bias() -> None:
    assert abs(estimate_biases(comparisons(4, 0.12))["openai/gpt-5", "openai"].mean) < 0.06


def test_a_score_within_the_family_counts_after_correction_and_by_half() -> None:
    biases = estimate_biases(comparisons(2000, 0.12))
    unrelated = correct_score(0.8, CLAUDE, GPT, biases)
    assert unrelated is not None
    assert (unrelated.value, unrelated.strength) == (0.8, 1.0)
    related = correct_score(0.8, "openai/gpt-5", GPT, biases)
    assert related is not None
    assert related.value == pytest.approx(0.68, abs=0.03)
    assert 0.45 < related.strength <= 0.5
    unsure = correct_score(0.8, "openai/gpt-5", GPT, estimate_biases(comparisons(6, 0.12)))
    assert unsure is not None
    assert unsure.strength < 0.15
    assert correct_score(0.8, GEMINI, "google/gemma-4-31b-it", biases) is None
    both = "deepseek/deepseek-r1-distill-llama-70b"
    two = {
        ("meta-llama/llama-4", "meta-llama"): BiasEstimate(-0.1, 0.02, 90),
        ("meta-llama/llama-4", "deepseek"): BiasEstimate(0.3, 0.02, 90),
    }
    mine = correct_score(0.5, "meta-llama/llama-4", both, two)
    assert mine is not None
    assert mine.value == pytest.approx(0.6)
    assert mine.strength == pytest.approx(0.48)
    merged = correct_score(
        0.5,
        both,
        both,
        {
            (both, "meta-llama"): BiasEstimate(-0.1, 0.02, 9),
            (both, "deepseek"): BiasEstimate(0.3, 0.06, 9),
        },
    )
    assert merged is not None
    assert merged.value == pytest.approx(0.2)
    assert merged.strength == pytest.approx(0.32)
    low = correct_score(0.01, "openai/gpt-5", GPT, biases)
    assert low is not None
    assert low.value == 0
