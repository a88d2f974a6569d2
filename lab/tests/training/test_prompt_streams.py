"""Streams under one system prompt: a history helps where tasks repeat."""

import numpy as np

from lab.training.prompt_streams import LabelledTexts, apply_stream_history, measure_history_gain


def texts(count: int = 600, classes: int = 6) -> LabelledTexts:
    """Return texts with calibrated posteriors of about 60 % accuracy."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, classes, count)
    chances = rng.dirichlet(np.full(classes, 0.7), count)
    labels = np.array([rng.choice(classes, p=one) for one in chances])
    whole = np.hstack([chances * 0.99, np.full((count, 1), 0.01)])
    return LabelledTexts(whole, labels, [f"t:{label}" for label in labels], ["t"] * count)


def test_a_history_helps_where_one_task_repeats_and_hurts_nowhere() -> None:
    found = measure_history_gain(texts())
    for kind in ("one task", "two tasks", "another task from the middle on"):
        assert found[kind].with_history[0] > found[kind].without_history[0] + 0.01
        assert found[kind].with_history[1] < found[kind].without_history[1]
    for kind in ("one source", "any text", "any class, all as often"):
        assert found[kind].with_history[0] > found[kind].without_history[0] - 0.02


def test_the_first_text_of_a_stream_is_classified_by_itself() -> None:
    chances = texts().posteriors[:20]
    found = apply_stream_history(chances)
    assert found[0].tolist() == chances[0].tolist()
    assert np.allclose(found.sum(axis=1), 1.0)
