"""Judges: no relative where a stranger will do, and a relative's favour is measured and taken off."""

import numpy as np
import pytest

from sophia.learning.judging import Favour, Pair, choose_judge, corrected, families, kin, measure

GPT, CLAUDE, GEMINI = "openai/gpt-5.4-mini", "anthropic/claude-sonnet-4.5", "google/gemini-3.5-flash"


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
        ("unheard-of", set()),
    ],
)
def test_a_family_shows_in_the_author_and_in_the_name(model: str, expected: set[str]) -> None:
    assert families(model) == expected


def test_relatives_are_known() -> None:
    assert kin(GPT, "openai/gpt-oss-20b")
    assert kin("meta-llama/llama-3.3-70b", "nvidia/llama-3.1-nemotron-70b-instruct")
    assert not kin(GPT, CLAUDE)


def test_a_stranger_judges_and_each_by_lot() -> None:
    judges = [GPT, CLAUDE, GEMINI]
    drawn = {choose_judge("openai/gpt-4.1", judges, at / 100) for at in range(100)}
    assert drawn == {CLAUDE, GEMINI}
    assert choose_judge("openai/gpt-4.1", [GPT], 0.0) is None
    assert choose_judge("openai/gpt-4.1", [], 0.5) is None


def pairs(count: int, favour: float, mild: float = 0.05) -> list[Pair]:
    rng = np.random.default_rng(2)
    told = []
    for at in range(count):
        arm = (GPT, CLAUDE)[at % 2]
        extra = mild + (favour if arm == GPT else 0)
        told.append(Pair("openai/gpt-5", arm, 0.6 + extra + rng.normal(0, 0.2), 0.6))
    return told


def test_favour_is_measured_beyond_general_mildness() -> None:
    told = measure(pairs(2000, 0.12))
    own = told["openai/gpt-5", "openai"]
    assert own.mean == pytest.approx(0.12, abs=0.025)
    assert own.sd < 0.015
    assert own.pairs == 1000
    assert told["openai/gpt-5", "anthropic"].mean == pytest.approx(0, abs=0.01)


def test_few_pairs_are_shrunk_towards_no_favour() -> None:
    assert abs(measure(pairs(4, 0.12))["openai/gpt-5", "openai"].mean) < 0.06


def test_a_relative_is_heard_only_after_correction_and_by_half() -> None:
    favours = measure(pairs(2000, 0.12))
    stranger = corrected(0.8, CLAUDE, GPT, favours)
    assert stranger is not None
    assert (stranger.score, stranger.strength) == (0.8, 1.0)
    relative = corrected(0.8, "openai/gpt-5", GPT, favours)
    assert relative is not None
    assert relative.score == pytest.approx(0.68, abs=0.03)
    assert 0.45 < relative.strength <= 0.5
    unsure = corrected(0.8, "openai/gpt-5", GPT, measure(pairs(6, 0.12)))
    assert unsure is not None
    assert unsure.strength < 0.15
    assert corrected(0.8, GEMINI, "google/gemma-4-31b-it", favours) is None
    both = "deepseek/deepseek-r1-distill-llama-70b"
    told = {
        ("meta-llama/llama-4", "meta-llama"): Favour(-0.1, 0.02, 90),
        ("meta-llama/llama-4", "deepseek"): Favour(0.3, 0.02, 90),
    }
    mine = corrected(0.5, "meta-llama/llama-4", both, told)
    assert mine is not None
    assert mine.score == pytest.approx(0.6)
    assert mine.strength == pytest.approx(0.48)
    merged = corrected(0.5, both, both, {(both, "meta-llama"): Favour(-0.1, 0.02, 9), (both, "deepseek"): Favour(0.3, 0.06, 9)})
    assert merged is not None
    assert merged.score == pytest.approx(0.2)
    assert merged.strength == pytest.approx(0.32)
    low = corrected(0.01, "openai/gpt-5", GPT, favours)
    assert low is not None
    assert low.score == 0
