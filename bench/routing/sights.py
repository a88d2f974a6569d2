"""What a policy sees of each question: read as the gateway would, the task told by other folds."""

from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from sophia.learning.tables import Matrix, OutcomeTable, Question
from sophia.learning.task_training import Texts, posteriors, train_tasks
from sophia.routing.embedding import Embedding, read_embedding
from sophia.routing.features import extract
from sophia.routing.nouns import Hints, Prompt
from sophia.routing.policies.hierarchical import Projection
from sophia.routing.policies.policy import Sight
from sophia.routing.sight import embed, features_of

TEXT_CHARS = 2000
COMPONENTS = 25
COST_STRENGTH = 10.0


@dataclass(frozen=True)
class Fold:
    """One fold: which questions were learned from, and what is seen of all of them.

    Of a question that was learned from the task is known, as it is when a caller declares it.
    """

    train: NDArray[np.bool_]
    sights: tuple[Sight, ...]
    costs: Matrix
    projection: Projection


def read_texts(table: OutcomeTable) -> Texts:
    """Return token ids, embeddings and features of the questions, read once for all folds."""
    embedding = _packaged()
    prompts = [prompt_of(question) for question in table.questions]
    hints = Hints()
    pairs = [embed(embedding, prompt) for prompt in prompts]
    return Texts(
        [ids for ids, _ in pairs],
        np.array([vector for _, vector in pairs]),
        np.array([features_of(one, extract(one, hints), hints) for one in prompts]),
    )


def prompt_of(question: Question) -> Prompt:
    """Return what routing may look at of a question that is sent as one message."""
    text = question.text
    half = TEXT_CHARS // 2
    size = len(text.encode("utf-8", "replace"))
    return Prompt(
        text if len(text) <= TEXT_CHARS else text[:half] + text[-half:],
        chars=len(text),
        utf8_bytes=size,
        turns=question.turns,
        tools=question.tools,
        images=question.images,
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
    sights = tuple(
        Sight(*parts) for parts in zip(tasks, texts.embeddings, scaled, novelty, strict=True)
    )
    costs = np.ones_like(table.quality) if table.cost is None else table.cost
    return Fold(
        train,
        sights,
        tasks @ task_means(told[train], costs[train], COST_STRENGTH),
        _projection(texts.embeddings[train]),
    )


def task_means(tasks: Matrix, values: Matrix, strength: float) -> Matrix:
    """Return the mean of `values`, (N, A), by task, (T, A), drawn towards the mean of all."""
    weight = tasks.sum(axis=0)[:, None]
    return (tasks.T @ values + strength * values.mean(axis=0)) / (weight + strength)


def _packaged() -> Embedding:
    return read_embedding(files("sophia.routing").joinpath("data/embedding.npz").read_bytes())


def _projection(embeddings: Matrix) -> Projection:
    """Return the first principal components, scaled to unit variance."""
    centre = embeddings.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((embeddings - centre).T))
    order = np.argsort(-values)[:COMPONENTS]
    order = order[values[order] > 1e-9]
    # The sign of a component is arbitrary, and must not depend on the machine.
    turned = vectors[:, order] * np.sign(vectors[:, order].sum(axis=0) + 1e-12)
    matrix = turned / np.sqrt(values[order])
    return Projection(matrix, centre @ matrix)
