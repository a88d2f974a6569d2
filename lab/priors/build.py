"""Refit the shipped priors to the benchmark tables with a suitable licence.

    python -m lab.priors.build --data ../shared/data/routing

Writes `priors.json` into the package, and `lab/priors/data/benchmarks.json`, the joined tables that
`python -m lab.priors` joins newer files to. The same tables always give the same files.
`lab/priors/data/priors.yaml` lists the aliases of each model.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from pyarrow import parquet

from lab.priors.benchmarks import (
    DATA,
    MIN_ANSWERS,
    BenchmarkNames,
    build_prior_book,
    encode_matrix,
    merge_scores,
    parse_names,
)
from lab.priors.exports import average_scores
from lab.priors.factor_model import BenchmarkMatrix
from lab.priors.fit import encode_book
from lab.priors.held_out import HeldOutCell, predict_held_out

SOURCES = ("zeroeval", "mmlu_pro", "routellm", "paretobandit", "lineage_2025h1")
PACKAGE = Path(__file__).parents[2] / "src" / "sophia"
CATALOGUE = PACKAGE / "catalogue" / "data" / "models.json"
SHIPPED = PACKAGE / "routing" / "data" / "priors.json"


def main() -> None:
    """Write the files and print the errors of the priors on held-out tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    names = parse_names((DATA / "priors.yaml").read_text())
    cells = read_scores(options.data, names)
    listed = {row["id"] for row in json.loads(CATALOGUE.read_text())["data"]}
    book = build_prior_book(cells, names, listed)
    SHIPPED.write_bytes(encode_book(book))
    (DATA / "benchmarks.json").write_bytes(encode_matrix(cells))
    print(f"{len(cells.tasks)} tasks, {len(cells.arms)} arms, {len(book.arms)} priors")
    print(f"variance inflated {book.variance_inflation:.2f}-fold to fit held-out tables")
    for title, whole in (("held-out source", True), ("held-out cell", False)):
        predicted = predict_held_out(cells, by_source=whole)
        for known in (True, False):
            part = [one for one in predicted if one.measured_elsewhere == known]
            if part:
                place = "measured elsewhere" if known else "not measured elsewhere"
                print(f"{title}, {place}: {format_errors(part)}")


def read_scores(data: Path, names: BenchmarkNames) -> BenchmarkMatrix:
    """Return the mean score of every arm on every task of the tables below `data`."""
    answers: list[tuple[str, str, str, float]] = []
    for source in SOURCES:
        queries = parquet.read_table(
            data / source / "queries.parquet", columns=["query_id", "task"]
        )
        task = dict(zip(*(queries[name].to_pylist() for name in queries.column_names), strict=True))
        columns = ["query_id", "model", "score"]
        outcomes = parquet.read_table(data / source / "outcomes.parquet", columns=columns)
        for query, model, score in zip(
            *(outcomes[name].to_pylist() for name in columns), strict=True
        ):
            if score is not None and query in task:
                answers.append((source, task[query], names.aliases.get(model, model), score))
    kept = [one for one in average_scores(answers) if one.answers >= MIN_ANSWERS]
    return merge_scores(None, kept, names.released)


def format_errors(cells: list[HeldOutCell]) -> str:
    """Return the prediction errors of these cells as one line."""
    errors = np.array([one.predicted - one.observed for one in cells])
    baseline_errors = np.array([one.baseline - one.observed for one in cells])
    z = np.array([one.z_score for one in cells])
    return (
        f"{len(cells)} cells, error {np.sqrt(np.mean(errors**2)):.3f} "
        f"(the task's mean: {np.sqrt(np.mean(baseline_errors**2)):.3f}), "
        f"z variance {np.mean(z**2):.2f}"
    )


if __name__ == "__main__":
    main()
