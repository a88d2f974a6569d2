"""Value of a system prompt's history: simulated streams of labelled texts under one prompt."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.evaluation.tables import Matrix
from sophia.routing.bandit.context.prompt_history import (
    PromptHistory,
    apply_history,
    update_history,
)
from sophia.routing.bandit.policy import Vector

STREAM_LENGTH = 60
STREAM_COUNT = 100
MIN_TEXTS = 8
MIN_PROBABILITY = 1e-4
"""Lower bound of probabilities in the loss, which keeps it finite."""

Codes = NDArray[np.intp]
StreamSampler = Callable[[np.random.Generator], Codes]
StreamKinds = Iterator[tuple[str, StreamSampler, bool]]


@dataclass(frozen=True)
class LabelledTexts:
    """Held-out texts: posteriors (N, T), and class, task and source, (N,)."""

    posteriors: Matrix
    labels: Codes
    tasks: Sequence[str]
    sources: Sequence[str]


@dataclass(frozen=True)
class HistoryGain:
    """Accuracy and mean loss in nats, without and with a history."""

    without_history: tuple[float, float]
    with_history: tuple[float, float]


def measure_history_gain(texts: LabelledTexts, seed: int = 1) -> dict[str, HistoryGain]:
    """Return the gain from histories by kind of stream; texts do not repeat within a stream."""
    return {
        kind: _measure_streams(texts, _sample_streams(draw, seed), second_half=second_half)
        for kind, draw, second_half in _stream_kinds(texts)
    }


def apply_stream_history(posteriors: Matrix) -> Matrix:
    """Return the posteriors of a stream, (N, T), each updated by those before it."""
    history, base = PromptHistory(np.zeros(posteriors.shape[1])), 1.0 / posteriors.shape[1]
    found = np.empty_like(posteriors)
    for at, own in enumerate(posteriors):
        updated = apply_history(history, own, base)
        found[at] = updated.task_probabilities
        history = update_history(history, own, updated.log_bayes_factor)
    return found


def _stream_kinds(texts: LabelledTexts) -> StreamKinds:
    """Yield each kind of stream, its sampler, and whether only its second half counts."""
    tasks, sources = _group_rows(texts.tasks), _group_rows(texts.sources)
    everything = np.arange(len(texts.labels))
    classes = [np.flatnonzero(texts.labels == label) for label in np.unique(texts.labels)]

    def sample_group(groups: list[Codes]) -> StreamSampler:
        return lambda rng: rng.permutation(groups[rng.integers(len(groups))])[:STREAM_LENGTH]

    def sample_two_tasks(rng: np.random.Generator) -> list[Codes]:
        first, second = rng.choice(len(tasks), 2, replace=False)
        # The same length, so that the classes have the intended shares.
        most = min(STREAM_LENGTH, len(tasks[first]), len(tasks[second]))
        return [rng.permutation(tasks[one])[:most] for one in (first, second)]

    def sample_classes(rng: np.random.Generator) -> Codes:
        drawn = rng.integers(len(classes), size=STREAM_LENGTH)
        return np.array([rng.choice(classes[one]) for one in drawn])

    yield "one task", sample_group(tasks), False
    yield (
        "two tasks",
        lambda rng: rng.permutation(np.concatenate(sample_two_tasks(rng)))[:STREAM_LENGTH],
        False,
    )
    yield "another task from the middle on", lambda rng: np.concatenate(sample_two_tasks(rng)), True
    yield "one source", sample_group(sources), False
    yield "any text", sample_group([everything]), False
    yield "any class, all as often", sample_classes, False


def _sample_streams(draw: StreamSampler, seed: int) -> list[Codes]:
    rng = np.random.default_rng(seed)
    return [draw(rng) for _ in range(STREAM_COUNT)]


def _group_rows(names: Sequence[str]) -> list[Codes]:
    array = np.array(names)
    rows = [np.flatnonzero(array == name) for name in sorted(set(names))]
    return [one for one in rows if len(one) >= MIN_TEXTS]


def _measure_streams(
    texts: LabelledTexts, streams: Sequence[Codes], *, second_half: bool
) -> HistoryGain:
    alone, found, labels_by_stream = [], [], []
    for rows in streams:
        begin = len(rows) // 2 if second_half else 0
        posteriors = texts.posteriors[rows]
        alone.append(posteriors[begin:])
        found.append(apply_stream_history(posteriors)[begin:])
        labels_by_stream.append(texts.labels[rows][begin:])
    labels = np.concatenate(labels_by_stream)
    return HistoryGain(
        _accuracy_and_loss(np.vstack(alone), labels), _accuracy_and_loss(np.vstack(found), labels)
    )


def _accuracy_and_loss(posteriors: Matrix, labels: Codes) -> tuple[float, float]:
    right: Vector = (posteriors[:, :-1].argmax(axis=1) == labels).astype(np.float64)
    loss = -np.log(np.maximum(posteriors[np.arange(len(labels)), labels], MIN_PROBABILITY))
    return float(right.mean()), float(loss.mean())
