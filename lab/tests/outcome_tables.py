"""Small tables of outcomes in which the best arm of each task is known."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from lab.evaluation.tables import OutcomeTable, Question

TASKS = {
    "sums": "What is {n} plus {m}? Add the two numbers and give only the sum.",
    "verse": "Write a short poem about a garden in autumn, number {n} of {m}, with rhymes.",
}
ARMS = ("a/cheap", "b/expensive", "c/weak")
COSTS = (0.001, 0.01, 0.0005)
SUCCESS_RATES = {"sums": (0.95, 0.6, 0.3), "verse": (0.4, 0.9, 0.3)}


def make_table(count: int = 160, seed: int = 0) -> OutcomeTable:
    """Return questions of two tasks; the cheap arm is best at sums, the expensive one at verse."""
    rng = np.random.default_rng(seed)
    names = [list(TASKS)[number % 2] for number in range(count)]
    questions = tuple(
        Question(f"q{number}", TASKS[task].format(n=number, m=number * 7 + 3), task)
        for number, task in enumerate(names)
    )
    rates = np.array([SUCCESS_RATES[task] for task in names])
    quality = (rng.random((count, len(ARMS))) < rates).astype(float)
    cost = np.tile(COSTS, (count, 1)) * rng.uniform(0.8, 1.2, (count, 1))
    no_tokens = np.full_like(quality, np.nan)
    return OutcomeTable("small", questions, ARMS, quality, cost, no_tokens, ("small",) * count)


def write_table(folder: Path, table: OutcomeTable) -> Path:
    """Write a table as the files that `lab.evaluate` reads; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = [question.id for question in table.questions]
    queries = {
        "query_id": ids,
        "task": [question.task for question in table.questions],
        "query_text": [question.text for question in table.questions],
    }
    outcomes = {
        "query_id": [id for id in ids for _ in table.arms],
        "model": [arm for _ in ids for arm in table.arms],
        "score": table.quality.ravel().tolist(),
    }
    if table.cost is not None:
        outcomes["cost_usd"] = table.cost.ravel().tolist()
    parquet.write_table(pa.table(queries), folder / "queries.parquet")
    parquet.write_table(pa.table(outcomes), folder / "outcomes.parquet")
    return folder
