"""The policies that are compared, in the order of the published tables."""

from collections.abc import Mapping

from lab.evaluation.forecasts import LEARNERS, Forecast

_FIRST = ("hierarchical", "task_mean", "linucb")

POLICIES: Mapping[str, Forecast] = {name: LEARNERS[name] for name in (*_FIRST, *LEARNERS)}
