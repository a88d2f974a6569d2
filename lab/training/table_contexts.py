"""Routing contexts of a table's questions, with task posteriors from other folds."""

from collections.abc import Callable, Sequence
from importlib.resources import files

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from lab.evaluation.tables import Matrix, OutcomeTable, Question
from lab.training.task_training import EncodedTexts, predict_posteriors, train_task_model
from sophia.routing.bandit.context.embedding import load_embedding_model, truncate_middle
from sophia.routing.bandit.context.surface import build_feature_vector
from sophia.routing.bandit.context.task_model import hash_text
from sophia.routing.bandit.policy import PolicyContext, Vector
from sophia.routing.features.extract import extract_features
from sophia.routing.types import Hints, Prompt

COMPONENTS = 25
COST_STRENGTH = 10.0
# The gateway keeps this much of a message: its two ends.
_KEPT_CHARS = 2000

ProgressCallback = Callable[[float], None]


class TableContext(PolicyContext, frozen=True, kw_only=True):
    """A request's context with the input vectors of the baselines.

    Attributes:
        embedding: shape (D,), L2-normalised; zeros without text.
        features: shape (F,), surface features as the task model scales them.
    """

    embedding: Vector
    features: Vector


class Projection(Struct, frozen=True):
    """Principal components of an embedding, (D,), of about unit variance: e @ matrix - centre.

    Attributes:
        matrix: shape (D, K).
        centre: shape (K,).
    """

    matrix: Matrix
    centre: Vector


class Fold(Struct, frozen=True):
    """One fold: the training mask, and the contexts of all questions.

    Training questions have their true task, as requests that declare it do.

    Attributes:
        train: (N,), whether a question is in the training set.
        contexts: of all questions.
        expected_costs: (N, A), the expected cost by task; ones where no costs are recorded.
        projection: the principal components of the training embeddings.
    """

    train: NDArray[np.bool_]
    contexts: tuple[TableContext, ...]
    expected_costs: Matrix
    projection: Projection


def encode_questions(
    questions: Sequence[Question], report_progress: ProgressCallback = lambda share: None
) -> EncodedTexts:
    """Return token ids, embeddings and features of the questions.

    `report_progress` is called with the share that is done.
    """
    static = load_embedding_model(
        files("sophia.routing").joinpath("data/embedding.npz").read_bytes()
    )
    hints = Hints()
    buckets, vectors, features = [], [], []
    for number, question in enumerate(questions):
        prompt = build_prompt(question)
        text = truncate_middle(prompt.text)
        ids = static.tokenize(text)
        buckets.append(hash_text(ids, text))
        vectors.append(static.embed(ids))
        features.append(build_feature_vector(prompt, extract_features(prompt, hints), text))
        report_progress((number + 1) / len(questions))
    return EncodedTexts(buckets, np.array(vectors), np.array(features))


def build_prompt(question: Question) -> Prompt:
    """Return a question as the prompt that routing sees, sent as one message."""
    text, half = question.text, _KEPT_CHARS // 2
    size = len(text.encode("utf-8", "replace"))
    return Prompt(
        text=text if len(text) <= _KEPT_CHARS else text[:half] + text[-half:],
        chars=len(text),
        utf8_bytes=size,
        turns=question.turns,
        images=question.images,
        tools=question.tools,
        body_bytes=size,
    )


def build_fold(table: OutcomeTable, texts: EncodedTexts, train: NDArray[np.bool_]) -> Fold:
    """Train the task model on the questions in `train`, and return the contexts of all."""
    codes, names = table.task_codes(), table.tasks
    true_tasks = np.eye(len(names) + 1)[codes]
    model = train_task_model(texts.select(train), codes[train], names)
    tasks = true_tasks.copy()
    tasks[~train] = predict_posteriors(model, texts.select(~train))
    costs = np.ones_like(table.quality) if table.cost is None else table.cost
    return Fold(
        train,
        tuple(
            TableContext(
                task_probabilities,
                model.novelty(embedding),
                embedding=embedding,
                features=model.standardize(features),
            )
            for task_probabilities, embedding, features in zip(
                tasks, texts.embeddings, texts.features, strict=True
            )
        ),
        tasks @ compute_task_means(true_tasks[train], costs[train], COST_STRENGTH),
        fit_projection(texts.embeddings[train]),
    )


def compute_task_means(tasks: Matrix, values: Matrix, strength: float) -> Matrix:
    """Return the mean of `values`, (N, A), by task, (T, A), shrunk to the mean of all."""
    weight = tasks.sum(axis=0)[:, None]
    means: Matrix = (tasks.T @ values + strength * values.mean(axis=0)) / (weight + strength)
    return means


def fit_projection(embeddings: Matrix) -> Projection:
    """Return the first principal components of embeddings, (N, D), scaled to unit variance."""
    centre = embeddings.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((embeddings - centre).T))
    order = np.argsort(-values)[:COMPONENTS]
    order = order[values[order] > 1e-9]
    # The sign of a component is arbitrary, and must not depend on the machine.
    oriented = vectors[:, order] * np.sign(vectors[:, order].sum(axis=0) + 1e-12)
    matrix = oriented / np.sqrt(values[order])
    return Projection(matrix, centre @ matrix)
