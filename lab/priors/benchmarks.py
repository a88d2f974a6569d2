"""Benchmark tables joined under current model ids, and the priors fitted to them."""

import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from msgspec import Struct, convert, json
from msgspec.structs import replace

from lab.priors.factor_model import BenchmarkMatrix
from lab.priors.fit import fit_prior_book
from sophia.learning.feedback.judge_bias import model_families
from sophia.learning.priors.book import ArmPrior, PriorTable

DATA = Path(__file__).parent / "data"

MIN_ANSWERS = 20
"""Scores over fewer answers are left out as too noisy."""


class BenchmarkNames(Struct, frozen=True):
    """Names in benchmark tables and their meaning; see `lab/priors/data/priors.yaml`.

    Attributes:
        aliases: the name of a model by its names in tables.
        released: release dates of models, as fractional years.
        current_ids: measured models by the ids under which they are sold today.
        successors: measured predecessors by the current ids of their successors.
        generations: older and newer models of one line.
        kinds: kinds of work with patterns of "source:task"; the first match wins.
        prior_kinds: kinds that priors are published for; empty for all.
    """

    aliases: dict[str, str]
    released: dict[str, float]
    current_ids: dict[str, str]
    successors: dict[str, dict[str, Any]]
    generations: list[tuple[str, str]]
    kinds: list[tuple[str, str]]
    prior_kinds: list[str] = []


class BenchmarkScore(Struct, frozen=True):
    """Mean score of an arm, 0 to 1, over `answers` answers to a task of a source.

    `variance` is that of a single answer's score; None for scores of 0 or 1.
    """

    source: str
    task: str
    arm: str
    mean: float
    answers: int
    variance: float | None = None

    @property
    def standard_error(self) -> float:
        """The standard error of the mean."""
        known = self.mean * (1.0 - self.mean) if self.variance is None else self.variance
        # A quarter of an error is added, so that a perfect score keeps a standard error.
        return float(np.sqrt((known * self.answers + 0.25) / (self.answers + 1) / self.answers))


def parse_names(text: str) -> BenchmarkNames:
    """Return the names in `text`. Raises msgspec.ValidationError for another schema."""
    return convert(yaml.safe_load(text), BenchmarkNames)


def merge_scores(
    base: BenchmarkMatrix | None, scores: Iterable[BenchmarkScore], released: Mapping[str, float]
) -> BenchmarkMatrix:
    """Return `base` with these scores, which replace older ones of the same task and arm."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    years = dict(released)
    if base is not None:
        years |= {
            arm: year
            for arm, year in zip(base.arms, base.released, strict=True)
            if np.isfinite(year)
        }
        for task, arm in zip(*np.nonzero(np.isfinite(base.score)), strict=True):
            place = base.tasks[task], base.arms[arm]
            found[place] = float(base.score[task, arm]), float(base.error[task, arm])
    found |= {
        (f"{one.source}:{one.task}", one.arm): (one.mean, one.standard_error) for one in scores
    }
    tasks, arms = (tuple(sorted({key[at] for key in found})) for at in (0, 1))
    values = np.full((2, len(tasks), len(arms)), np.nan)
    task_at = {task: at for at, task in enumerate(tasks)}
    arm_at = {arm: at for at, arm in enumerate(arms)}
    for (task, arm), pair in found.items():
        values[:, task_at[task], arm_at[arm]] = pair
    return BenchmarkMatrix(
        tasks,
        tuple(task.partition(":")[0] for task in tasks),
        arms,
        tuple(map(infer_family, arms)),
        tuple(years.get(arm, np.nan) for arm in arms),
        values[0],
        values[1],
    )


def build_prior_book(
    cells: BenchmarkMatrix,
    names: BenchmarkNames,
    listed: set[str],
    anchors: Container[str] | None = None,
) -> PriorTable:
    """Return the priors under current ids; `listed` are the ids of the catalogue.

    Kinds that no class of requests resembles inform the abilities, but get no prior. `anchors` is
    as for `fit_prior_book`.
    """
    kinds = {task: find_kind(task, names) for task in cells.tasks}
    successors = {
        id: (str(one["of"]), int(one["generations"])) for id, one in names.successors.items()
    }
    successors |= {id: (same, 0) for id, same in names.current_ids.items()}
    whole = fit_prior_book(cells, kinds, successors, names.generations, listed, anchors=anchors)
    published = set(names.prior_kinds) or {kind for kind, _ in names.kinds}
    places = [at for at, kind in enumerate(whole.kinds) if kind in published]

    def select_kinds(one: ArmPrior) -> ArmPrior:
        mean, sd = (tuple(values[at] for at in places) for values in (one.mean, one.sd))
        return replace(one, mean=mean, sd=sd)

    return replace(
        whole,
        kinds=tuple(whole.kinds[at] for at in places),
        arms={arm: select_kinds(one) for arm, one in whole.arms.items()},
        families={name: select_kinds(one) for name, one in whole.families.items()},
        unknown_family=select_kinds(whole.unknown_family),
    )


def find_kind(task: str, names: BenchmarkNames) -> str:
    """Return the kind of work of a task, "source:task"."""
    return next(kind for kind, pattern in names.kinds if re.search(pattern, task))


def infer_family(arm: str) -> str:
    """Return the family of an arm, by its author or the first word of its name."""
    known = sorted(model_families(arm))
    # An unlisted author counts as a family, and so does the first word of a name without author.
    return known[0] if known else re.split(r"[-.\d]", arm.lower())[0]


def encode_matrix(cells: BenchmarkMatrix) -> bytes:
    """Return tables as JSON: arms with family and year, and (task, arm, score, error)."""
    measured = zip(*np.nonzero(np.isfinite(cells.score)), strict=True)
    arms = zip(cells.arms, cells.families, cells.released, strict=True)
    content = {
        "arms": [[arm, family, None if np.isnan(year) else year] for arm, family, year in arms],
        "cells": [
            [
                cells.tasks[task],
                cells.arms[arm],
                round(float(cells.score[task, arm]), 4),
                round(float(cells.error[task, arm]), 4),
            ]
            for task, arm in measured
        ],
    }
    return json.encode(content) + b"\n"


class _EncodedMatrix(Struct, frozen=True):
    arms: list[tuple[str, str, float | None]]
    cells: list[tuple[str, str, float, float]]


def decode_matrix(blob: bytes) -> BenchmarkMatrix:
    """Return the tables that `encode_matrix` wrote. Raises msgspec.ValidationError."""
    content = json.decode(blob, type=_EncodedMatrix)
    tasks = sorted({task for task, *_ in content.cells})
    arms = [arm for arm, *_ in content.arms]
    task_at = {task: at for at, task in enumerate(tasks)}
    arm_at = {arm: at for at, arm in enumerate(arms)}
    values = np.full((2, len(tasks), len(arms)), np.nan)
    for task, arm, mean, error in content.cells:
        values[:, task_at[task], arm_at[arm]] = mean, error
    years = tuple(np.nan if year is None else year for *_, year in content.arms)
    families = tuple(name for _, name, _ in content.arms)
    sources = tuple(task.partition(":")[0] for task in tasks)
    return BenchmarkMatrix(
        tuple(tasks), sources, tuple(arms), families, years, values[0], values[1]
    )
