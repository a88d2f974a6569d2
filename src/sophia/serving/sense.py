"""A request as numbers for the learned policy: what kind of task it is, and how surely."""

from collections.abc import Mapping

import numpy as np
from msgspec import Struct

from sophia.routing.embedding import Embedding
from sophia.routing.nouns import TASK_TYPES, Features, Hints, Prompt, TaskType
from sophia.routing.policies.policy import Sight, Vector
from sophia.routing.sight import embed, features_of
from sophia.routing.tasks import TaskModel, combine

DECLARED_TRUST = 0.9
_NOTHING = np.zeros(0)


class Glance(Struct, frozen=True):
    """A request as numbers; `text` is what its text alone says of the task, shape (T,)."""

    sight: Sight
    text: Vector


class Senses:
    """Tells the task of a request from its text; no text leaves it, only numbers do.

    Args:
        embedding: turns texts into vectors.
        tasks: tells the chances of each task.
        coarse: by class of `tasks` the plan's task type that it belongs to.
        shared: whether all keys are one team, who learn together.
    """

    def __init__(
        self,
        embedding: Embedding,
        tasks: TaskModel,
        coarse: Mapping[str, TaskType],
        *,
        shared: bool = False,
    ) -> None:
        self._embedding = embedding
        self._tasks = tasks
        self._shared = shared
        belongs = np.array(
            [
                [float(coarse.get(name) == task) for name in tasks.classes]
                for task in TASK_TYPES
            ]
        )
        spread = np.full(belongs.shape, (1.0 - DECLARED_TRUST) / belongs.shape[1])
        counts = np.maximum(belongs.sum(axis=1, keepdims=True), 1.0)
        self._declared = dict(
            zip(TASK_TYPES, spread + DECLARED_TRUST * belongs / counts, strict=True)
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that a sight's posterior is over."""
        return self._tasks.classes

    def __call__(self, prompt: Prompt, features: Features, hints: Hints, tenant: str) -> Sight:
        """Return what is seen of a request of `tenant`."""
        return self.glance(prompt, features, hints, tenant).sight

    def glance(self, prompt: Prompt, features: Features, hints: Hints, tenant: str) -> Glance:
        """Return what is seen of a request of `tenant`, and what its text alone says."""
        ids, vector = embed(self._embedding, prompt)
        text = self._tasks.posterior(ids, vector, features_of(prompt, features, hints))
        tasks = text
        if hints.task_type is not None:
            tasks = combine(text, self._declared[hints.task_type])
        sight = Sight(
            tasks, _NOTHING, _NOTHING, float(tasks[-1]), "" if self._shared else tenant
        )
        return Glance(sight, text)
