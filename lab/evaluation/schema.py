"""Checks of a folder with a table of outcomes; error messages name the fix."""

from pathlib import Path

from lab.evaluation.tables import InvalidTable, OutcomeTable, is_table, read_table

REQUIRED_COLUMNS = {
    "queries.parquet": ("query_id",),
    "outcomes.parquet": ("query_id", "model", "score"),
}
"""The files of a table and their required columns."""

_TOLERANCE = 1e-9


def read_checked_table(folder: Path) -> OutcomeTable:
    """Return the table in `folder` after checking its files.

    Raises:
        InvalidTable: the folder holds no table of outcomes that can be compared, and how to fix it.
    """
    if not folder.is_dir():
        raise InvalidTable(f"{folder} is not a folder.")
    if not is_table(folder):
        missing = " and ".join(name for name in REQUIRED_COLUMNS if not (folder / name).is_file())
        inside = sorted(child.name for child in folder.iterdir() if is_table(child))
        hint = f" Its folders {', '.join(inside)} are tables; name one." if inside else ""
        raise InvalidTable(f"{folder} has no {missing}.{hint}")
    check_files(folder)
    # A table is named after its folder, so `.` is resolved first.
    return read_table(folder.resolve())


def check_files(folder: Path) -> None:
    """Raise InvalidTable unless both files have their columns, and scores are from 0 to 1."""
    for name, columns in REQUIRED_COLUMNS.items():
        _check_columns(folder / name, columns)
    _check_scores(folder / "outcomes.parquet")


def _check_columns(path: Path, columns: tuple[str, ...]) -> None:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import read_schema

    try:
        found = read_schema(path).names
    except ArrowInvalid as error:
        raise InvalidTable(f"{path} is not a Parquet file: {error}") from error
    missing = [column for column in columns if column not in found]
    if missing:
        raise InvalidTable(
            f"{path} has no column {', '.join(missing)}; its columns are {', '.join(found)}."
        )


def _check_scores(path: Path) -> None:
    from pyarrow import compute
    from pyarrow.parquet import read_table as read_columns

    scores = read_columns(path, columns=["score"]).column("score")
    if not len(scores):
        raise InvalidTable(f"{path} is empty.")
    try:
        span = compute.min_max(compute.cast(scores, "float64")).as_py()
    except (ValueError, NotImplementedError) as error:
        raise InvalidTable(f"The scores of {path} are not numbers: {error}") from error
    low, high = span["min"], span["max"]
    if low is None or low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise InvalidTable(
            f"The scores of {path} run from {low} to {high}; they must be from 0 (useless) "
            "to 1 (perfect)."
        )
