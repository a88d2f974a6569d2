"""Mean scores from published benchmark files: OpenRouter's exports, and outcome tables.

Formats: `GET /api/v1/benchmarks` and `GET /api/v1/models` of OpenRouter (OpenAPI of 2026-08),
its daily exports of the benchmark leaderboard as JSON or CSV (CC BY 4.0), and folders of outcomes.
Costs and prices are in all of them and are ignored: a price is no evidence of quality.
"""

import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from pyarrow import parquet

from lab.evaluation.schema import check_files
from lab.evaluation.tables import InvalidTable, is_table
from lab.priors.benchmarks import MIN_ANSWERS, BenchmarkScore
from sophia.learning.priors.book import BenchmarkSource

MIN_ARMS = 3
"""Tasks with scores of fewer models are left out, since they do not compare models."""

_INDEX_ANSWERS = 300
"""Number of answers that an index over many benchmarks counts for; our judgement."""
_MAX_ANSWERS = 2000
"""Cap on the number of answers, since runs repeat the same questions."""
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")

_MODEL_COLUMNS = ("model_permaslug", "model_slug", "model_id", "model", "id")
_TASK_COLUMNS = ("benchmark_type", "benchmark_slug", "benchmark_id", "benchmark")
_SCORE_COLUMNS = ("accuracy", "primary_score")
_COUNT_COLUMNS = ("total_tasks", "tasks", "task_count", "num_tasks")

Row = Mapping[str, Any]
NameResolver = Callable[[str], str]


