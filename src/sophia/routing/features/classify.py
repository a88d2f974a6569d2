"""Task classifier: the trained task model decides the task type on every path.

Deterministic; a small memo spares repeated prompts (retries, health checks) the same work.
"""

from collections.abc import Mapping

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from sophia.core.bounded import BoundedDict
from sophia.routing.bandit.context.embedding import EmbeddingModel, truncate_middle
from sophia.routing.bandit.context.surface import build_feature_vector
from sophia.routing.bandit.context.task_model import (
    DECLARED_TRUST,
    TaskModel,
    combine_evidence,
    hash_text,
)
from sophia.routing.bandit.policy import Vector
from sophia.routing.features.extract import estimate_output_tokens, extract_features
from sophia.routing.types import TASK_TYPES, Features, Hints, Prompt, TaskType

REWRITING_CLASSES = ("translation", "editing")
_GENERAL = TASK_TYPES.index("general")
_MAX_REMEMBERED = 1000


class ClassifiedRequest(Struct, frozen=True):
    """Features of a request and its task posteriors, shape (T,).

    `posterior` includes the declared task type, `text_posterior` follows from the text alone.
    """

    features: Features
    posterior: Vector
    text_posterior: Vector


class TaskClassifier:
    """Classifier of requests by task.

    `task_types` holds the task type of each class; a class without one counts as general.
    """

    def __init__(
        self, embedding: EmbeddingModel, task_model: TaskModel, task_types: Mapping[str, TaskType]
    ) -> None:
        self.classes = task_model.classes
        self._embedding = embedding
        self._task_model = task_model
        columns = [TASK_TYPES.index(task_types.get(name, "general")) for name in self.classes]
        # (4, T): which classes belong to which task type.
        self._members = (np.arange(len(TASK_TYPES))[:, None] == np.array(columns)).astype(float)
        declarable = self._members.copy()
        declarable[_GENERAL] = [task_types.get(name) == "general" for name in self.classes]
        # (T,): which classes give a text back in about its own length.
        self._rewriting = np.array([name in REWRITING_CLASSES for name in self.classes], float)
        counts = np.maximum(declarable.sum(axis=1, keepdims=True), 1.0)
        spread = (1.0 - DECLARED_TRUST) / len(self.classes)
        self._declared = dict(
            zip(TASK_TYPES, spread + DECLARED_TRUST * declarable / counts, strict=True)
        )
        self._remembered: BoundedDict[int, ClassifiedRequest] = BoundedDict(_MAX_REMEMBERED)

    def encode(self, prompt: Prompt, hints: Hints) -> ClassifiedRequest:
        """Return the features and posteriors of a request; a declared task type stands."""
        cost = hints.cost_sensitive
        key = hash((prompt, hints.task_type, hints.complexity, hints.max_latency_ms, cost))
        encoded = self._remembered.get(key)
        if encoded is None:
            encoded = self._remembered[key] = self._encode(prompt, hints)
        return encoded

    def _encode(self, prompt: Prompt, hints: Hints) -> ClassifiedRequest:
        features = extract_features(prompt, hints)
        text = truncate_middle(prompt.text)
        ids = self._embedding.tokenize(text)
        numbers = build_feature_vector(prompt, features, text)
        buckets = hash_text(ids, text)
        posterior = self._task_model.posterior(buckets, self._embedding.embed(ids), numbers)
        if hints.task_type is not None:
            combined = combine_evidence(posterior, self._declared[hints.task_type])
            return ClassifiedRequest(features, combined, posterior)
        by_type = (self._members @ posterior).tolist()
        best = max(range(len(by_type)), key=by_type.__getitem__)
        task = TASK_TYPES[best]
        features = replace(
            features,
            task_type=task,
            task_confidence=round(by_type[best], 3),
            output_tokens=self._expect_output(prompt, posterior, task, features),
        )
        return ClassifiedRequest(features, posterior, posterior)

    def _expect_output(
        self, prompt: Prompt, posterior: Vector, task: TaskType, features: Features
    ) -> int:
        """Return the expected tokens of one choice: a translation is about as long as its text."""
        usual = estimate_output_tokens(prompt, task, features.complexity)
        longer = max(features.prompt_tokens - usual, 0)
        expected = usual + round(float(posterior @ self._rewriting) * longer)
        return expected if prompt.max_tokens is None else min(expected, prompt.max_tokens)
