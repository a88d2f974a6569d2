"""Benchmark tables joined under current model ids, and the names that they use."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml
from msgspec import Struct, convert, json
from msgspec.structs import replace

from sophia.routing.bandit.policy import Matrix

DATA = Path(__file__).parent / "data"

MIN_ANSWERS = 20
"""Scores over fewer answers are left out as too noisy."""


class BenchmarkMatrix(Struct, frozen=True):
    """Mean scores of A arms on T tasks, (T, A), NaN where there is none.

    `tasks` are named "source:task".
    """

    tasks: tuple[str, ...]
    arms: tuple[str, ...]
    score: Matrix

    @property
    def sources(self) -> tuple[str, ...]:
        """The table of each task."""
        return tuple(task.partition(":")[0] for task in self.tasks)

    def without(self, sources: Iterable[str] = (), arms: Iterable[str] = ()) -> "BenchmarkMatrix":
        """Return the tables without these sources and these arms."""
        left_out = set(sources)
        rows = [at for at, source in enumerate(self.sources) if source not in left_out]
        score, dropped = self.score[rows].copy(), set(arms)
        score[:, [at for at, arm in enumerate(self.arms) if arm in dropped]] = np.nan
        return replace(self, tasks=tuple(self.tasks[at] for at in rows), score=score)


class BenchmarkNames(Struct, frozen=True):
    """Names in benchmark tables and their meaning; see `lab/priors/data/priors.yaml`.

    Attributes:
        aliases: the name of a model by its names in tables.
        rated_as: the name of a model in Arena's ratings, where spelling does not tell.
        kinds: kinds of work with patterns of "source:task"; the first match wins.
        categories: the rating category that resembles a kind of work.
        levels: expected score of a model of the reference rating, for kinds without a table.
    """

    aliases: dict[str, str]
    rated_as: dict[str, str]
    kinds: list[tuple[str, str]]
    categories: dict[str, str]
    levels: dict[str, float]

    def find_kind(self, task: str) -> str:
        """Return the kind of work of a task, "source:task"."""
        return next(kind for kind, pattern in self.kinds if re.search(pattern, task))


def load_names() -> BenchmarkNames:
    """Return the names in the repository. Raises msgspec.ValidationError for another schema."""
    return convert(yaml.safe_load((DATA / "priors.yaml").read_text()), BenchmarkNames)


def average_scores(answers: Iterable[tuple[str, str, float]]) -> BenchmarkMatrix:
    """Return the mean scores of single answers, each with "source:task" and arm."""
    sums: dict[tuple[str, str], tuple[float, int]] = {}
    for task, arm, score in answers:
        total, count = sums.get((task, arm), (0.0, 0))
        sums[task, arm] = total + score, count + 1
    means = {place: total / count for place, (total, count) in sums.items() if count >= MIN_ANSWERS}
    return _build_matrix(means)


def encode_matrix(cells: BenchmarkMatrix) -> bytes:
    """Return tables as JSON: [task, arm, score]."""
    measured = zip(*np.nonzero(np.isfinite(cells.score)), strict=True)
    rows = [
        [cells.tasks[task], cells.arms[arm], round(float(cells.score[task, arm]), 4)]
        for task, arm in measured
    ]
    return json.encode(rows) + b"\n"


def decode_matrix(blob: bytes) -> BenchmarkMatrix:
    """Return the tables that `encode_matrix` wrote. Raises msgspec.ValidationError."""
    rows = json.decode(blob, type=list[tuple[str, str, float]])
    return _build_matrix({(task, arm): score for task, arm, score in rows})


def _build_matrix(means: dict[tuple[str, str], float]) -> BenchmarkMatrix:
    tasks, arms = (tuple(sorted({key[at] for key in means})) for at in (0, 1))
    score = np.full((len(tasks), len(arms)), np.nan)
    for (task, arm), mean in means.items():
        score[tasks.index(task), arms.index(arm)] = mean
    return BenchmarkMatrix(tasks, arms, score)
