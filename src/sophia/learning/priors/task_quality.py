"""Expected quality of a model by task type, from the same priors as the learned policy."""

from collections.abc import Callable

import numpy as np

from sophia.learning.priors.book import PriorBook
from sophia.routing.bandit.context.taxonomy import Taxonomy
from sophia.routing.pool import QualityByTask, QualityPrior
from sophia.routing.roles import SkillRating
from sophia.routing.types import TASK_TYPES


def build_skill_rating(read_book: Callable[[], PriorBook]) -> SkillRating:
    """Return the rating of models over kinds of work; of no model by its size alone."""

    def rate(model: str, skills: tuple[str, ...]) -> float | None:
        book = read_book()
        prior = book.find(model)
        if prior is None or prior.basis == "size":
            return None
        return float(np.mean([prior.mean[book.column[skill]] for skill in skills]))

    return rate


def build_quality_prior(read_book: Callable[[], PriorBook], taxonomy: Taxonomy) -> QualityPrior:
    """Return the quality prior of models: the mean over the classes of each task type."""
    classes = list(taxonomy.values())
    kinds = [task_class.benchmark_kinds for task_class in classes]
    members = {
        task: [at for at, task_class in enumerate(classes) if task_class.task_type == task]
        for task in TASK_TYPES
    }

    def quality_prior(model: str) -> QualityByTask:
        prior = read_book().build_prior(model, kinds)
        if prior is None:
            return {}
        mean = prior.mean
        return {task: round(float(np.mean(mean[at])), 4) for task, at in members.items() if at}

    return quality_prior
