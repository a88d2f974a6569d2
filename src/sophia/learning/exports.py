"""Benchmark files that others publish, as mean scores: OpenRouter's exports, and outcome tables.

What is read: `GET /api/v1/benchmarks` and `GET /api/v1/models` of OpenRouter (OpenAPI of 2026-08),
its daily exports of the benchmark leaderboard as JSON or CSV (CC BY 4.0), and folders of outcomes.
Costs and prices stand in all of them and are never looked at: a price says nothing about quality.
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
from msgspec import Struct

from sophia.learning.benchmarks import LEAST_ANSWERS, Score
from sophia.learning.tables import Unreadable, is_table

LEAST_ARMS = 3
"""A task that fewer models did says nothing of how they compare."""

_OF_AN_INDEX = 300
"""How many answers an index of many benchmarks is taken for; our judgement."""
_AT_MOST = 2000
"""Runs repeat the same questions, so more answers than this tell no more."""
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")

_MODEL = ("model_permaslug", "model_slug", "model_id", "model", "id")
_TASK = ("benchmark_type", "benchmark_slug", "benchmark_id", "benchmark")
_ACCURACY = ("accuracy", "primary_score")
_COUNT = ("total_tasks", "tasks", "task_count", "num_tasks")

Row = Mapping[str, Any]
Named = Callable[[str], str]


class Source(Struct, frozen=True):
    """One file: its name, the SHA-256 of its content, its date, whose it is, what it holds."""

    file: str
    sha256: str
    as_of: str
    credit: str
    arms: int
    tasks: tuple[str, ...]


def read_scores(path: Path, named: Named) -> tuple[Source, list[Score]]:
    """Return what a file or a folder of outcomes says.

    Args:
        path: the file or folder.
        named: returns the name that Sophia has for a model.

    Raises:
        Unreadable: it is none of the formats, or holds no scores that can be compared.
    """
    if path.is_dir():
        return _of_table(path, named)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    rows, head = _csv(path, content) if path.suffix == ".csv" else _json(path, content)
    as_of = _date(head, path)
    said = [one for row in rows for one in _said(row, path)]
    scores = _pooled(
        (f"{name} {as_of}", task, named(arm), mean, count) for name, task, arm, mean, count in said
    )
    kept = _comparable(scores)
    if not kept:
        raise Unreadable(
            f"{path} holds no task that {LEAST_ARMS} models did, each with a score over "
            f"{LEAST_ANSWERS} answers."
        )
    return _source(path.name, digest, as_of, _credit(head), kept), kept


def _of_table(folder: Path, named: Named) -> tuple[Source, list[Score]]:
    if not is_table(folder):
        raise Unreadable(f"{folder} has no queries.parquet and outcomes.parquet.")
    from pyarrow import parquet

    from sophia.learning.schema import check_files

    check_files(folder)
    asked = parquet.read_table(folder / "queries.parquet").to_pydict()
    tasks = asked.get("task") or asked.get("domain") or [folder.name] * len(asked["query_id"])
    task = dict(zip(asked["query_id"], map(str, tasks), strict=True))
    columns = ["query_id", "model", "score"]
    path = folder / "outcomes.parquet"
    told = parquet.read_table(path, columns=columns).to_pydict()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name = folder.resolve().name.replace(":", "-")
    rows = zip(*(told[column] for column in columns), strict=True)
    scores = _comparable(
        _averaged(
            (name, task[query], named(str(model)), float(score))
            for query, model, score in rows
            if score is not None and query in task
        )
    )
    if not scores:
        raise Unreadable(
            f"{folder} holds no task with {LEAST_ANSWERS} answers of {LEAST_ARMS} models each."
        )
    return _source(name, digest, _date({}, folder), "", scores), scores


def _json(path: Path, content: bytes) -> tuple[list[Row], Row]:
    """Return the rows of a JSON file, and what stands above them."""
    try:
        whole = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(f"{path} is no JSON: {error}") from error
    head = whole if isinstance(whole, dict) else {}
    if head.get("dataset") not in (None, "benchmark-leaderboard"):
        raise Unreadable(
            f"{path} is the export {head['dataset']!r}; what scores models is "
            "'benchmark-leaderboard'."
        )
    rows = next((head[key] for key in ("data", "rows") if isinstance(head.get(key), list)), None)
    if rows is None or not all(isinstance(row, dict) for row in rows):
        raise Unreadable(f"{path} has no list of rows under `data` or `rows`.")
    return rows, head


def _csv(path: Path, content: bytes) -> tuple[list[Row], Row]:
    try:
        return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig")))), {}
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unreadable(f"{path} is no CSV: {error}") from error


def _said(row: Row, path: Path) -> list[tuple[str, str, str, float, int]]:
    """Return what a row says: source, task, arm, score from 0 to 1 and how many answers."""
    arm = _first(row, _MODEL)
    if not isinstance(arm, str) or not arm:
        raise Unreadable(
            f"{path} names no model in a row: one of {', '.join(_MODEL)} is needed; it has "
            f"{', '.join(map(str, row))}."
        )
    if "benchmarks" in row or ("pricing" in row and "source" not in row):
        return _listed(arm, row.get("benchmarks"), path)
    if row.get("source") == "artificial-analysis":
        return _indexes(arm, row, path)
    if row.get("source") == "design-arena":
        stats = row.get("tournament_stats")
        battles = stats.get("total") if isinstance(stats, dict) else None
        return _arena(arm, row, battles, path)
    task, score = _first(row, _TASK), _first(row, _ACCURACY)
    if not isinstance(task, str) or score is None:
        raise Unreadable(
            f"{path} has no columns that score a benchmark: {' or '.join(_TASK)}, and "
            f"{' or '.join(_ACCURACY)} are needed; it has {', '.join(map(str, row))}."
        )
    count = min(int(_number(_first(row, _COUNT) or _OF_AN_INDEX, path, 1e9)), _AT_MOST)
    return [("openrouter", task, arm, _number(score, path), count)]


def _listed(arm: str, benchmarks: object, path: Path) -> list[tuple[str, str, str, float, int]]:
    """Return what a model of the listing is told to score; most are told nothing."""
    if not isinstance(benchmarks, dict):
        return []
    indexes, arenas = benchmarks.get("artificial_analysis"), benchmarks.get("design_arena")
    found = _indexes(arm, indexes, path) if isinstance(indexes, dict) else []
    for one in arenas if isinstance(arenas, list) else []:
        found += _arena(arm, one, None, path) if isinstance(one, dict) else []
    return found


def _indexes(arm: str, row: Row, path: Path) -> list[tuple[str, str, str, float, int]]:
    return [
        ("artificial-analysis", name, arm, _number(row[name], path, 100.0) / 100.0, _OF_AN_INDEX)
        for name in ("intelligence_index", "coding_index", "agentic_index")
        if row.get(name) is not None
    ]


def _arena(
    arm: str, row: Row, battles: object, path: Path
) -> list[tuple[str, str, str, float, int]]:
    share, category = row.get("win_rate"), row.get("category")
    if share is None or not isinstance(category, str) or row.get("arena", "models") != "models":
        return []
    count = int(_number(battles, path, 1e9)) if battles is not None else _OF_AN_INDEX
    won = _number(share, path, 100.0) / 100.0
    return [("design-arena", category, arm, won, min(count, _AT_MOST))]


def _pooled(said: Iterable[tuple[str, str, str, float, int]]) -> list[Score]:
    """Return one score for each source, task and arm: of all answers, whoever served them."""
    sums: dict[tuple[str, str, str], tuple[float, int]] = {}
    for source, task, arm, mean, answers in said:
        total, count = sums.get((source, task, arm), (0.0, 0))
        sums[source, task, arm] = total + mean * answers, count + answers
    return [
        Score(*place, total / count, count) for place, (total, count) in sums.items() if count
    ]


def _averaged(said: Iterable[tuple[str, str, str, float]]) -> list[Score]:
    """Return the mean and the variance of single answers by source, task and arm."""
    answers: dict[tuple[str, str, str], list[float]] = {}
    for source, task, arm, score in said:
        answers.setdefault((source, task, arm), []).append(score)
    return [
        Score(*place, float(np.mean(some)), len(some), float(np.var(some)))
        for place, some in answers.items()
    ]


def _comparable(scores: list[Score]) -> list[Score]:
    enough = [one for one in scores if one.answers >= LEAST_ANSWERS]
    arms: dict[tuple[str, str], int] = {}
    for one in enough:
        arms[one.source, one.task] = arms.get((one.source, one.task), 0) + 1
    return [one for one in enough if arms[one.source, one.task] >= LEAST_ARMS]


def _number(value: object, path: Path, most: float = 1.0) -> float:
    try:
        number = float(str(value))
    except ValueError:
        raise Unreadable(f"{path}: {value!r} is no number.") from None
    if not 0.0 <= number <= most:
        raise Unreadable(f"{path}: {number:g} is not from 0 to {most:g}.")
    return number


def _first(row: Row, names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _date(head: Row, path: Path) -> str:
    meta = head.get("meta") if isinstance(head.get("meta"), dict) else {}
    told = [head.get("snapshot_date"), (meta or {}).get("as_of"), path.name]
    found = next((match for one in told if (match := _DAY.search(str(one)))), None)
    return found[0] if found else "undated"


def _credit(head: Row) -> str:
    meta = head.get("meta") if isinstance(head.get("meta"), dict) else {}
    told = head.get("attribution") or (meta or {}).get("citation") or ""
    return str(told)[:500]


def _source(name: str, digest: str, as_of: str, credit: str, kept: list[Score]) -> Source:
    arms = len({one.arm for one in kept})
    return Source(name, digest, as_of, credit, arms, tuple(sorted({one.task for one in kept})))
