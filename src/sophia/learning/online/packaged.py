"""Models and tables of tasks that ship with Sophia."""

from functools import cache
from importlib.resources import files

import numpy as np

from sophia.learning.online.probed import TaskKindWeights
from sophia.learning.priors.book import load_shipped_priors
from sophia.learning.priors.probes import Probe, parse_probes
from sophia.routing.bandit.context.embedding import load_embedding_model
from sophia.routing.bandit.context.task_model import load_task_model
from sophia.routing.bandit.context.taxonomy import Taxonomy, parse_taxonomy
from sophia.routing.features.classify import TaskClassifier


@cache
def load_classifier() -> TaskClassifier:
    """Return the classifier of requests by task."""
    task_types = {name: task.task_type for name, task in load_taxonomy().items()}
    embedding = load_embedding_model(_read("embedding.npz"))
    return TaskClassifier(embedding, load_task_model(_read("tasks.npz")), task_types)


@cache
def load_taxonomy() -> Taxonomy:
    """Return the tasks with their coarse types and kinds of work."""
    return parse_taxonomy(_read("taxonomy.yaml").decode())


@cache
def load_probes() -> tuple[Probe, ...]:
    """Return the questions that new models are probed with."""
    return parse_probes(_read("probes.yaml").decode())


def load_task_names() -> tuple[str, ...]:
    """Return the names of the tasks."""
    return load_classifier().classes


def load_task_kinds() -> list[tuple[str, ...]]:
    """Return the kinds of work that each task is like."""
    taxonomy = load_taxonomy()
    return [
        taxonomy[name].benchmark_kinds if name in taxonomy else () for name in load_task_names()
    ]


def load_task_kind_weights() -> TaskKindWeights:
    """Return the kinds of work of the priors, and how the tasks are spread over them."""
    names, tasks = load_shipped_priors().table.kinds, load_task_kinds()
    column = {kind: index for index, kind in enumerate(names)}
    weights = np.zeros((len(tasks), len(names)))
    for row, kinds in enumerate(tasks):
        # A task like no kind is like all of them.
        weights[row, [column[kind] for kind in kinds if kind in column] or slice(None)] = 1.0
    return TaskKindWeights(names, weights / weights.sum(axis=1, keepdims=True))


def _read(name: str) -> bytes:
    return files("sophia.routing").joinpath("data", name).read_bytes()
