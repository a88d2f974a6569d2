"""Benchmark tables joined under the names of today, and the priors that they come to."""

import re
from collections.abc import Container, Iterable, Mapping
from typing import Any

import numpy as np
import yaml
from msgspec import Struct, convert, json
from msgspec.structs import replace

from sophia.learning.factor import Cells
from sophia.learning.judging import families
from sophia.learning.priors import Book, Standing, book

LEAST_ANSWERS = 20
"""A mean of fewer answers than this says too little of a model."""


class Names(Struct, frozen=True):
    """What names in benchmark tables stand for; see `routing/data/priors.yaml`.

    Attributes:
        same: the name of a model by the names that tables have for it.
        released: when a model came out, as a year with its fraction.
        today: measured models by the ids under which they are sold today.
        successors: measured forebears by the ids of today that follow them.
        generations: older and newer models of one line.
        kinds: kinds of work with patterns of "source:task"; the first that is found wins.
        told: kinds that are told of arms beside those of the shipped tables.
    """

    same: dict[str, str]
    released: dict[str, float]
    today: dict[str, str]
    successors: dict[str, dict[str, Any]]
    generations: list[tuple[str, str]]
    kinds: list[tuple[str, str]]
    told: list[str] = []


class Score(Struct, frozen=True):
    """The mean score of an arm, 0 to 1, over so many answers to a task of a source.

    `variance` is that of a single answer's score; None where answers are right or wrong.
    """

    source: str
    task: str
    arm: str
    mean: float
    answers: int
    variance: float | None = None

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        known = self.mean * (1.0 - self.mean) if self.variance is None else self.variance
        # A quarter of a miss is added, so that a perfect score is not taken for certain.
        return float(np.sqrt((known * self.answers + 0.25) / (self.answers + 1) / self.answers))


def read_names(text: str) -> Names:
    """Return the names in `text`. Raises msgspec.ValidationError when it has another form."""
    return convert(yaml.safe_load(text), Names)


def joined(known: Cells | None, scores: Iterable[Score], released: Mapping[str, float]) -> Cells:
    """Return tables with these scores; a newer score of the same task and arm replaces an older."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    years = dict(released)
    if known is not None:
        years |= {
            arm: year
            for arm, year in zip(known.arms, known.released, strict=True)
            if np.isfinite(year)
        }
        for task, arm in zip(*np.nonzero(np.isfinite(known.score)), strict=True):
            place = known.tasks[task], known.arms[arm]
            found[place] = float(known.score[task, arm]), float(known.error[task, arm])
    found |= {(f"{one.source}:{one.task}", one.arm): (one.mean, one.error) for one in scores}
    tasks, arms = (tuple(sorted({key[at] for key in found})) for at in (0, 1))
    values = np.full((2, len(tasks), len(arms)), np.nan)
    task_at = {task: at for at, task in enumerate(tasks)}
    arm_at = {arm: at for at, arm in enumerate(arms)}
    for (task, arm), pair in found.items():
        values[:, task_at[task], arm_at[arm]] = pair
    return Cells(
        tasks,
        tuple(task.partition(":")[0] for task in tasks),
        arms,
        tuple(map(family, arms)),
        tuple(years.get(arm, np.nan) for arm in arms),
        values[0],
        values[1],
    )


def made_of(
    cells: Cells, names: Names, listed: set[str], anchors: Container[str] | None = None
) -> Book:
    """Return the priors, with the names of today; `listed` are today's ids.

    Kinds that no class of requests is like place the arms, but are not told of them. `anchors` is
    as for `priors.book`.
    """
    kinds = {task: kind_of(task, names) for task in cells.tasks}
    heirs = {id: (str(one["of"]), int(one["generations"])) for id, one in names.successors.items()}
    heirs |= {id: (same, 0) for id, same in names.today.items()}
    whole = book(cells, kinds, heirs, names.generations, listed, anchors=anchors)
    told = {kind for kind, _ in names.kinds} if not names.told else set(names.told)
    places = [at for at, kind in enumerate(whole.kinds) if kind in told]

    def cut(one: Standing) -> Standing:
        mean, sd = (tuple(values[at] for at in places) for values in (one.mean, one.sd))
        return replace(one, mean=mean, sd=sd)

    return replace(
        whole,
        kinds=tuple(whole.kinds[at] for at in places),
        arms={arm: cut(one) for arm, one in whole.arms.items()},
        families={name: cut(one) for name, one in whole.families.items()},
        stranger=cut(whole.stranger),
    )


def kind_of(task: str, names: Names) -> str:
    """Return the kind of work that a task, "source:task", is."""
    return next(kind for kind, pattern in names.kinds if re.search(pattern, task))


def family(arm: str) -> str:
    """Return the family that an arm's ability is thought to be like."""
    known = sorted(families(arm))
    # An unlisted author is a family; a bare name's first word is.
    return known[0] if known else re.split(r"[-.\d]", arm.lower())[0]


def encode_cells(cells: Cells) -> bytes:
    """Return tables as JSON: arms with family and year, and (task, arm, score, error)."""
    seen = zip(*np.nonzero(np.isfinite(cells.score)), strict=True)
    arms = zip(cells.arms, cells.families, cells.released, strict=True)
    told = {
        "arms": [[arm, kin, None if np.isnan(year) else year] for arm, kin, year in arms],
        "cells": [
            [
                cells.tasks[task],
                cells.arms[arm],
                round(float(cells.score[task, arm]), 4),
                round(float(cells.error[task, arm]), 4),
            ]
            for task, arm in seen
        ],
    }
    return json.encode(told) + b"\n"


class _Told(Struct, frozen=True):
    arms: list[tuple[str, str, float | None]]
    cells: list[tuple[str, str, float, float]]


def decode_cells(blob: bytes) -> Cells:
    """Return the tables that `encode_cells` wrote. Raises msgspec.ValidationError."""
    told = json.decode(blob, type=_Told)
    tasks = sorted({task for task, *_ in told.cells})
    arms = [arm for arm, *_ in told.arms]
    task_at = {task: at for at, task in enumerate(tasks)}
    arm_at = {arm: at for at, arm in enumerate(arms)}
    values = np.full((2, len(tasks), len(arms)), np.nan)
    for task, arm, mean, error in told.cells:
        values[:, task_at[task], arm_at[arm]] = mean, error
    years = tuple(np.nan if year is None else year for *_, year in told.arms)
    kin = tuple(name for _, name, _ in told.arms)
    sources = tuple(task.partition(":")[0] for task in tasks)
    return Cells(tuple(tasks), sources, tuple(arms), kin, years, values[0], values[1])
