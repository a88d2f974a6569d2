"""The models that Sophia chooses among, by role, and the successors of names that are gone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import yaml

from sophia.catalogue.model import Profile

_TASKS = ("coding", "analysis", "creative", "general")


class CatalogueError(ValueError):
    """The catalogue's data cannot be used."""


@dataclass(frozen=True, slots=True)
class Retirement:
    """What is served in place of a name that is gone, and why."""

    successor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One profile, the id that plays it, and who follows when that id is no longer listed."""

    id: str
    profile: Profile
    successors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profiles:
    """Everything that `profiles.yaml` says, in its order."""

    entries: tuple[Entry, ...] = ()
    retired: Mapping[str, Retirement] = field(default_factory=dict)

    def heirs(self, id: str) -> Iterator[Retirement]:
        """Yield who may be served in place of `id`, the best first."""
        if id in self.retired:
            yield self.retired[id]
        for entry in self.entries:
            if entry.id == id:
                yield from (Retirement(heir, "no longer listed") for heir in entry.successors)


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    name: str
    role: str
    quality: dict[str, float]
    latency_ms: int
    tokens_per_second: int
    tags: tuple[str, ...] = ()
    successors: tuple[str, ...] = ()

    def entry(self) -> Entry:
        missing = [task for task in _TASKS if not 0 <= self.quality.get(task, -1) <= 1]
        if missing:
            raise CatalogueError(f"profile {self.id}: quality.{missing[0]} must be from 0 to 1")
        if self.latency_ms <= 0 or self.tokens_per_second <= 0:
            raise CatalogueError(f"profile {self.id}: latency_ms and tokens_per_second must be > 0")
        profile = Profile(
            self.name,
            self.role,
            self.tags,
            self.quality,
            self.latency_ms,
            self.tokens_per_second,
        )
        return Entry(self.id, profile, self.successors)


class _Retirement(msgspec.Struct, forbid_unknown_fields=True):
    successor: str
    reason: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    profiles: list[_Entry]
    retired: dict[str, _Retirement] = {}


def parse_profiles(text: str | bytes) -> Profiles:
    """Return what a profiles file says.

    Raises:
        CatalogueError: it is not YAML, or not of the form of the file that Sophia ships.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # Both loaders build plain values only; the one in C saves the start 8 ms.
        file = msgspec.convert(yaml.load(text, Loader=loader), _File)  # noqa: S506 - both are safe
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CatalogueError(f"profiles: {error}") from error
    retired = {old: Retirement(r.successor, r.reason) for old, r in file.retired.items()}
    return Profiles(tuple(entry.entry() for entry in file.profiles), retired)
