"""Errors of off-policy estimates on tables where every arm's score is known.

A softmax logging policy with a floor answers requests sampled from a table; the estimators see its
log only. Their errors are measured for new requests of the same distribution (`rmse`) and for the
logged ones (`replay_rmse`). `least` is the semiparametric efficiency bound: the smallest error of an
unbiased estimator on new requests that knows the task, the length and the exact propensities.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from sophia.learning.evaluation.off_policy import (
    InsufficientData,
    OffPolicyEstimate,
    estimate_value,
    predict_rewards,
)
from sophia.learning.evaluation.support import BanditLog

Matrix = NDArray[np.float64]

SOURCES = ("mix", "mmlu_pro")
LOGS, SEEDS = 4000, 200
FLOOR, TEMPERATURE, LABELS = 0.05, 0.08, 20
METHODS = ("ips", "snips", "dr", "clipped")


class OutcomeMatrix(NamedTuple):
    """Scores of every arm for every request: contexts (N, F), scores (N, A), tasks (N,)."""

    name: str
    contexts: Matrix
    scores: Matrix
    tasks: NDArray[np.intp]


class TargetResult(msgspec.Struct, frozen=True):
    """Results of one target on one source over all seeds; errors and coverage without refusals."""

    source: str
    target: str
    seeds: int
    refused: int
    ess: float
    max_weight: float
    outside: float
    truth: float
    least: float
    rmse: dict[str, float]
    replay_rmse: dict[str, float]
    coverage: dict[str, float]
    bias: dict[str, float]
    half_width: float
    refusals_right: bool


class OffPolicyResult(msgspec.Struct, frozen=True):
    """All results, with summaries over those with an effective sample size >= 1,000."""

    logs: int
    seeds: int
    lines: list[TargetResult]
    worst_rmse: float
    worst_replay_rmse: float
    mean_rmse: float
    mean_replay_rmse: float
    least_coverage: float
    mean_coverage: float
    refusals_right: bool


def main() -> None:
    """Run, print, and write JSON with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/routing"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--logs", type=int, default=LOGS)
    options = parser.parse_args()
    if not any(options.data.glob("*/outcomes.parquet")):
        parser.error(f"no table of outcomes below {options.data}")
    result = run(options.data, seeds=options.seeds, logs=options.logs)
    print_report(result)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def run(
    data: Path, *, seeds: int = SEEDS, logs: int = LOGS, progress: bool = True
) -> OffPolicyResult:
    """Measure the estimators on `mix` and `mmlu_pro` below `data`, else on all tables there."""
    tables = [table for name in SOURCES if (table := read_matrix(data, name))]
    if not tables:
        names = sorted(path.parent.name for path in data.glob("*/outcomes.parquet"))
        tables = [table for name in names if (table := read_matrix(data, name))]
    lines = [line for table in tables for line in measure(table, seeds, logs, progress)]
    fit = [line for line in lines if line.ess >= 1000 and line.refused < line.seeds]
    sure = [line for line in lines if line.refused == 0]
    return OffPolicyResult(
        logs=logs,
        seeds=seeds,
        lines=lines,
        worst_rmse=max((line.rmse["dr"] for line in fit), default=np.nan),
        worst_replay_rmse=max((line.replay_rmse["dr"] for line in fit), default=np.nan),
        mean_rmse=float(np.mean([line.rmse["dr"] for line in fit] or [np.nan])),
        mean_replay_rmse=float(np.mean([line.replay_rmse["dr"] for line in fit] or [np.nan])),
        least_coverage=min((line.coverage["dr"] for line in sure), default=np.nan),
        mean_coverage=float(np.mean([line.coverage["dr"] for line in sure] or [np.nan])),
        refusals_right=all(line.refusals_right for line in lines),
    )


def read_matrix(data: Path, name: str) -> OutcomeMatrix | None:
    """Return a table without incomplete requests, or None if its files are missing."""
    import pyarrow.parquet as pq

    parts = [name]
    shared: list[str] | None = None
    if name == "mix":
        parts = ["zeroeval", "bfcl"]
        names = data / "priors" / "mix2024.json"
        shared = sorted(json.loads(names.read_text())) if names.exists() else None
        if shared is None:
            return None
    if not all((data / part / "outcomes.parquet").exists() for part in parts):
        return None
    tasks: dict[str, str] = {}
    chars: dict[str, int] = {}
    cells: dict[tuple[str, str], float] = {}
    for part in parts:
        queries = pq.read_table(
            data / part / "queries.parquet", columns=["query_id", "task", "query_text"]
        )
        for row in queries.to_pylist():
            id = f"{part}/{row['query_id']}"
            tasks[id], chars[id] = f"{part}/{row['task']}", len(row["query_text"] or "")
        outcomes = pq.read_table(
            data / part / "outcomes.parquet", columns=["query_id", "model", "score"]
        )
        for query, model, score in zip(
            *(outcomes[c].to_pylist() for c in outcomes.column_names), strict=True
        ):
            if score is not None:
                cells[f"{part}/{query}", model] = score
    return build_matrix(name, tasks, chars, cells, shared)


