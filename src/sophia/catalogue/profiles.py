"""The models that Sophia chooses among, by role, and the successors of retired names."""

from collections.abc import Iterator

import msgspec
import yaml

from sophia.catalogue.model import ModelProfile


class CatalogueError(ValueError):
    """The catalogue's data cannot be used."""


class ModelReplacement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The id that is served in place of a retired name, and the reason."""

    successor: str
    reason: str


class ModelProfiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `profiles.yaml`."""

    profiles: tuple[ModelProfile, ...] = ()
    retired: dict[str, ModelReplacement] = {}

    def replacements(self, id: str) -> Iterator[ModelReplacement]:
        """Yield the replacements of `id`, the best first."""
        if id in self.retired:
            yield self.retired[id]
        for profile in self.profiles:
            if profile.id == id:
                yield from (ModelReplacement(id, "no longer listed") for id in profile.successors)


def parse_profiles(text: str | bytes) -> ModelProfiles:
    """Return the content of a profiles file. Raises CatalogueError for any other text."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # Both loaders build plain values only; the one in C saves the start 8 ms.
        return msgspec.convert(yaml.load(text, Loader=loader), ModelProfiles)  # noqa: S506 - both are safe
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CatalogueError(f"profiles: {error}") from error
