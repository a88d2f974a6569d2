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
    return convert(yaml.safe_load(text), dict[str, Kind])


def class_of(taxonomy: Taxonomy, task: str) -> str | None:
    """Return the class that a table's `task` belongs to: the first that names it, or None."""
    for name, kind in taxonomy.items():
        if any(fnmatch(task, pattern) for pattern in kind.tasks):
            return name
    return None
