"""Tables of recorded outcomes, question by arm, read as dense arrays."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sophia.routing.bandit.policy import Vector

Matrix = NDArray[np.float64]

MIN_COVERAGE = 0.95
PUBLISHED_SCORE_TOLERANCE = 5.0
# Arms whose recorded cost omits billed reasoning tokens, so that they look cheap.
UNPRICED_REASONING = {"zeroeval": ("o1-*",)}
TOOL_COLUMNS = ("n_functions", "n_tools", "tools")
IMAGE_COLUMNS = ("n_images", "images")
TURN_COLUMNS = ("n_turns", "turns")


class InvalidTable(ValueError):
    """The folder does not hold a table of outcomes that can be compared."""


@dataclass(frozen=True)
class Question:
    """One request of a table, with the facts that a gateway would have."""

    id: str
    text: str
    task: str
    tools: int = 0
    images: int = 0
    turns: int = 1


@dataclass(frozen=True)
class OutcomeTable:
    """A dense table: every arm answered every question.

    Attributes:
        quality: shape (N, A), scores from 0 to 1.
        cost: shape (N, A), US dollars; None when the source records none.
        output_tokens: shape (N, A), NaN where not recorded.
        sources: the source of each question, N names.
    """

    name: str
    questions: tuple[Question, ...]
    arms: tuple[str, ...]
    quality: Matrix
    cost: Matrix | None
    output_tokens: Matrix
    sources: tuple[str, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks, sorted."""
        return tuple(sorted({question.task for question in self.questions}))

    def task_codes(self) -> NDArray[np.intp]:
        """Return the position of each question's task in `tasks`, (N,)."""
        place = {task: number for number, task in enumerate(self.tasks)}
        return np.array([place[question.task] for question in self.questions], dtype=np.intp)

    def assign_folds(self, count: int, seed: int = 0) -> NDArray[np.intp]:
        """Return the fold of each question, (N,): one text is always in one fold."""
        return np.array(
            [assign_fold(question.text or question.id, count, seed) for question in self.questions],
            dtype=np.intp,
        )

    def select_arms(self, arms: Sequence[str]) -> "OutcomeTable":
        """Return the table restricted to `arms`, in that order."""
        keep = [self.arms.index(arm) for arm in arms]
        return replace(
            self,
            arms=tuple(arms),
            quality=self.quality[:, keep],
            cost=None if self.cost is None else self.cost[:, keep],
            output_tokens=self.output_tokens[:, keep],
        )


def assign_fold(text: str, count: int, seed: int = 0) -> int:
    """Return the fold of a text, a hash of the text and the seed."""
    digest = hashlib.sha256(f"{seed}\n{text}".encode()).digest()
    return int.from_bytes(digest[:8]) % count


def is_table(folder: Path) -> bool:
    """Return whether `folder` looks like a table of outcomes."""
    return (folder / "queries.parquet").is_file() and (folder / "outcomes.parquet").is_file()


def read_table(folder: Path) -> OutcomeTable:
    """Read `queries.parquet`, `outcomes.parquet` and `meta.json` of a folder.

    Arms are kept with a score for at least 95 % of the questions (and costs for as many of those,
    when at least two arms are priced), then the questions that all of these arms answered.

    Raises:
        InvalidTable: fewer than two arms can be compared.
    """
    from pyarrow import parquet

    meta = _read_meta(folder)
    questions = _build_questions(parquet.read_table(folder / "queries.parquet").to_pydict())
    outcomes = parquet.read_table(folder / "outcomes.parquet").to_pydict()
    place = {question.id: row for row, question in enumerate(questions)}
    names = sorted(set(outcomes["model"]))
    column = {name: number for number, name in enumerate(names)}
    values = np.full((3, len(questions), len(names)), np.nan)
    fields = [outcomes.get(key) for key in ("score", "cost_usd", "completion_tokens")]
    pairs = zip(outcomes["query_id"], outcomes["model"], strict=True)
    for number, (query, arm) in enumerate(pairs):
        row = place.get(query)
        if row is not None:
            for layer, field in enumerate(fields):
                value = field[number] if field is not None else None
                if value is not None:
                    values[layer, row, column[arm]] = value
    return _build_dense_table(folder.name, questions, names, values, meta)


