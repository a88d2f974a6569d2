"""What a gateway would have seen of each question of a table, the task told by other folds."""

from collections.abc import Callable
from importlib.resources import files

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.learning.tables import Matrix, OutcomeTable, Question
from sophia.learning.task_training import Texts, posteriors, train_tasks
from sophia.routing.embedding import read_embedding
from sophia.routing.features import extract
from sophia.routing.nouns import Hints, Prompt
from sophia.routing.policies.hierarchical import Projection
from sophia.routing.policies.policy import Sight
from sophia.routing.sight import embed, features_of

COMPONENTS = 25
COST_STRENGTH = 10.0
# As much as the gateway keeps of a message: its two ends.
_KEPT_CHARS = 2000

Tell = Callable[[float], None]


class Fold(Struct, frozen=True):
    """One fold: which questions were learned from, and what is seen of all of them.

    Of a question that was learned from the task is known, as it is when a caller declares it.

    Attributes:
        train: (N,), whether a question was learned from.
        sights: of all questions.
        costs: (N, A), the expected cost by task; ones where no costs are recorded.
        projection: of the embedding to its first components.
    """

    train: NDArray[np.bool_]
    sights: tuple[Sight, ...]
    costs: Matrix
    projection: Projection


def read_texts(table: OutcomeTable, tell: Tell = lambda share: None) -> Texts:
    """Return token ids, embeddings and features of the questions; `tell` hears the share done."""
    static = read_embedding(files("sophia.routing").joinpath("data/embedding.npz").read_bytes())
    hints = Hints()
    ids, vectors, features = [], [], []
    for number, question in enumerate(table.questions):
        prompt = prompt_of(question)
        found, vector = embed(static, prompt)
        ids.append(found)
        vectors.append(vector)
        features.append(features_of(prompt, extract(prompt, hints), hints))
        tell((number + 1) / len(table.questions))
    return Texts(ids, np.array(vectors), np.array(features))


def prompt_of(question: Question) -> Prompt:
    """Return what routing may look at of a question that is sent as one message."""
    text, half = question.text, _KEPT_CHARS // 2
    size = len(text.encode("utf-8", "replace"))
    return Prompt(
        text if len(text) <= _KEPT_CHARS else text[:half] + text[-half:],
        chars=len(text),
        utf8_bytes=size,
        turns=question.turns,
        images=question.images,
        tools=question.tools,
        body_bytes=size,
    )


def fold_of(table: OutcomeTable, texts: Texts, train: NDArray[np.bool_]) -> Fold:
    """Learn the tasks from the questions in `train`, and return what is seen of all."""
    codes, names = table.task_codes(), table.tasks
    told = np.eye(len(names) + 1)[codes]
    model = train_tasks(texts.take(train), codes[train], names)
    tasks = told.copy()
    tasks[~train] = posteriors(model, texts.take(~train))
    scaled = np.array([model.standard(one) for one in texts.features])
    novelty = [model.novelty(vector) for vector in texts.embeddings]
    parts = zip(tasks, texts.embeddings, scaled, novelty, strict=True)
    costs = np.ones_like(table.quality) if table.cost is None else table.cost
    return Fold(
        train,
        tuple(Sight(*part) for part in parts),
        tasks @ task_means(told[train], costs[train], COST_STRENGTH),
        projection_of(texts.embeddings[train]),
    )


def task_means(tasks: Matrix, values: Matrix, strength: float) -> Matrix:
    """Return the mean of `values`, (N, A), by task, (T, A), drawn towards the mean of all."""
    weight = tasks.sum(axis=0)[:, None]
    means: Matrix = (tasks.T @ values + strength * values.mean(axis=0)) / (weight + strength)
    return means


def projection_of(embeddings: Matrix) -> Projection:
    """Return the first principal components of embeddings, (N, D), scaled to unit variance."""
    centre = embeddings.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((embeddings - centre).T))
    order = np.argsort(-values)[:COMPONENTS]
    order = order[values[order] > 1e-9]
    # The sign of a component is arbitrary, and must not depend on the machine.
    turned = vectors[:, order] * np.sign(vectors[:, order].sum(axis=0) + 1e-12)
    matrix = turned / np.sqrt(values[order])
    return Projection(matrix, centre @ matrix)
