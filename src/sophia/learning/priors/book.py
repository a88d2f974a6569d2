"""Prior quality of models by kind of work, read from the fitted benchmark tables.

A measured arm gets its own scores, a successor those of its predecessor, any other arm the mean of
its family; each with the spread that held-out tables had. `lab/priors` fits these numbers. Price is
not used: it says little about quality.
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
from sophia.learning.feedback.judge_bias import model_families
from sophia.routing.bandit.policy import Prior

log = logging.getLogger("sophia.learning")

PRIORS_FILE = "priors.json"
_RESET_HINT = "Delete it to return to the shipped priors."

PriorBasis = Literal["measured", "successor", "unmeasured"]

MIN_SD = 0.03  # A benchmark is not the traffic: no prior is more certain than this.
UNMEASURED_SD_RANGE = (0.10, 0.15)  # of an arm without a benchmark, by kind


class ArmPrior(Struct, frozen=True):
    """Expected score of one arm and its spread by kind, with the basis and its tables or arm."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]
    basis: PriorBasis
    derived_from: tuple[str, ...] = ()


class PriorTable(Struct, frozen=True, kw_only=True):
    """Priors by kind of work; `kinds` has the order of every mean and sd.

    `families` and `unknown_family` are for arms without a prior of their own; the variance was
    multiplied by `variance_inflation` to fit held-out tables; `sources` names the tables.
    """

    kinds: tuple[str, ...]
    arms: dict[str, ArmPrior]
    families: dict[str, ArmPrior]
    unknown_family: ArmPrior
    variance_inflation: float
    sources: tuple[str, ...]


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


def find_arm_prior(book: PriorTable, arm: str) -> ArmPrior:
    """Return the prior of an arm; variants such as `:free` have that of the model."""
    for name in (arm, arm.partition(":")[0]):
        if name in book.arms:
            return book.arms[name]
    known = [book.families[name] for name in sorted(model_families(arm)) if name in book.families]
    return known[0] if known else book.unknown_family


def build_arm_prior(book: PriorTable, arm: str, classes: Sequence[Sequence[str]]) -> Prior:
    """Return an arm's prior over a taxonomy.

    `classes` holds the kinds that each class of the taxonomy is like; a class without any gets the
    mean of all kinds, with more uncertainty.
    """
    known = find_arm_prior(book, arm)
    mean, variance = np.array(known.mean), np.array(known.sd) ** 2
    column = {kind: at for at, kind in enumerate(book.kinds)}
    means, variances = [], []
    for kinds in classes:
        like = [column[kind] for kind in kinds if kind in column]
        means.append(mean[like or slice(None)].mean())
        variances.append(variance[like].mean() if like else variance.mean() + mean.var())
    return Prior(np.array(means), np.sqrt(variances))


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
def load_shipped_priors() -> PriorTable:
    """Return the shipped priors."""
    blob = files("sophia.routing").joinpath("data", PRIORS_FILE).read_bytes()
    return json.decode(blob, type=PriorTable)


def build_priors_reader(folder: Path) -> Callable[[], PriorTable]:
    """Return a function that returns the current priors: those saved in `folder`, else the shipped.

    The function reads a changed file again; one that became unreadable is logged and ignored.
    """
    path = folder / PRIORS_FILE
    last: tuple[tuple[int, int] | None, PriorTable] | None = None

    def read() -> PriorTable:
        nonlocal last
        stat = path.stat() if path.exists() else None
        stamp = None if stat is None else (stat.st_mtime_ns, stat.st_size)
        if last is not None and last[0] == stamp:
            return last[1]
        try:
            saved = read_saved_priors(folder)
            priors = load_shipped_priors() if saved is None else saved.priors
        except ConfigError as error:
            if last is None:
                raise
            log.warning("the priors stay as they are: %s", error)
            priors = last[1]
        last = (stamp, priors)
        return priors

    return read


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
