"""Tables of outcomes: incomparable arms are left out, and equal texts share a fold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from lab.evaluation.tables import (
    InvalidTable,
    OutcomeTable,
    assign_fold,
    is_table,
    join_tables,
    read_table,
)

Row = tuple[str, str, float | None, float | None]


def test_a_table_is_read_by_question_and_arm(tmp_path: Path) -> None:
    table = _table(
        tmp_path,
        [
            (f"q{n}", arm, float(n > 5), cost)
            for n in range(10)
            for arm, cost in (("b", 2.0), ("a", 1.0))
        ],
    )
    assert table.arms == ("a", "b")
    assert table.tasks == ("even", "odd")
    assert table.task_codes().tolist() == [0, 1] * 5
    assert table.quality[:, 0].tolist() == [0.0] * 6 + [1.0] * 4
    assert table.cost is not None
    assert table.cost[0].tolist() == [1.0, 2.0]
    assert [question.tools for question in table.questions[:3]] == [0, 1, 2]


def test_an_arm_that_skipped_questions_is_left_out(tmp_path: Path) -> None:
    rows = [(f"q{n}", arm, 1.0, 1.0) for n in range(40) for arm in ("a", "b")]
    rows += [(f"q{n}", "seldom", 1.0, 1.0) for n in range(37)]
    rows += [(f"q{n}", "nearly", 1.0, 1.0) for n in range(39)]
    table = _table(tmp_path, rows)
    assert table.arms == ("a", "b", "nearly")
    assert len(table.questions) == 39


def test_unpriced_arms_are_left_out_where_others_are_priced(tmp_path: Path) -> None:
    rows: list[Row] = [(f"q{n}", arm, 1.0, 1.0) for n in range(40) for arm in ("a", "b")]
    rows += [(f"q{n}", "unpriced", 1.0, None) for n in range(40)]
    rows += [(f"q{n}", "mostly", 1.0, None if n == 0 else 3.0) for n in range(40)]
    table = _table(tmp_path, rows)
    assert table.arms == ("a", "b", "mostly")
    assert len(table.questions) == 40
    assert table.cost is not None
    assert table.cost[0, 2] == 3.0


def test_without_prices_a_table_has_no_cost(tmp_path: Path) -> None:
    table = _table(tmp_path, [(f"q{n}", arm, 1.0, None) for n in range(5) for arm in "ab"])
    assert table.cost is None
    assert table.arms == ("a", "b")


def test_one_arm_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(InvalidTable, match="fewer than two"):
        _table(tmp_path, [(f"q{n}", "a", 1.0, 1.0) for n in range(5)])


def test_arms_of_older_harnesses_and_off_their_published_score_are_left_out(tmp_path: Path) -> None:
    info = [
        {"model": "a", "agent": "2.0.0", "resolved": 100.0},
        {"model": "b", "agent": "2.0.0", "resolved": 99.0},
        {"model": "old", "agent": "1.9.0", "resolved": 100.0},
        {"model": "broken", "agent": "2.0.0", "resolved": 50.0},
    ]
    rows = [(f"q{n}", arm["model"], 1.0, 1.0) for n in range(100) for arm in info]
    assert _table(tmp_path, rows, {"models_info": info}).arms == ("a", "b")


def test_a_listed_arm_is_left_out_by_name(tmp_path: Path) -> None:
    rows = [(f"q{n}", arm, 1.0, 1.0) for n in range(9) for arm in ("a", "b", "o1-mini")]
    assert _table(tmp_path / "zeroeval", rows).arms == ("a", "b")
    assert _table(tmp_path / "other", rows).arms == ("a", "b", "o1-mini")


def test_the_same_text_is_always_in_the_same_fold(tmp_path: Path) -> None:
    table = _table(tmp_path, [(f"q{n}", arm, 1.0, 1.0) for n in range(200) for arm in "ab"])
    folds = table.assign_folds(5)
    assert set(folds.tolist()) == set(range(5))
    for row, question in enumerate(table.questions):
        assert folds[row] == assign_fold(question.text, 5)
    assert (table.assign_folds(5, seed=1) != folds).any()
    assert assign_fold("a text", 5) == assign_fold("a text", 5)


def test_tables_are_joined_over_the_arms_that_they_share(tmp_path: Path) -> None:
    first = _table(tmp_path / "one", [(f"q{n}", arm, 1.0, 1.0) for n in range(4) for arm in "abc"])
    second = _table(tmp_path / "two", [(f"p{n}", arm, 0.0, 2.0) for n in range(3) for arm in "bcd"])
    both = join_tables("both", [first, second], ["c", "b"])
    assert both.arms == ("c", "b")
    assert both.quality.shape == (7, 2)
    assert both.sources == ("one",) * 4 + ("two",) * 3
    assert both.cost is not None
    assert both.cost[:, 0].tolist() == [1.0] * 4 + [2.0] * 3


def test_a_folder_without_tables_is_none(tmp_path: Path) -> None:
    assert not is_table(tmp_path)


def _table(folder: Path, rows: list[Any], meta: dict[str, Any] | None = None) -> OutcomeTable:
    folder.mkdir(exist_ok=True)
    ids = list(dict.fromkeys(row[0] for row in rows))
    parquet.write_table(
        pa.table(
            {
                "query_id": ids,
                "domain": ["d"] * len(ids),
                "task": [("even", "odd")[n % 2] for n in range(len(ids))],
                "query_text": [f"text {n // 2}" for n in range(len(ids))],
                "n_functions": list(range(len(ids))),
            }
        ),
        folder / "queries.parquet",
    )
    columns = list(zip(*rows, strict=True))
    parquet.write_table(
        pa.table(
            {
                "query_id": columns[0],
                "model": columns[1],
                "score": pa.array(columns[2], pa.float64()),
                "cost_usd": pa.array(columns[3], pa.float64()),
            }
        ),
        folder / "outcomes.parquet",
    )
    (folder / "meta.json").write_text(json.dumps(meta or {}))
    assert is_table(folder)
    return read_table(folder)


def test_numbers_are_finite(tmp_path: Path) -> None:
    table = _table(tmp_path, [(f"q{n}", arm, 0.5, 1.0) for n in range(5) for arm in "ab"])
    assert np.isfinite(table.quality).all()
    assert np.isnan(table.output_tokens).all()
