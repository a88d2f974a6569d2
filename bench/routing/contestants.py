"""The policies that are compared: those of the product, and the best of them without its text."""

from collections.abc import Mapping

from sophia.learning import forecasts
from sophia.learning.forecasts import Make
from sophia.routing.policies.hierarchical import Hierarchical, Projection, Shape
from sophia.routing.policies.policy import Learner, Sight


def _without_text(sight: Sight, projection: Projection) -> Learner:
    return Hierarchical(Shape(len(sight.tasks), len(sight.embedding), len(sight.features)))


_FIRST = ("hierarchical", "hierarchical_no_text", "task_mean", "linucb")
_ALL = {**forecasts.POLICIES, "hierarchical_no_text": _without_text}

POLICIES: Mapping[str, Make] = {name: _ALL[name] for name in (*_FIRST, *_ALL)}
"""In the order of the published tables."""
