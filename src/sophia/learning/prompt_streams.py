"""What a system prompt's history is worth: streams of texts of known tasks under one prompt."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sophia.learning.tables import Matrix
from sophia.routing.history import History, after, recall
from sophia.routing.policies.policy import Vector

LENGTH = 60
STREAMS = 100
FEWEST = 20
LEAST = 1e-4
"""The chance that counts for a task that was thought impossible, so that its loss is finite."""

Codes = NDArray[np.intp]
Draw = Callable[[np.random.Generator], Codes]
Kinds = Iterator[tuple[str, Draw, bool]]


@dataclass(frozen=True)
class Texts:
    """Texts that nothing was learned from: their posterior (N, T), class, task and source, (N,)."""

    chances: Matrix
    labels: Codes
    tasks: Sequence[str]
    sources: Sequence[str]


@dataclass(frozen=True)
class Worth:
    """The share of right classes and the mean loss in nats, without and with a history."""

    alone: tuple[float, float]
    recalled: tuple[float, float]


def worth(texts: Texts, seed: int = 1) -> dict[str, Worth]:
    """Return what histories are worth for each kind of stream; no text comes twice in one."""
    return {
        kind: _worth(texts, _drawn(draw, seed), second_half=second_half)
        for kind, draw, second_half in _kinds(texts)
    }


def recalled(chances: Matrix) -> Matrix:
    """Return the posteriors of a stream, (N, T), each with the word of those before it."""
    history, base = History(np.zeros(chances.shape[1])), 1.0 / chances.shape[1]
    found = np.empty_like(chances)
    for at, own in enumerate(chances):
        told = recall(history, own, base)
        found[at] = told.tasks
        history = after(history, own, told.foretold)
    return found


def _kinds(texts: Texts) -> Kinds:
    """Yield the kinds of stream, how to draw one, and whether only its second half counts."""
    tasks, sources = _groups(texts.tasks), _groups(texts.sources)
    everything = np.arange(len(texts.labels))
    classes = [np.flatnonzero(texts.labels == label) for label in np.unique(texts.labels)]

    def of(groups: list[Codes]) -> Draw:
        return lambda rng: rng.permutation(groups[rng.integers(len(groups))])[:LENGTH]

    def two(rng: np.random.Generator) -> list[Codes]:
        first, second = rng.choice(len(tasks), 2, replace=False)
        # Alike in length, so that the share of each is what it is said to be.
        most = min(LENGTH, len(tasks[first]), len(tasks[second]))
        return [rng.permutation(tasks[one])[:most] for one in (first, second)]

    def alike(rng: np.random.Generator) -> Codes:
        drawn = rng.integers(len(classes), size=LENGTH)
        return np.array([rng.choice(classes[one]) for one in drawn])

    yield "one task", of(tasks), False
    yield "two tasks", lambda rng: rng.permutation(np.concatenate(two(rng)))[:LENGTH], False
    yield "another task from the middle on", lambda rng: np.concatenate(two(rng)), True
    yield "one source", of(sources), False
    yield "any text", of([everything]), False
    yield "any class, all as often", alike, False


def _drawn(draw: Draw, seed: int) -> list[Codes]:
    rng = np.random.default_rng(seed)
    return [draw(rng) for _ in range(STREAMS)]


def _groups(names: Sequence[str]) -> list[Codes]:
    array = np.array(names)
    rows = [np.flatnonzero(array == name) for name in sorted(set(names))]
    return [one for one in rows if len(one) >= FEWEST]


def _worth(texts: Texts, streams: Sequence[Codes], *, second_half: bool) -> Worth:
    alone, found, wanted = [], [], []
    for rows in streams:
        begin = len(rows) // 2 if second_half else 0
        chances = texts.chances[rows]
        alone.append(chances[begin:])
        found.append(recalled(chances)[begin:])
        wanted.append(texts.labels[rows][begin:])
    labels = np.concatenate(wanted)
    return Worth(_judged(np.vstack(alone), labels), _judged(np.vstack(found), labels))


def _judged(chances: Matrix, labels: Codes) -> tuple[float, float]:
    right: Vector = (chances[:, :-1].argmax(axis=1) == labels).astype(np.float64)
    loss = -np.log(np.maximum(chances[np.arange(len(labels)), labels], LEAST))
    return float(right.mean()), float(loss.mean())
