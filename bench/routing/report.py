"""The results of the routing bench as one table for people and one file for programs."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.routing.sources import MULTI_TASK
from sophia.learning.measures import Interval, Verdict

MEASURES = ("gap", "c100", "peak_gain", "quality_at_25pct_cost", "harm")
LATER = ("online_headroom", "first_500_headroom")


@dataclass(frozen=True)
class Row:
    """One policy on one source."""

    source: str
    policy: str
    verdict: Verdict
    online: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """What is known of a source before any policy."""

    name: str
    questions: int
    arms: int
    tasks: int
    priced: bool
    best: str
    best_quality: float
    best_cost: float | None
    oracle_quality: float


def table_of(rows: Sequence[Row], sources: Sequence[Source]) -> Table:
    """Return the table of all policies and sources."""
    table = Table(title="Routing on real outcomes, cross-fitted; λ fixed on the other folds")
    for title in ("source", "policy"):
        table.add_column(title, no_wrap=True)
    titles = ("gap", "[95 %]", "swept", "c100", "peak", "q at 25 %", "harm", "auc", "ece", "floor", "online", "first")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for source in sources:
        table.add_section()
        name = source.name
        for row in rows:
            if row.source == source.name:
                later = [row.online.get(measure, Interval(None)) for measure in LATER]
                figures = [_number(one.value, 2) for one in later]
                table.add_row(name, row.policy, *_figures(row.verdict), *figures)
                name = ""
    return table


def line_of(source: Source) -> str:
    """Return what a source is, in one line."""
    best = f"{source.best_quality:.3f}"
    if source.best_cost is not None:
        best += f" for ${source.best_cost:.5f}"
    return (
        f"{source.name}: {source.questions:,} questions × {source.arms} arms, {source.tasks} tasks; "
        f"best single {source.best} ({best}); oracle {source.oracle_quality:.3f}"
    )


def means_of(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return the mean gap of each policy over the multi-task sources that were run."""
    means: dict[str, dict[str, float]] = {}
    for policy in dict.fromkeys(row.policy for row in rows):
        gaps = {
            row.source: (row.verdict.fixed["gap"].value, row.verdict.swept["gap"].value)
            for row in rows
            if row.policy == policy and row.source in MULTI_TASK and row.verdict.fixed
        }
        if gaps:
            means[policy] = {
                "gap": _mean([fixed for fixed, _ in gaps.values()]),
                "least_gap": min(fixed or 0.0 for fixed, _ in gaps.values()),
                "gap_swept": _mean([swept for _, swept in gaps.values()]),
                "sources": len(gaps),
            }
    return means


def write(
    path: Path, rows: Sequence[Row], sources: Sequence[Source], settings: dict[str, Any]
) -> None:
    """Write the machine-readable results."""
    result: dict[str, Any] = {"settings": settings, "multi_task_mean": means_of(rows), "sources": {}}
    for source in sources:
        result["sources"][source.name] = {
            "questions": source.questions,
            "arms": source.arms,
            "tasks": source.tasks,
            "best_single": source.best,
            "best_single_quality": source.best_quality,
            "best_single_cost_usd": source.best_cost,
            "oracle_quality": source.oracle_quality,
            "policies": {
                row.policy: _json_of(row) for row in rows if row.source == source.name
            },
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def _json_of(row: Row) -> dict[str, Any]:
    fixed, swept = row.verdict.fixed, row.verdict.swept
    nothing = Interval(None)
    return {
        **{name: _interval(fixed.get(name, nothing)) for name in MEASURES},
        "auc": _interval(row.verdict.auc),
        "ece": _interval(row.verdict.ece),
        "ece_floor": _rounded(row.verdict.ece_floor),
        "brier": _rounded(row.verdict.brier),
        **{name: _interval(row.online.get(name, nothing)) for name in LATER},
        "swept": {name: _interval(swept.get(name, nothing)) for name in MEASURES},
    }


def _interval(interval: Interval) -> dict[str, Any]:
    return {
        "value": _rounded(interval.value),
        "interval": [_rounded(interval.low), _rounded(interval.high)],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 5)


def _figures(verdict: Verdict) -> list[str]:
    ece = _number(verdict.ece.value)
    floor = _number(verdict.ece_floor)
    auc = _number(verdict.auc.value)
    if not verdict.fixed:
        return ["–", "", "–", "–", "–", "–", "–", auc, ece, floor]
    fixed, gap = verdict.fixed, verdict.fixed["gap"]
    return [
        _number(gap.value),
        f"{_number(gap.low)} {_number(gap.high)}",
        _number(verdict.swept["gap"].value),
        _number(fixed["c100"].value, 2),
        _number(fixed["peak_gain"].value, 2, sign=True),
        _number(fixed["quality_at_25pct_cost"].value),
        _number(verdict.swept["harm"].value, 2),
        auc,
        ece,
        floor,
    ]


def _number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0