def build_matrix(
    name: str,
    tasks: dict[str, str],
    chars: dict[str, int],
    cells: dict[tuple[str, str], float],
    arms: list[str] | None,
) -> OutcomeMatrix:
    ids = sorted(tasks)
    if arms is None:
        counts: dict[str, int] = {}
        for _, model in cells:
            counts[model] = counts.get(model, 0) + 1
        arms = sorted(model for model, n in counts.items() if n >= 0.95 * len(ids))
    rows = [id for id in ids if all((id, arm) in cells for arm in arms)]
    scores = np.array([[cells[id, arm] for arm in arms] for id in rows])
    kinds = sorted({tasks[id] for id in rows})
    task = np.array([kinds.index(tasks[id]) for id in rows])
    length = np.log1p([chars[id] for id in rows])
    contexts = np.hstack([np.eye(len(kinds))[task], length[:, None], length[:, None] ** 2])
    return OutcomeMatrix(name, contexts, scores, task)


def softmax(values: Matrix, temperature: float) -> Matrix:
    raised = np.exp((values - values.max(axis=1, keepdims=True)) / temperature)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def mix_with_uniform(propensities: Matrix, floor: float) -> Matrix:
    return (1 - floor) * propensities + floor / propensities.shape[1]


def estimate_from_labels(table: OutcomeMatrix, rng: np.random.Generator) -> Matrix:
    """Return qualities, (N, A), estimated from 20 sampled labels per task and arm."""
    belief = np.empty_like(table.scores)
    for task in np.unique(table.tasks):
        rows = np.flatnonzero(table.tasks == task)
        seen = rng.choice(rows, size=(LABELS, table.scores.shape[1]))
        means = table.scores[seen, np.arange(table.scores.shape[1])].mean(axis=0)
        belief[rows] = 0.5 * means + 0.5 * means.mean()
    return belief


def build_targets(table: OutcomeMatrix, belief: Matrix, other: Matrix) -> dict[str, Matrix]:
    arms = table.scores.shape[1]
    greedy = np.eye(arms)[other.argmax(axis=1)]
    best = np.eye(arms)[[int(table.scores.mean(axis=0).argmax())] * len(table.scores)]
    return {
        "sharper": mix_with_uniform(softmax(belief, TEMPERATURE / 1.5), FLOOR / 2),
        "learned more": mix_with_uniform(softmax((belief + other) / 2, TEMPERATURE), FLOOR),
        "learned anew": mix_with_uniform(softmax(other, TEMPERATURE * 1.5), FLOOR),
        "uniform": np.full_like(belief, 1 / arms),
        "greedy": mix_with_uniform(greedy, FLOOR),
        "best fixed": mix_with_uniform(best, FLOOR),
        "never logged": np.eye(arms)[[arms - 1] * len(belief)],
    }


class LogResult(NamedTuple):
    """Result on one log: estimate, true values for new and for logged requests, error bound."""

    estimate: OffPolicyEstimate | InsufficientData
    truth: float
    replay: float
    least: float


def efficiency_bound(
    target: Matrix, propensities: Matrix, scores: Matrix, typical: Matrix
) -> float:
    """Return the smallest standard deviation per decision of an unbiased estimate."""
    squares = np.divide(target**2, propensities, out=np.zeros_like(target), where=propensities > 0)
    noise = float((squares * (scores - typical) ** 2).sum(axis=1).mean())
    return float(np.sqrt(noise + (target * typical).sum(axis=1).var()))


