"""Whether a folder holds a table of outcomes that can be evaluated, and if not, what to mend."""

from importlib import import_module
from pathlib import Path

from sophia.learning.tables import OutcomeTable, Unreadable, is_table, read_table

PARTS = {
    "queries.parquet": ("query_id",),
    "outcomes.parquet": ("query_id", "model", "score"),
}
"""The files of a table, and the columns that each cannot do without."""

_OVER = 1e-9


class NotInstalled(ImportError):
    """The optional packages that tables of outcomes need are not there; `name` is the missing one.

    `pip install 'sophia-router[learn]'` brings them.
    """


def require_learn(*, figures: bool = False) -> None:
    """Raise NotInstalled when a package of the extra `learn` is missing."""
    for package in ("pyarrow", "sklearn", *(["matplotlib"] if figures else [])):
        try:
            import_module(package)
        except ImportError as error:
            raise NotInstalled(str(error), name=package) from error


def checked_table(folder: Path) -> OutcomeTable:
    """Return the table in `folder` after a look at its files.

    Raises:
        Unreadable: it is no table of outcomes, or none that can be compared; says what to mend.
    """
    if not folder.is_dir():
        raise Unreadable(f"{folder} is no folder.")
    if not is_table(folder):
        missing = " and ".join(name for name in PARTS if not (folder / name).is_file())
        inside = sorted(child.name for child in folder.iterdir() if is_table(child))
        hint = f" Its folders {', '.join(inside)} are tables; name one." if inside else ""
        raise Unreadable(f"{folder} has no {missing}.{hint}")
    check_files(folder)
    # A table is called by its folder, which `.` does not name.
    return read_table(folder.resolve())


def check_files(folder: Path) -> None:
    """Raise Unreadable unless the two files of a table have their columns, and scores in range."""
    for name, columns in PARTS.items():
        _check_columns(folder / name, columns)
    _check_scores(folder / "outcomes.parquet")


def _check_columns(path: Path, columns: tuple[str, ...]) -> None:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import read_schema

    try:
        found = read_schema(path).names
    except ArrowInvalid as error:
        raise Unreadable(f"{path} is no Parquet file: {error}") from error
    missing = [column for column in columns if column not in found]
    if missing:
        raise Unreadable(
            f"{path} has no column {', '.join(missing)}; its columns are {', '.join(found)}."
        )


def _check_scores(path: Path) -> None:
    from pyarrow import compute
    from pyarrow.parquet import read_table as read_columns

    scores = read_columns(path, columns=["score"]).column("score")
    if not len(scores):
        raise Unreadable(f"{path} is empty.")
    try:
        span = compute.min_max(compute.cast(scores, "float64")).as_py()
    except (ValueError, NotImplementedError) as error:
        raise Unreadable(f"The scores of {path} are not numbers: {error}") from error
    low, high = span["min"], span["max"]
    if low is None or low < -_OVER or high > 1 + _OVER:
        raise Unreadable(
            f"The scores of {path} run from {low} to {high}; they must be from 0 (useless) "
            "to 1 (perfect)."
        )
