"""How demanding a request is: the order of what people ask, in several languages and at any length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from routing_world import asked

from sophia.routing.features.complexity import (
    ComplexityCues,
    compute_complexity_features,
    estimate_complexity,
)
from sophia.routing.features.complexity_weights import WEIGHTS
from sophia.routing.features.extract import extract_features
from sophia.routing.types import Hints, Prompt

SMALL_TALK = (
    "Hi, how are you?", "Hello there!", "Hallo, alles klar?", "Bonjour tout le monde", "¡Hola amigo!",
    "Grazie mille", "Привет!", "你好吗？", "おはよう", "thanks, that helped", "What is the capital of France?",
)  # fmt: skip
EVERYDAY = (
    "Write a Python function that merges two sorted lists.",
    "Plan a weekend in Lisbon for two people who like food and museums.",
    "Schreibe eine Mail an meinen Vermieter, dass die Heizung seit Montag kalt bleibt.",
    "Résume ce texte en deux phrases pour une lettre aux parents.",
)
PROOFS = (
    "Prove that every bounded monotone sequence converges.",
    "Beweise, dass die Quadratwurzel aus 7 irrational ist.",
    "Démontrez que la série harmonique diverge.",
    "Demuestra que no existe un mayor número primo.",
    "Докажите, что корень из пяти иррационален.",
    "证明任意两个连续整数互质。",
    "三平方の定理を証明してください。",
)
WORK = (
    "Derive the gradient of the softmax cross-entropy and prove that the loss is convex in the logits.",
    "Design a lock-free concurrent queue in Rust and prove the ordering of its loads.",
    "Prove by induction that a tree with n vertices has n-1 edges, then derive Euler's formula.",
)


def complexity(text: str, **counts: int | bool) -> float:
    return extract_features(asked(text, **counts), Hints()).complexity


def test_small_talk_everyday_requests_and_proofs_stand_in_this_order() -> None:
    """A rule such as `complexity: ">0.7"` means the same in every language that is known."""
    talk, day, proofs = (
        [complexity(text) for text in texts] for texts in (SMALL_TALK, EVERYDAY, PROOFS)
    )
    assert max(talk) < 0.25 and min(proofs) > 0.65
    assert sum(talk) / len(talk) < min(day) and max(day) < 0.5


@pytest.mark.parametrize("text", WORK)
def test_hard_work_is_near_one(text: str) -> None:
    assert complexity(text) > 0.9


def test_a_long_conversation_does_not_make_a_greeting_hard() -> None:
    """What was said before, or a long system prompt, is context and not the question."""
    alone = complexity("Hi!")
    later = complexity("Hi!", chars=20_000, utf8_bytes=20_000, turns=5)
    assert alone < later < 0.3
    assert complexity("word " * 390, chars=1_950) > later


def test_what_a_caller_demands_makes_it_harder() -> None:
    plain = complexity("Which of these is cheaper?")
    for more in ({"tools": 3}, {"schema": True}, {"reasoning": True}, {"turns": 9}):
        assert complexity("Which of these is cheaper?", **more) > plain


def test_the_weights_fit_the_figures() -> None:
    seen = compute_complexity_features(asked("Hi"), "hi", ComplexityCues(0.1, 0.0, 0, 0.0, 0.0))
    assert len(seen) == len(WEIGHTS)


@given(
    text=st.text(max_size=400),
    more=st.text(max_size=400),
    cues=st.tuples(
        st.floats(0, 3), st.floats(0, 3), st.integers(0, 20), st.floats(0, 1), st.floats(0, 1)
    ),
)
def test_longer_and_more_demanding_is_never_easier(
    text: str, more: str, cues: tuple[float, float, int, float, float]
) -> None:
    """Whatever the text: between 0 and 1, and rising in its length, its demands, code and maths."""
    easier, harder, demanding, code, maths = cues

    def of(text: str, cues: ComplexityCues) -> float:
        size = len(text.encode("utf-8", "replace"))
        prompt = Prompt(text=text, chars=len(text), utf8_bytes=size)
        return estimate_complexity(prompt, "", cues)

    begun = of(text, ComplexityCues(*cues))
    assert 0.0 <= begun <= 1.0
    assert of(text + more, ComplexityCues(*cues)) >= begun
    assert of(text, ComplexityCues(easier, harder + 0.2, demanding + 1, code, maths)) >= begun
    assert of(text, ComplexityCues(easier, harder, demanding, 1.0, 1.0)) >= begun
    assert of(text, ComplexityCues(easier + 0.1, harder, demanding, code, maths)) <= begun