def measure(table: OutcomeMatrix, seeds: int, logs: int, progress: bool) -> list[TargetResult]:
    results: dict[str, list[LogResult]] = {}
    typical = np.empty_like(table.scores)
    for task in np.unique(table.tasks):
        typical[table.tasks == task] = table.scores[table.tasks == task].mean(axis=0)
    for seed in range(seeds):
        if progress and sys.stderr.isatty():
            print(f"\r{table.name}: seed {seed + 1} of {seeds}", end="", file=sys.stderr)
        rng = np.random.default_rng([seed, 7])
        belief, other = estimate_from_labels(table, rng), estimate_from_labels(table, rng)
        logger = mix_with_uniform(softmax(belief, TEMPERATURE), FLOOR)
        sampled = rng.integers(0, len(table.scores), logs)
        for name, target in build_targets(table, belief, other).items():
            propensities = logger.copy()
            if name == "never logged":
                propensities[:, -1] = 0
                propensities /= propensities.sum(axis=1, keepdims=True)
            draw = rng.random((logs, 1))
            arms = (
                (propensities[sampled].cumsum(axis=1) < draw)
                .sum(axis=1)
                .clip(max=propensities.shape[1] - 1)
            )
            log = BanditLog(
                contexts=table.contexts[sampled],
                arms=arms,
                propensities=propensities[sampled],
                rewards=table.scores[sampled, arms],
                response_weights=np.ones(logs),
            )
            value = (target * table.scores).sum(axis=1)
            estimate = estimate_value(log, target[sampled], predict_rewards(log, seed))
            least = efficiency_bound(target, propensities, table.scores, typical) / np.sqrt(logs)
            results.setdefault(name, []).append(
                LogResult(estimate, float(value.mean()), float(value[sampled].mean()), least)
            )
    if progress and sys.stderr.isatty():
        print(file=sys.stderr)
    return [summarize_target(table.name, name, rows) for name, rows in results.items()]


def summarize_target(source: str, target: str, rows: list[LogResult]) -> TargetResult:
    kept = [row for row in rows if isinstance(row.estimate, OffPolicyEstimate)]
    errors: dict[str, list[tuple[float, float, bool]]] = {method: [] for method in METHODS}
    for estimate, truth, replay, _ in kept:
        for method in METHODS:
            one = getattr(estimate, method)
            errors[method].append(
                (one.value - truth, one.value - replay, one.low <= truth <= one.high)
            )
    grounds = [row.estimate.support for row in rows]
    widths = [
        row.estimate.dr.high - row.estimate.dr.low
        for row in kept
        if isinstance(row.estimate, OffPolicyEstimate)
    ]

    def root(column: int) -> dict[str, float]:
        return {
            m: float(np.sqrt(np.mean([e[column] ** 2 for e in values]))) if values else np.nan
            for m, values in errors.items()
        }

    return TargetResult(
        source=source,
        target=target,
        seeds=len(rows),
        refused=len(rows) - len(kept),
        ess=float(np.median([ground.effective_sample_size for ground in grounds])),
        max_weight=float(np.median([ground.max_weight for ground in grounds])),
        outside=float(np.mean([ground.unsupported_share for ground in grounds])),
        truth=float(np.mean([row.truth for row in rows])),
        least=float(np.mean([row.least for row in rows])),
        rmse=root(0),
        replay_rmse=root(1),
        coverage={
            m: float(np.mean([e[2] for e in values])) if values else np.nan
            for m, values in errors.items()
        },
        bias={
            m: float(np.mean([e[0] for e in values])) if values else np.nan
            for m, values in errors.items()
        },
        half_width=float(np.mean(widths)) / 2 if widths else np.nan,
        refusals_right=all(
            isinstance(row.estimate, InsufficientData)
            == (
                row.estimate.support.unsupported_share > 0.05
                or row.estimate.support.effective_sample_size < 200
            )
            for row in rows
        ),
    )


def print_report(result: OffPolicyResult) -> None:
    print(f"{result.logs} logged decisions, {result.seeds} seeds; root mean square error × 1000")
    print(
        f"{'source':18}{'target':14}{'ESS':>6}{'w max':>7}{'outside':>8}{'refused':>8}"
        f"{'IPS':>7}{'SNIPS':>7}{'DR':>7}{'CLIP':>7}{'least':>7}{'DR replay':>10}{'bias':>7}{'cover':>7}{'±':>7}"
    )
    for one in result.lines:
        rmse = "".join(f"{one.rmse[m] * 1000:7.1f}" for m in METHODS)
        print(
            f"{one.source:18}{one.target:14}{one.ess:6.0f}{one.max_weight:7.1f}{one.outside:8.1%}"
            f"{one.refused:8d}{rmse}{one.least * 1000:7.1f}{one.replay_rmse['dr'] * 1000:10.1f}{one.bias['dr'] * 1000:7.1f}"
            f"{one.coverage['dr']:7.1%}{one.half_width * 1000:7.1f}"
        )
    print(
        f"ESS >= 1,000: worst DR error {result.worst_rmse:.4f} (replay {result.worst_replay_rmse:.4f}), "
        f"mean {result.mean_rmse:.4f} ({result.mean_replay_rmse:.4f}); "
        f"coverage at least {result.least_coverage:.1%}, mean {result.mean_coverage:.1%}; "
        f"refusals as specified: {result.refusals_right}"
    )


if __name__ == "__main__":
    main()
