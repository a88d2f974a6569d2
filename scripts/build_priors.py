"""Write src/sophia/routing/data/priors.json from the benchmark tables that may be shipped.

    python scripts/build_priors.py --data ../shared/data/routing

The same tables always give the same files: beside the priors `benchmarks.json`, the joined tables,
which `sophia learn --priors` joins others to. `priors.yaml` says which names are one model.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from sophia.learning.benchmarks import (
    LEAST_ANSWERS,
    Names,
    Score,
    encode_cells,
    joined,
    made_of,
    read_names,
)
from sophia.learning.factor import Cells
from sophia.learning.held_out import Held, held_out
from sophia.learning.priors import encode

SOURCES = ("zeroeval", "mmlu_pro", "routellm", "paretobandit", "lineage_2025h1")
PACKAGE = Path(__file__).parent.parent / "src" / "sophia"
CATALOGUE = PACKAGE / "catalogue" / "data" / "models.json"
WRITTEN = PACKAGE / "routing" / "data"


def main() -> None:
    """Write the files, and say how far off the priors were on tables that they had not seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=WRITTEN)
    options = parser.parse_args()
    names = read_names((WRITTEN / "priors.yaml").read_text())
    cells = read(options.data, names)
    listed = {row["id"] for row in json.loads(CATALOGUE.read_text())["data"]}
    made = made_of(cells, names, listed)
    (options.out / "priors.json").write_bytes(encode(made))
    (options.out / "benchmarks.json").write_bytes(encode_cells(cells))
    print(f"{len(cells.tasks)} tasks, {len(cells.arms)} arms, {len(made.arms)} standings")
    print(f"variance widened {made.spread:.2f}-fold to fit held-out tables")
    for title, whole in (("an unseen table", True), ("a single cell", False)):
        told = held_out(cells, whole=whole)
        for known in (True, False):
            part = [one for one in told if one.known == known]
            if part:
                print(f"{title}, {'known' if known else 'unknown'} elsewhere: {errors(part)}")


def read(data: Path, names: Names) -> Cells:
    """Return the mean score of every arm on every task of the tables below `data`."""
    from pyarrow import parquet

    scores: dict[tuple[str, str, str], list[float]] = {}
    for source in SOURCES:
        asked = parquet.read_table(data / source / "queries.parquet", columns=["query_id", "task"])
        task = dict(zip(*(asked[name].to_pylist() for name in asked.column_names), strict=True))
        columns = ["query_id", "model", "score"]
        told = parquet.read_table(data / source / "outcomes.parquet", columns=columns)
        for query, model, score in zip(*(told[name].to_pylist() for name in columns), strict=True):
            if score is not None and query in task:
                arm = names.same.get(model, model)
                scores.setdefault((source, task[query], arm), []).append(score)
    kept = [
        Score(*place, float(np.mean(told)), len(told), float(np.var(told)))
        for place, told in scores.items()
        if len(told) >= LEAST_ANSWERS
    ]
    return joined(None, kept, names.released)


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