def read_scores(
    path: Path, resolve_name: NameResolver
) -> tuple[BenchmarkSource, list[BenchmarkScore]]:
    """Return the scores in a benchmark file or a folder of outcomes.

    Args:
        path: the file or folder.
        resolve_name: returns Sophia's name of a model.

    Raises:
        InvalidTable: the format is unknown, or no scores can be compared.
    """
    if path.is_dir():
        return _read_table_scores(path, resolve_name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidTable(f"{path} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    rows, head = _read_csv(path, content) if path.suffix == ".csv" else _read_json(path, content)
    as_of = _find_date(head, path)
    parsed = [one for row in rows for one in _parse_row(row, path)]
    scores = _pool_scores(
        (f"{name} {as_of}", task, resolve_name(arm), mean, count)
        for name, task, arm, mean, count in parsed
    )
    kept = _keep_comparable(scores)
    if not kept:
        raise InvalidTable(
            f"{path} has no task with scores of {MIN_ARMS} models, each over at least "
            f"{MIN_ANSWERS} answers."
        )
    return _describe_source(path.name, digest, as_of, _find_attribution(head), kept), kept


def _read_table_scores(
    folder: Path, resolve_name: NameResolver
) -> tuple[BenchmarkSource, list[BenchmarkScore]]:
    if not is_table(folder):
        raise InvalidTable(f"{folder} has no queries.parquet and outcomes.parquet.")
    check_files(folder)
    queries = parquet.read_table(folder / "queries.parquet").to_pydict()
    tasks = queries.get("task") or queries.get("domain") or [folder.name] * len(queries["query_id"])
    task = dict(zip(queries["query_id"], map(str, tasks), strict=True))
    columns = ["query_id", "model", "score"]
    path = folder / "outcomes.parquet"
    outcomes = parquet.read_table(path, columns=columns).to_pydict()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = folder.resolve().name.replace(":", "-")
    rows = zip(*(outcomes[column] for column in columns), strict=True)
    scores = _keep_comparable(
        average_scores(
            (name, task[query], resolve_name(str(model)), float(score))
            for query, model, score in rows
            if score is not None and query in task
        )
    )
    if not scores:
        raise InvalidTable(
            f"{folder} has no task with {MIN_ANSWERS} answers of {MIN_ARMS} models each."
        )
    return _describe_source(name, digest, _find_date({}, folder), "", scores), scores


def _read_json(path: Path, content: bytes) -> tuple[list[Row], Row]:
    """Return the rows of a JSON file and the object that holds them."""
    try:
        whole = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidTable(f"{path} is not JSON: {error}") from error
    head = whole if isinstance(whole, dict) else {}
    if head.get("dataset") not in (None, "benchmark-leaderboard"):
        raise InvalidTable(
            f"{path} is the export {head['dataset']!r}; scores of models are in "
            "'benchmark-leaderboard'."
        )
    rows = next((head[key] for key in ("data", "rows") if isinstance(head.get(key), list)), None)
    if rows is None or not all(isinstance(row, dict) for row in rows):
        raise InvalidTable(f"{path} has no list of rows under `data` or `rows`.")
    return rows, head


def _read_csv(path: Path, content: bytes) -> tuple[list[Row], Row]:
    try:
        return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig")))), {}
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidTable(f"{path} is not CSV: {error}") from error


def _parse_row(row: Row, path: Path) -> list[tuple[str, str, str, float, int]]:
    """Return the scores in a row: source, task, arm, mean from 0 to 1, number of answers."""
    arm = _first_value(row, _MODEL_COLUMNS)
    if not isinstance(arm, str) or not arm:
        raise InvalidTable(
            f"{path} has a row without a model: one of {', '.join(_MODEL_COLUMNS)} is required; "
            "it has "
            f"{', '.join(map(str, row))}."
        )
    if "benchmarks" in row or ("pricing" in row and "source" not in row):
        return _parse_listing(arm, row.get("benchmarks"), path)
    if row.get("source") == "artificial-analysis":
        return _parse_indexes(arm, row, path)
    if row.get("source") == "design-arena":
        stats = row.get("tournament_stats")
        battles = stats.get("total") if isinstance(stats, dict) else None
        return _parse_arena(arm, row, battles, path)
    task, score = _first_value(row, _TASK_COLUMNS), _first_value(row, _SCORE_COLUMNS)
    if not isinstance(task, str) or score is None:
        raise InvalidTable(
            f"{path} has no columns with a benchmark score: {' or '.join(_TASK_COLUMNS)}, and "
            f"{' or '.join(_SCORE_COLUMNS)} are required; it has {', '.join(map(str, row))}."
        )
    count = min(
        int(_parse_number(_first_value(row, _COUNT_COLUMNS) or _INDEX_ANSWERS, path, 1e9)),
        _MAX_ANSWERS,
    )
    return [("openrouter", task, arm, _parse_number(score, path), count)]


def _parse_listing(
    arm: str, benchmarks: object, path: Path
) -> list[tuple[str, str, str, float, int]]:
    """Return the scores that the listing reports for a model; none for most models."""
    if not isinstance(benchmarks, dict):
        return []
    indexes, arenas = benchmarks.get("artificial_analysis"), benchmarks.get("design_arena")
    found = _parse_indexes(arm, indexes, path) if isinstance(indexes, dict) else []
    for one in arenas if isinstance(arenas, list) else []:
        found += _parse_arena(arm, one, None, path) if isinstance(one, dict) else []
    return found


def _parse_indexes(arm: str, row: Row, path: Path) -> list[tuple[str, str, str, float, int]]:
    return [
        (
            "artificial-analysis",
            name,
            arm,
            _parse_number(row[name], path, 100.0) / 100.0,
            _INDEX_ANSWERS,
        )
        for name in ("intelligence_index", "coding_index", "agentic_index")
        if row.get(name) is not None
    ]


def _parse_arena(
    arm: str, row: Row, battles: object, path: Path
) -> list[tuple[str, str, str, float, int]]:
    share, category = row.get("win_rate"), row.get("category")
    if share is None or not isinstance(category, str) or row.get("arena", "models") != "models":
        return []
    count = int(_parse_number(battles, path, 1e9)) if battles is not None else _INDEX_ANSWERS
    won = _parse_number(share, path, 100.0) / 100.0
    return [("design-arena", category, arm, won, min(count, _MAX_ANSWERS))]


def _pool_scores(rows: Iterable[tuple[str, str, str, float, int]]) -> list[BenchmarkScore]:
    """Return one score per source, task and arm, pooled over providers."""
    sums: dict[tuple[str, str, str], tuple[float, int]] = {}
    for source, task, arm, mean, answers in rows:
        total, count = sums.get((source, task, arm), (0.0, 0))
        sums[source, task, arm] = total + mean * answers, count + answers
    return [
        BenchmarkScore(*place, total / count, count)
        for place, (total, count) in sums.items()
        if count
    ]


def average_scores(rows: Iterable[tuple[str, str, str, float]]) -> list[BenchmarkScore]:
    """Return the mean and the variance of single answers by source, task and arm."""
    answers: dict[tuple[str, str, str], list[float]] = {}
    for source, task, arm, score in rows:
        answers.setdefault((source, task, arm), []).append(score)
    return [
        BenchmarkScore(*place, float(np.mean(some)), len(some), float(np.var(some)))
        for place, some in answers.items()
    ]


def _keep_comparable(scores: list[BenchmarkScore]) -> list[BenchmarkScore]:
    enough = [one for one in scores if one.answers >= MIN_ANSWERS]
    arms: dict[tuple[str, str], int] = {}
    for one in enough:
        arms[one.source, one.task] = arms.get((one.source, one.task), 0) + 1
    return [one for one in enough if arms[one.source, one.task] >= MIN_ARMS]


def _parse_number(value: object, path: Path, maximum: float = 1.0) -> float:
    try:
        number = float(str(value))
    except ValueError:
        raise InvalidTable(f"{path}: {value!r} is not a number.") from None
    if not 0.0 <= number <= maximum:
        raise InvalidTable(f"{path}: {number:g} is not from 0 to {maximum:g}.")
    return number


def _first_value(row: Row, names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _find_date(head: Row, path: Path) -> str:
    meta = head.get("meta") if isinstance(head.get("meta"), dict) else {}
    candidates = [head.get("snapshot_date"), (meta or {}).get("as_of"), path.name]
    found = next((match for one in candidates if (match := _DATE.search(str(one)))), None)
    return found[0] if found else "undated"


def _find_attribution(head: Row) -> str:
    meta = head.get("meta") if isinstance(head.get("meta"), dict) else {}
    attribution = head.get("attribution") or (meta or {}).get("citation") or ""
    return str(attribution)[:500]


def _describe_source(
    name: str, digest: str, as_of: str, credit: str, kept: list[BenchmarkScore]
) -> BenchmarkSource:
    arms = len({one.arm for one in kept})
    return BenchmarkSource(
        file=name,
        sha256=digest,
        as_of=as_of,
        credit=credit,
        arms=arms,
        tasks=tuple(sorted({one.task for one in kept})),
    )
