"""Expected quality of a model by task type, from the same priors as the learned policy."""

from collections.abc import Callable

import numpy as np

from sophia.learning.priors.book import PriorTable, build_arm_prior
from sophia.routing.bandit.context.taxonomy import Taxonomy
from sophia.routing.pool import QualityByTask, QualityPrior
from sophia.routing.types import TASK_TYPES


def build_quality_prior(read_book: Callable[[], PriorTable], taxonomy: Taxonomy) -> QualityPrior:
    """Return the quality prior of models: the mean over the classes of each task type."""
    classes = list(taxonomy.values())
    kinds = [task_class.benchmark_kinds for task_class in classes]
    members = {
        task: [at for at, task_class in enumerate(classes) if task_class.task_type == task]
        for task in TASK_TYPES
    }

    def quality_prior(model: str) -> QualityByTask:
        mean = build_arm_prior(read_book(), model, kinds).mean
        return {task: round(float(np.mean(mean[at])), 4) for task, at in members.items() if at}

    return quality_prior
