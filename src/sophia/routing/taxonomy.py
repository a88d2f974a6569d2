"""The kinds of task that requests are told apart by, as `data/taxonomy.yaml` lists them."""

from collections.abc import Mapping
from fnmatch import fnmatch

import yaml
from msgspec import Struct, convert

from sophia.routing.nouns import TaskType


class Kind(Struct, frozen=True, forbid_unknown_fields=True):
    """One class: the plan's type, the benchmarks that tell of it, its labels and its seeds."""

    type: TaskType
    kinds: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()


Taxonomy = Mapping[str, Kind]


def read_taxonomy(text: str) -> Taxonomy:
    """Return the taxonomy in `text`. Raises msgspec.ValidationError when it has another form."""
    # The compiled loader is ten times as fast; not every build of PyYAML has it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return convert(yaml.load(text, Loader=loader), dict[str, Kind])  # noqa: S506 - a safe loader


def class_of(taxonomy: Taxonomy, task: str) -> str | None:
    """Return the class that a table's `task` belongs to: the first that names it, or None."""
    for name, kind in taxonomy.items():
        if any(fnmatch(task, pattern) for pattern in kind.tasks):
            return name
    return None
