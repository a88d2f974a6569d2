"""Model names: one model under many spellings, and different models that look alike."""

import pytest

from sophia.learning.priors.names import NameIndex, parse_model_name

KNOWN = (
    "claude-3-5-sonnet-20241022",
    "claude-3-5-sonnet-20240620",
    "claude-opus-4-5-20251101",
    "claude-opus-4-5-20251101-high-32k",
    "gpt-5.4",
    "gpt-4.5-preview-2025-02-27",
    "gpt-5-mini-high",
    "gpt-5-chat",
    "gpt-5-high",
    "llama-3.1-405b-instruct-bf16",
    "llama-3.1-70b-instruct",
    "qwen3-235b-a22b-instruct-2507",
    "qwen3-max",
    "mistral-medium-3.5",
    "gemini-2.5-flash-lite-preview-06-17-thinking",
    "llama-4-maverick-17b-128e-instruct",
)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("anthropic/claude-3.5-sonnet", "claude-3-5-sonnet-20241022"),
        ("claude-3-5-sonnet-20240620", "claude-3-5-sonnet-20240620"),
        ("Claude 4.5 Opus medium (20251101)", "claude-opus-4-5-20251101"),
        ("Claude 4.5 Opus (high reasoning)", "claude-opus-4-5-20251101-high-32k"),
        ("openai/gpt-5.4", "gpt-5.4"),
        ("gpt-4.5-preview", "gpt-4.5-preview-2025-02-27"),
        ("GPT-5 Mini", "gpt-5-mini-high"),
        ("openai/gpt-5-chat", "gpt-5-chat"),
        ("Meta-Llama-3.1-405B-Instruct@hyperbolic", "llama-3.1-405b-instruct-bf16"),
        ("qwen/qwen3-235b-a22b-2507", "qwen3-235b-a22b-instruct-2507"),
        ("qwen/qwen3-max", "qwen3-max"),
        ("mistralai/mistral-medium-3-5", "mistral-medium-3.5"),
        ("google/gemini-2.5-flash-lite", "gemini-2.5-flash-lite-preview-06-17-thinking"),
        ("meta-llama/llama-4-maverick", "llama-4-maverick-17b-128e-instruct"),
    ],
)
def test_a_model_is_found_under_another_spelling(name: str, found: str) -> None:
    assert NameIndex(KNOWN).find(name) == found


@pytest.mark.parametrize(
    "name",
    [
        "meta-llama/llama-3.1-8b-instruct",
        "openai/gpt-5.5",
        "openai/gpt-5-nano",
        "qwen/qwen3-235b-a22b-2601",
        "qwen/qwen3-coder",
        "anthropic/claude-3.7-sonnet",
        "",
        "???",
    ],
)
def test_a_different_model_is_not_taken_for_a_known_one(name: str) -> None:
    assert NameIndex(KNOWN).find(name) is None


@pytest.mark.parametrize(
    ("name", "billions"),
    [("acme/one-7b", 7), ("mixtral-8x22b", 176), ("qwen3-235b-a22b", 235), ("gpt-5", None)],
)
def test_the_size_is_read_from_the_name(name: str, billions: float | None) -> None:
    assert parse_model_name(name).billions == billions
