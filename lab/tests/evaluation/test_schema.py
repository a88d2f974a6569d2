"""A folder that is not a table of outcomes is refused with the fix."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from lab.evaluation.schema import read_checked_table
from lab.evaluation.tables import InvalidTable
from outcome_tables import make_table, write_table


def _outcomes(folder: Path, **columns: list[object]) -> None:
    parquet.write_table(pa.table(columns), folder / "outcomes.parquet")


def _without_queries(folder: Path) -> None:
    (folder / "queries.parquet").unlink()


def _no_parquet(folder: Path) -> None:
    (folder / "queries.parquet").write_text("query_id,task\n1,a\n")


def _no_model(folder: Path) -> None:
    _outcomes(folder, query_id=["q0"], score=[1.0], arm=["a"])


def _percent(folder: Path) -> None:
    _outcomes(folder, query_id=["q0", "q0"], model=["a", "b"], score=[0.5, 87.0])


def _words(folder: Path) -> None:
    _outcomes(folder, query_id=["q0"], model=["a"], score=["good"])


def _empty(folder: Path) -> None:
    _outcomes(folder, query_id=[], model=[], score=[])


def _one_arm(folder: Path) -> None:
    _outcomes(folder, query_id=["q0"], model=["a"], score=[1.0])


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_without_queries, "has no queries.parquet"),
        (_no_parquet, "queries.parquet is not a Parquet file"),
        (_no_model, r"no column model; its columns are query_id, score, arm"),
        (_percent, r"run from 0.5 to 87.0; they must be from 0"),
        (_words, "are not numbers"),
        (_empty, "is empty"),
        (_one_arm, "fewer than two arms"),
    ],
)
def test_the_problem_is_named(
    tmp_path: Path, break_it: Callable[[Path], None], message: str
) -> None:
    folder = write_table(tmp_path / "mine", make_table(20))
    break_it(folder)
    with pytest.raises(InvalidTable, match=message):
        read_checked_table(folder)


def test_a_folder_of_tables_names_them(tmp_path: Path) -> None:
    write_table(tmp_path / "mine", make_table(20))
    with pytest.raises(InvalidTable, match="Its folders mine are tables"):
        read_checked_table(tmp_path)
    with pytest.raises(InvalidTable, match="is not a folder"):
        read_checked_table(tmp_path / "nowhere")


def test_a_complete_table_is_read_and_named_after_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_table(tmp_path / "mine", make_table(20))
    assert read_checked_table(folder).name == "mine"
    monkeypatch.chdir(folder)
    assert read_checked_table(Path()).name == "mine"
