"""Refit the shipped priors to Arena's ratings and to benchmark tables with a suitable licence.

    python -m lab.priors.build --data ../shared/data/routing

Writes `priors.json` into the package, and `lab/priors/data/benchmarks.json`, the joined tables.
The same tables always give the same files. `make bench-routing ARGS=--as-shipped` measures the
result on tables and models that are left out.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

from pyarrow import parquet

from lab.priors.benchmarks import (
    DATA,
    BenchmarkMatrix,
    BenchmarkNames,
    average_scores,
    decode_matrix,
    encode_matrix,
    load_names,
)
from lab.priors.fit import encode_table, fit_priors
from lab.priors.ratings import read_ratings

SOURCES = ("zeroeval", "mmlu_pro", "routellm", "paretobandit", "lineage_2025h1")
PACKAGE = Path(__file__).parents[2] / "src" / "sophia"
CATALOGUE = PACKAGE / "catalogue" / "data" / "models.json"
SHIPPED = PACKAGE / "routing" / "data" / "priors.json"


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    names = load_names()
    encoded = encode_matrix(read_scores(options.data, names))
    cells = decode_matrix(encoded)
    table = fit_priors(read_ratings(), cells, names, list_catalogue())
    SHIPPED.write_bytes(encode_table(table))
    (DATA / "benchmarks.json").write_bytes(encoded)
    print(f"{len(cells.tasks)} tasks, {len(cells.arms)} measured arms, {len(table.arms)} priors:")
    print(dict(Counter(one.basis for one in table.arms.values())))


def list_catalogue() -> list[str]:
    """Return the ids of the bundled catalogue, without variants and pointers to the latest."""
    rows = json.loads(CATALOGUE.read_text())["data"]
    return [row["id"] for row in rows if ":" not in row["id"] and not row["id"].startswith("~")]


def read_scores(data: Path, names: BenchmarkNames) -> BenchmarkMatrix:
    """Return the mean score of every arm on every task of the tables below `data`."""
    answers: list[tuple[str, str, float]] = []
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
                answers.append((f"{source}:{task[query]}", names.aliases.get(model, model), score))
    return average_scores(answers)


if __name__ == "__main__":
    main()
