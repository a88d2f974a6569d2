"""OpenRouter's benchmarks give priors to models that no rating covers, and change no others."""

import json

import msgspec
import pytest

from sophia.learning.priors.book import PriorBook, load_shipped_priors
from sophia.learning.priors.refresh import MIN_MODELS, refresh_priors

KNOWN = {
    "google/gemini-2.5-pro": 60,
    "google/gemini-2.5-flash": 50,
    "openai/gpt-4o-mini": 30,
    "openai/gpt-5.1": 62,
    "openai/gpt-5-mini": 52,
    "anthropic/claude-sonnet-4.5": 61,
    "anthropic/claude-haiku-4.5": 53,
    "meta-llama/llama-3.1-8b-instruct": 15,
    "mistralai/mistral-large-2512": 46,
}


def body(**more: float) -> bytes:
    """Return an answer of `GET /benchmarks` with the known models and `more`, by index."""
    rows = [
        {"model_permaslug": name, "intelligence_index": index, "coding_index": index}
        for name, index in {
            **KNOWN,
            **{f"acme/{name}": value for name, value in more.items()},
        }.items()
    ]
    meta = {"as_of": "2026-11-30", "citation": "Artificial Analysis, artificialanalysis.ai"}
    return json.dumps({"data": rows, "meta": meta}).encode()


def test_a_model_without_a_rating_is_placed_by_its_index() -> None:
    shipped = load_shipped_priors()
    saved = refresh_priors(shipped, body(strong=64, weak=18), 5)
    assert saved is not None
    book = PriorBook(saved.priors)
    strong, weak, best = (
        book.find(name) for name in ("acme/strong", "acme/weak", "openai/gpt-5.1")
    )
    assert strong is not None
    assert weak is not None
    assert best is not None
    assert all(a > b for a, b in zip(strong.mean, weak.mean, strict=True))
    assert abs(sum(strong.mean) - sum(best.mean)) / len(best.mean) < 0.08
    assert strong.derived_from == ("Artificial Analysis",)
    assert saved.sources[0].credit.startswith("Artificial Analysis")
    assert saved.sha256 == saved.digest()
    assert {name: book.find(name) for name in KNOWN} == {name: shipped.find(name) for name in KNOWN}


def test_nothing_is_added_without_new_models_or_with_too_few_known_ones() -> None:
    shipped = load_shipped_priors()
    assert refresh_priors(shipped, body(), 5) is None
    rows = json.loads(body(new=40))["data"][-MIN_MODELS + 1 :]
    assert refresh_priors(shipped, json.dumps({"data": rows}).encode(), 5) is None


@pytest.mark.parametrize("broken", [b"", b"{}", b"[]", b'{"data": 1}'])
def test_another_form_is_refused(broken: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        refresh_priors(load_shipped_priors(), broken, 5)