def join_tables(name: str, tables: Iterable[OutcomeTable], arms: Sequence[str]) -> OutcomeTable:
    """Return the questions of several tables, answered by the arms that they share."""
    parts = [table.select_arms(arms) for table in tables]
    costs = [table.cost for table in parts if table.cost is not None]
    return OutcomeTable(
        name,
        tuple(question for table in parts for question in table.questions),
        tuple(arms),
        np.vstack([table.quality for table in parts]),
        np.vstack(costs) if len(costs) == len(parts) else None,
        np.vstack([table.output_tokens for table in parts]),
        tuple(source for table in parts for source in table.sources),
    )


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "meta.json"
    meta: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return meta


def _build_questions(columns: dict[str, list[Any]]) -> list[Question]:
    count = len(columns["query_id"])

    def numbers(names: Sequence[str], otherwise: int) -> list[int]:
        for name in names:
            if name in columns and all(isinstance(one, (int, float)) for one in columns[name]):
                return [int(one) for one in columns[name]]
        return [otherwise] * count

    texts = columns.get("query_text") or [""] * count
    tasks = columns.get("task") or columns.get("domain") or [""] * count
    return [
        Question(str(id), text or "", str(task), tools, images, turns)
        for id, text, task, tools, images, turns in zip(
            columns["query_id"],
            texts,
            tasks,
            numbers(TOOL_COLUMNS, 0),
            numbers(IMAGE_COLUMNS, 0),
            numbers(TURN_COLUMNS, 1),
            strict=True,
        )
    ]


def _build_dense_table(
    name: str, questions: list[Question], arms: list[str], values: Matrix, meta: dict[str, Any]
) -> OutcomeTable:
    score, cost, tokens = values
    keep = np.isfinite(score).mean(axis=0) >= MIN_COVERAGE
    keep &= np.array([arm not in _find_untrusted_arms(name, arms, score, meta) for arm in arms])
    answered = np.isfinite(score)
    priced = (answered & np.isfinite(cost)).sum(axis=0) >= MIN_COVERAGE * answered.sum(axis=0)
    has_cost = int((keep & priced).sum()) >= 2
    if has_cost:
        keep &= priced
    if int(keep.sum()) < 2:
        raise InvalidTable(
            f"{name}: fewer than two arms answered {MIN_COVERAGE:.0%} of the questions."
        )
    complete = np.isfinite(score[:, keep]).all(axis=1)
    if has_cost:
        # A cost missing in a few rows is set to the arm's mean; leaving the rows out would bias.
        mean_cost = np.nanmean(np.where(answered, cost, np.nan)[:, keep], axis=0)
        cost = np.where(np.isfinite(cost[:, keep]), cost[:, keep], mean_cost)
    return OutcomeTable(
        name,
        tuple(
            question
            for question, is_complete in zip(questions, complete, strict=True)
            if is_complete
        ),
        tuple(arm for arm, kept in zip(arms, keep, strict=True) if kept),
        score[np.ix_(complete, keep)],
        cost[complete] if has_cost else None,
        tokens[np.ix_(complete, keep)],
        (name,) * int(complete.sum()),
    )


def _find_untrusted_arms(
    name: str, arms: list[str], score: Matrix, meta: dict[str, Any]
) -> set[str]:
    """Return arms to exclude: listed ones, older harnesses, and means off the published score."""
    excluded = {
        arm for arm in arms for pattern in UNPRICED_REASONING.get(name, ()) if fnmatch(arm, pattern)
    }
    info = {entry["model"]: entry for entry in meta.get("models_info", ())}
    versions: defaultdict[str, int] = defaultdict(int)
    for entry in info.values():
        versions[entry.get("agent") or ""] += 1
    newest = max((version for version in versions if version), key=_parse_version, default=None)
    for number, arm in enumerate(arms):
        entry = info.get(arm)
        if entry is None:
            continue
        if newest is not None and entry.get("agent") != newest:
            excluded.add(arm)
        published = entry.get("resolved")
        if published is not None:
            measured: Vector = score[:, number][np.isfinite(score[:, number])]
            if abs(
                100 * measured.mean() - published
            ) > PUBLISHED_SCORE_TOLERANCE + _sampling_margin(len(measured)):
                excluded.add(arm)
    return excluded


def _sampling_margin(count: int) -> float:
    """Return an upper bound of two standard errors of a share of `count` rows, in points."""
    return float(100.0 / max(count, 1) ** 0.5)


def _parse_version(text: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("."))
