"""Write src/sophia/routing/data/priors.json from the benchmark tables that may be shipped.

    python scripts/build_priors.py --data ../shared/data/routing

The same tables always give the same file. `scripts/priors.yaml` says which names are one model.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml

from sophia.learning.factor import Cells
from sophia.learning.held_out import Held, held_out
from sophia.learning.judging import families
from sophia.learning.priors import Book, book, encode

SOURCES = ("zeroeval", "mmlu_pro", "routellm", "paretobandit", "lineage_2025h1")
LEAST_ANSWERS = 20
HERE = Path(__file__).parent
CATALOGUE = HERE.parent / "src" / "sophia" / "catalogue" / "data" / "models.json"
WRITTEN = HERE.parent / "src" / "sophia" / "routing" / "data" / "priors.json"


def main() -> None:
    """Write the file, and say how far off it was on tables that it had not seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=WRITTEN)
    parser.add_argument("--cells", type=Path, help="write the joined tables, too, for the tests")
    options = parser.parse_args()
    names = yaml.safe_load((HERE / "priors.yaml").read_text())
    cells = read(options.data, names)
    listed = {row["id"] for row in json.loads(CATALOGUE.read_text())["data"]}
    made = build(cells, names, listed)
    options.out.write_bytes(encode(made))
    if options.cells:
        options.cells.write_bytes(msgspec.json.encode(msgspec.to_builtins(rows(cells))) + b"\n")
    print(f"{len(cells.tasks)} tasks, {len(cells.arms)} arms, {len(made.arms)} standings")
    print(f"variance widened {made.spread:.2f}-fold to fit held-out tables")
    for title, whole in (("an unseen table", True), ("a single cell", False)):
        told = held_out(cells, whole=whole)
        for known in (True, False):
            part = [one for one in told if one.known == known]
            if part:
                print(f"{title}, {'known' if known else 'unknown'} elsewhere: {errors(part)}")


def read(data: Path, names: dict[str, Any]) -> Cells:
    """Return the mean score of every arm on every task of the tables below `data`."""
    from pyarrow import parquet

    scores: dict[tuple[str, str], list[float]] = {}
    for source in SOURCES:
        asked = parquet.read_table(data / source / "queries.parquet", columns=["query_id", "task"])
        task = dict(zip(*(asked[name].to_pylist() for name in asked.column_names), strict=True))
        columns = ["query_id", "model", "score"]
        told = parquet.read_table(data / source / "outcomes.parquet", columns=columns)
        for query, model, score in zip(*(told[name].to_pylist() for name in columns), strict=True):
            if score is not None and query in task:
                arm = names["same"].get(model, model)
                scores.setdefault((f"{source}:{task[query]}", arm), []).append(score)
    kept = {key: told for key, told in scores.items() if len(told) >= LEAST_ANSWERS}
    return cells_of(kept, names["released"])


def cells_of(
    scores: dict[tuple[str, str], list[float]], released: dict[str, float]
) -> Cells:
    """Return the means of scores by (task, arm), with their standard errors."""
    tasks = sorted({task for task, _ in scores})
    arms = sorted({arm for _, arm in scores})
    mean = np.full((len(tasks), len(arms)), np.nan)
    error = np.full((len(tasks), len(arms)), np.nan)
    for (task, arm), told in scores.items():
        place = tasks.index(task), arms.index(arm)
        count = len(told)
        mean[place] = np.mean(told)
        # A quarter of a miss is added, so that a perfect score is not taken for certain.
        error[place] = np.sqrt((np.var(told) * count + 0.25) / (count + 1) / count)
    sources = tuple(task.partition(":")[0] for task in tasks)
    kin = tuple(map(family, arms))
    years = tuple(released.get(arm, np.nan) for arm in arms)
    return Cells(tuple(tasks), sources, tuple(arms), kin, years, mean, error)


def rows(cells: Cells) -> dict[str, list[list[Any]]]:
    """Return the cells as rows: (arm, family, released) and (task, arm, score, error)."""
    seen = zip(*np.nonzero(np.isfinite(cells.score)), strict=True)
    arms = zip(cells.arms, cells.families, cells.released, strict=True)
    return {
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


def family(arm: str) -> str:
    """Return the family that an arm's ability is thought to be like."""
    known = sorted(families(arm))
    # An unlisted author is a family; a bare name's first word is.
    return known[0] if known else re.split(r"[-.\d]", arm.lower())[0]


def build(cells: Cells, names: dict[str, Any], listed: set[str]) -> Book:
    """Return the priors, with the names of today."""
    kinds = {task: kind_of(task, names["kinds"]) for task in cells.tasks}
    heirs = {id: (heir["of"], heir["generations"]) for id, heir in names["successors"].items()}
    heirs |= {id: (same, 0) for id, same in names["today"].items()}
    pairs = [(old, new) for old, new in names["generations"]]
    return book(cells, kinds, heirs, pairs, listed)


def kind_of(task: str, kinds: list[list[str]]) -> str:
    """Return the kind of work that a task is."""
    return next(kind for kind, pattern in kinds if re.search(pattern, task))


def errors(told: list[Held]) -> str:
    """Return how far off these cells were foretold, in a line."""
    missed = np.array([one.foretold - one.score for one in told])
    plain = np.array([one.baseline - one.score for one in told])
    z = np.array([one.z for one in told])
    return (
        f"{len(told)} cells, error {np.sqrt(np.mean(missed**2)):.3f}"
        f" (the task's mean: {np.sqrt(np.mean(plain**2)):.3f}), z variance {np.mean(z**2):.2f}"
    )


if __name__ == "__main__":
    main()
