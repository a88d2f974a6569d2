"""Results of the routing benchmark as a terminal table and as JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.routing.sources import MULTI_TASK
from lab.evaluation.measures import BootstrapInterval, PolicyMetrics

MEASURES = ("gap", "c100", "peak_gain", "quality_at_25pct_cost", "harm")
ONLINE_MEASURES = ("online_headroom", "first_500_headroom")


@dataclass(frozen=True)
class PolicyRow:
    """Metrics of one policy on one source."""

    source: str
    policy: str
    metrics: PolicyMetrics
    online: dict[str, BootstrapInterval] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceSummary:
    """Summary of a source without policies."""

    name: str
    questions: int
    arms: int
    tasks: int
    priced: bool
    best: str
    best_quality: float
    best_cost: float | None
    oracle_quality: float


def build_table(rows: Sequence[PolicyRow], sources: Sequence[SourceSummary]) -> Table:
    """Return the table of all policies and sources."""
    table = Table(title="Routing on real outcomes, cross-fitted; λ fixed on the other folds")
    for title in ("source", "policy"):
        table.add_column(title, no_wrap=True)
    titles = (
        "gap",
        "[95 %]",
        "swept",
        "c100",
        "peak",
        "q at 25 %",
        "harm",
        "auc",
        "ece",
        "floor",
        "online",
        "first",
    )
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for source in sources:
        table.add_section()
        name = source.name
        for row in rows:
            if row.source == source.name:
                later = [
                    row.online.get(measure, BootstrapInterval(None)) for measure in ONLINE_MEASURES
                ]
                figures = [_number(one.value, 2) for one in later]
                table.add_row(name, row.policy, *_figures(row.metrics), *figures)
                name = ""
    return table


def format_source(source: SourceSummary) -> str:
    """Return the summary of a source in one line."""
    best = f"{source.best_quality:.3f}"
    if source.best_cost is not None:
        best += f" for ${source.best_cost:.5f}"
    return (
        f"{source.name}: {source.questions:,} questions × {source.arms} arms, {source.tasks} tasks; "
        f"best single {source.best} ({best}); oracle {source.oracle_quality:.3f}"
    )


def average_by_policy(rows: Sequence[PolicyRow]) -> dict[str, dict[str, float]]:
    """Return the mean gap of each policy over the evaluated multi-task sources."""
    means: dict[str, dict[str, float]] = {}
    for policy in dict.fromkeys(row.policy for row in rows):
        gaps = {
            row.source: (row.metrics.held_out["gap"].value, row.metrics.hindsight["gap"].value)
            for row in rows
            if row.policy == policy and row.source in MULTI_TASK and row.metrics.held_out
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
    path: Path,
    rows: Sequence[PolicyRow],
    sources: Sequence[SourceSummary],
    settings: dict[str, Any],
) -> None:
    """Write the machine-readable results."""
    result: dict[str, Any] = {
        "settings": settings,
        "multi_task_mean": average_by_policy(rows),
        "sources": {},
    }
    for source in sources:
        result["sources"][source.name] = {
            "questions": source.questions,
            "arms": source.arms,
            "tasks": source.tasks,
            "best_single": source.best,
            "best_single_quality": source.best_quality,
            "best_single_cost_usd": source.best_cost,
            "oracle_quality": source.oracle_quality,
            "policies": {row.policy: _encode_row(row) for row in rows if row.source == source.name},
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def _encode_row(row: PolicyRow) -> dict[str, Any]:
    fixed, swept = row.metrics.held_out, row.metrics.hindsight
    nothing = BootstrapInterval(None)
    return {
        **{name: _interval(fixed.get(name, nothing)) for name in MEASURES},
        "auc": _interval(row.metrics.auc),
        "ece": _interval(row.metrics.ece),
        "ece_floor": _rounded(row.metrics.ece_floor),
        "brier": _rounded(row.metrics.brier),
        **{name: _interval(row.online.get(name, nothing)) for name in ONLINE_MEASURES},
        "swept": {name: _interval(swept.get(name, nothing)) for name in MEASURES},
    }


def _interval(interval: BootstrapInterval) -> dict[str, Any]:
    return {
        "value": _rounded(interval.value),
        "interval": [_rounded(interval.low), _rounded(interval.high)],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 5)


def _figures(metrics: PolicyMetrics) -> list[str]:
    ece = _number(metrics.ece.value)
    floor = _number(metrics.ece_floor)
    auc = _number(metrics.auc.value)
    if not metrics.held_out:
        return ["–", "", "–", "–", "–", "–", "–", auc, ece, floor]
    fixed, gap = metrics.held_out, metrics.held_out["gap"]
    return [
        _number(gap.value),
        f"{_number(gap.low)} {_number(gap.high)}",
        _number(metrics.hindsight["gap"].value),
        _number(fixed["c100"].value, 2),
        _number(fixed["peak_gain"].value, 2, sign=True),
        _number(fixed["quality_at_25pct_cost"].value),
        _number(metrics.hindsight["harm"].value, 2),
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
