"""Streams under one system prompt: a history helps where tasks repeat, and is measured fairly."""

import numpy as np

from sophia.learning.prompt_streams import Texts, recalled, worth


def texts(count: int = 600, classes: int = 6) -> Texts:
    """Return calibrated posteriors of texts whose class is the likeliest three times in five."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, classes, count)
    chances = rng.dirichlet(np.full(classes, 0.7), count)
    labels = np.array([rng.choice(classes, p=one) for one in chances])
    whole = np.hstack([chances * 0.99, np.full((count, 1), 0.01)])
    return Texts(whole, labels, [f"t:{label}" for label in labels], ["t"] * count)


def test_a_history_helps_where_one_task_repeats_and_hurts_nowhere() -> None:
    found = worth(texts())
    for kind in ("one task", "two tasks", "another task from the middle on"):
        assert found[kind].recalled[0] > found[kind].alone[0] + 0.01
        assert found[kind].recalled[1] < found[kind].alone[1]
    for kind in ("one source", "any text", "any class, all as often"):
        assert found[kind].recalled[0] > found[kind].alone[0] - 0.02


def test_the_first_of_a_stream_is_told_by_its_text_alone() -> None:
    chances = texts().chances[:20]
    found = recalled(chances)
    assert found[0].tolist() == chances[0].tolist()
    assert np.allclose(found.sum(axis=1), 1.0)
