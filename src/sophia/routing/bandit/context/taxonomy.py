"""The task classes of requests, as `data/taxonomy.yaml` lists them."""

from collections.abc import Mapping

import yaml
from msgspec import Struct, convert

from sophia.routing.types import TaskType


class TaskClass(Struct, frozen=True):
    """One class: its task type, and the kinds of benchmarks that measure it.

    The file also holds the labels and examples for training; see `lab.training.task_model`.
    """

    task_type: TaskType
    benchmark_kinds: tuple[str, ...]


Taxonomy = Mapping[str, TaskClass]


def parse_taxonomy(text: str) -> Taxonomy:
    """Return the taxonomy in `text`. Raises msgspec.ValidationError for another form."""
    # The compiled loader is ten times as fast; not every build of PyYAML has it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return convert(yaml.load(text, Loader=loader), dict[str, TaskClass])  # noqa: S506 - a safe loader
