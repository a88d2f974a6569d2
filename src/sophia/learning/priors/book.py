"""Prior quality of models by kind of work, from public ratings and benchmark tables.

An arm has the prior of the entry whose name means the same model; one without an entry starts at
the level of its pool. `lab/priors` fits these numbers. Price is not used: it says little about
quality.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from msgspec import DecodeError, Struct, json
from msgspec.structs import replace

from sophia.core.errors import ConfigError
from sophia.learning.priors.names import NameIndex, parse_model_name
from sophia.routing.bandit.policy import Prior

log = logging.getLogger("sophia.learning")

PRIORS_FILE = "priors.json"
_RESET_HINT = "Delete it to return to the shipped priors."

PriorBasis = Literal["rated", "measured", "successor", "size"]

MIN_SD = 0.03  # A benchmark is not the traffic: no prior is more certain than this.
UNKNOWN_SD = 0.15  # of an arm of which nothing is known


class ArmPrior(Struct, frozen=True):
    """Expected score of one arm and its spread by kind, with the basis and its tables or arm."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]
    basis: PriorBasis
    derived_from: tuple[str, ...] = ()


class PriorTable(Struct, frozen=True, kw_only=True):
    """Priors by kind of work; `kinds` has the order of every mean and sd.

    `by_size` is for arms without an entry whose name tells their parameters, by the most billions
    of a band; `sources` names the ratings and tables.
    """

    kinds: tuple[str, ...]
    arms: dict[str, ArmPrior]
    by_size: tuple[tuple[float, ArmPrior], ...]
    sources: tuple[str, ...]


class PriorBook:
    """Priors of arms, found by any spelling of a model's name."""

    def __init__(self, table: PriorTable) -> None:
        self.table = table
        # The same spelling may mean several entries: an id comes first, then an earlier release.
        self._index = NameIndex(sorted(table.arms, key=lambda arm: ("/" not in arm, arm)))
        self.column = {kind: at for at, kind in enumerate(table.kinds)}

    def find(self, arm: str) -> ArmPrior | None:
        """Return the prior of an arm; variants such as `:free` have that of the model."""
        for name in (arm, arm.partition(":")[0]):
            if name in self.table.arms:
                return self.table.arms[name]
        found = self._index.find(arm)
        if found is not None:
            return self.table.arms[found]
        size = parse_model_name(arm).billions
        if size is None:
            return None
        return next((prior for most, prior in self.table.by_size if size <= most), None)

    def build_prior(self, arm: str, classes: Sequence[Sequence[str]]) -> Prior | None:
        """Return an arm's prior over a taxonomy; None when nothing is known of it.

        `classes` holds the kinds that each class of the taxonomy is like; a class without any gets
        the mean of all kinds, with more uncertainty.
        """
        known = self.find(arm)
        if known is None:
            return None
        mean, variance = np.array(known.mean), np.array(known.sd) ** 2
        means, variances = [], []
        for kinds in classes:
            like = [self.column[kind] for kind in kinds if kind in self.column]
            means.append(mean[like or slice(None)].mean())
            variances.append(variance[like].mean() if like else variance.mean() + mean.var())
        return Prior(np.array(means), np.sqrt(variances))


class BenchmarkSource(Struct, frozen=True, kw_only=True):
    """Benchmark file that priors were fitted to; `credit` is the attribution it asks for.

    `arms` is the number of models with scores, `tasks` the benchmarks, `as_of` the date.
    """

    file: str
    sha256: str
    as_of: str
    credit: str
    arms: int
    tasks: tuple[str, ...]


class SavedPriors(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"created_ms": "made_ms", "sha256": "seal", "priors": "book"},
):
    """Priors fitted to newer benchmark files at a time in milliseconds since 1970.

    `sha256` is the digest of all other fields.
    """

    created_ms: int
    sources: tuple[BenchmarkSource, ...]
    priors: PriorTable
    sha256: str = ""

    def digest(self) -> str:
        """Return the right value of `sha256`."""
        content = json.encode(replace(self, sha256=""), order="deterministic")
        return hashlib.sha256(content).hexdigest()


@cache
def load_shipped_priors() -> PriorBook:
    """Return the shipped priors."""
    blob = files("sophia.routing").joinpath("data", PRIORS_FILE).read_bytes()
    return PriorBook(json.decode(blob, type=PriorTable))


def build_priors_reader(folder: Path) -> Callable[[], PriorBook]:
    """Return a function that returns the current priors: those saved in `folder`, else the shipped.

    The function reads a changed file again; one that became unreadable is logged and ignored.
    """
    path = folder / PRIORS_FILE
    last: tuple[tuple[int, int] | None, PriorBook] | None = None

    def read() -> PriorBook:
        nonlocal last
        stat = path.stat() if path.exists() else None
        stamp = None if stat is None else (stat.st_mtime_ns, stat.st_size)
        if last is not None and last[0] == stamp:
            return last[1]
        try:
            saved = read_saved_priors(folder)
            priors = load_shipped_priors() if saved is None else PriorBook(saved.priors)
        except ConfigError as error:
            if last is None:
                raise
            log.warning("the priors stay as they are: %s", error)
            priors = last[1]
        last = (stamp, priors)
        return priors

    return read


def write_saved_priors(folder: Path, saved: SavedPriors) -> None:
    """Write priors into a data folder, atomically."""
    fresh = folder / f"{PRIORS_FILE}.new"
    fresh.write_bytes(json.format(json.encode(saved), indent=1) + b"\n")
    fresh.replace(folder / PRIORS_FILE)


def read_saved_priors(folder: Path) -> SavedPriors | None:
    """Return the priors saved in a data folder; None without any.

    Raises:
        ConfigError: the file was edited, or cannot be read.
    """
    path = folder / PRIORS_FILE
    try:
        saved = json.decode(path.read_bytes(), type=SavedPriors)
    except FileNotFoundError:
        return None
    except (OSError, DecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. {_RESET_HINT}") from error
    if saved.sha256 != saved.digest():
        raise ConfigError(f"{path} was edited after it was written. {_RESET_HINT}")
    return saved
