"""Online learning on tables of outcomes. `python -m bench.routing.online --help`."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from bench.routing.online_agent import AGENTS, Agent, AgentRequest, build_lesson, decide
from bench.routing.online_scenarios import (
    BudgetResult,
    DegradationResult,
    NewModelResult,
    run_budget,
    run_degradation,
    run_new_model,
)
from bench.routing.online_stream import PRICE, Stream, build_priors, build_stream, priors_path
from bench.routing.sources import MIX, read_source
from lab.evaluation.tables import OutcomeTable, is_table, read_table
from sophia.routing.bandit.policy import Vector
from sophia.routing.types import UtilityWeights

FIRST = 500
SEEDS = 4
# Student's t for 95 %, by degrees of freedom.
T_QUANTILES = (
    12.7,
    4.3,
    3.18,
    2.78,
    2.57,
    2.45,
    2.36,
    2.31,
    2.26,
    2.23,
    2.2,
    2.18,
    2.16,
    2.14,
    2.13,
)

ReportProgress = Callable[[float], None]


class SeedInterval(Struct, frozen=True):
    """A mean over seeds with its 95 % confidence interval."""

    mean: float
    low: float
    high: float


class OnlineResult(Struct, frozen=True):
    """Results of one policy on one stream over several random orders.

    Headroom is 0 for random choice and 1 for the router that knows the outcomes of all arms by
    task. `feedback` is the share of outcomes that are observed.
    """

    source: str
    policy: str
    prior: str
    feedback: float
    seeds: int
    requests: int
    utility: SeedInterval
    online_headroom: SeedInterval
    first_500_headroom: SeedInterval


class References(Struct, frozen=True):
    """Mean utilities of the reference policies."""

    source: str
    requests: int
    arms: int
    random: float
    best_fixed: float
    informed: float
    known_task: float
    oracle: float


class OnlineReport(Struct, frozen=True):
    """All results of a run."""

    references: list[References] = []
    online: list[OnlineResult] = []
    newcomers: list[NewModelResult] = []
    decays: list[DegradationResult] = []
    budgets: list[BudgetResult] = []


class OnlineRun(Struct, frozen=True):
    """Settings of a run: a policy of `AGENTS`, its prior, and the share of observed outcomes.

    `prior` is `noisy` (true task means ± 6 points), `flat`, or `real` (other benchmarks' means).
    """

    policy: str = "hierarchical"
    prior: str = "noisy"
    feedback: float = 1.0
    seeds: int = SEEDS


def run(
    stream: Stream,
    plan: OnlineRun,
    folder: Path | None = None,
    report_progress: ReportProgress = lambda share: None,
) -> OnlineResult:
    """Run a policy on random orders of `stream`; `folder` holds the real priors."""
    runs = []
    for seed in range(plan.seeds):
        rng = np.random.default_rng([seed, 7])
        order = rng.permutation(len(stream.contexts))
        agent = AGENTS[plan.policy](stream, build_priors(stream, plan.prior, rng, folder))
        observed = rng.random(len(order)) < plan.feedback
        gained = _simulate(stream, agent, order, observed, rng)
        utility = stream.utility[order]
        informed = utility[np.arange(len(order)), stream.informed[order]]
        runs.append(np.stack([gained, utility.mean(axis=1), informed]))
        report_progress((seed + 1) / plan.seeds)
    whole = np.stack([part.mean(axis=1) for part in runs])
    first = np.stack([part[:, :FIRST].mean(axis=1) for part in runs])
    return OnlineResult(
        stream.name,
        plan.policy,
        plan.prior,
        plan.feedback,
        plan.seeds,
        len(stream.contexts),
        t_interval(whole[:, 0]),
        headroom(whole),
        headroom(first),
    )


def compute_references(stream: Stream) -> References:
    """Return the mean utilities of the reference policies on a stream."""
    utility = stream.utility
    best_by_task = sum(
        utility[stream.task_ids == task].sum(axis=0).max() for task in set(stream.task_ids)
    )
    return References(
        source=stream.name,
        requests=utility.shape[0],
        arms=utility.shape[1],
        random=float(utility.mean()),
        best_fixed=float(utility.mean(axis=0).max()),
        informed=float(utility[np.arange(len(utility)), stream.informed].mean()),
        known_task=float(best_by_task / len(utility)),
        oracle=float(utility.max(axis=1).mean()),
    )


def headroom(parts: np.ndarray) -> SeedInterval:
    """Return the headroom from utilities (seeds, [gained, random, informed]) by jackknife."""

    def share(some: np.ndarray) -> float:
        gained, random, informed = some.mean(axis=0)
        return float((gained - random) / (informed - random))

    count = len(parts)
    mean = share(parts)
    if count < 2:
        return SeedInterval(mean, float("nan"), float("nan"))
    left_out = np.array([share(np.delete(parts, seed, axis=0)) for seed in range(count)])
    error = float(np.sqrt((count - 1) * ((left_out - left_out.mean()) ** 2).mean()))
    half_width = error * T_QUANTILES[min(count - 2, len(T_QUANTILES) - 1)]
    return SeedInterval(mean, mean - half_width, mean + half_width)


def t_interval(values: Vector) -> SeedInterval:
    """Return the mean and its interval by Student's t."""
    mean = float(values.mean())
    if len(values) < 2:
        return SeedInterval(mean, float("nan"), float("nan"))
    half_width = float(values.std(ddof=1) / len(values) ** 0.5)
    half_width *= T_QUANTILES[min(len(values) - 2, len(T_QUANTILES) - 1)]
    return SeedInterval(mean, mean - half_width, mean + half_width)


def read_tables(folder: Path) -> Iterable[OutcomeTable]:
    """Return the tables of a folder, `mix` first where its two sources are there."""
    parts = folder / "zeroeval", folder / "bfcl"
    if all(map(is_table, parts)) and priors_path(folder, "mix").is_file():
        yield read_source(folder, MIX)
    for path in sorted(folder.iterdir()):
        if is_table(path):
            yield read_table(path)


def _simulate(
    stream: Stream, agent: Agent, order: np.ndarray, observed: np.ndarray, rng: np.random.Generator
) -> Vector:
    """Return the utility of every choice, (N,)."""
    weights = UtilityWeights(PRICE, stream.reference)
    utility = stream.utility
    gained = np.empty(len(order))
    for number, row in enumerate(order):
        step = decide(agent, stream, AgentRequest(row, weights, float(rng.random())))
        gained[number] = utility[row, step.arm]
        if observed[number]:
            agent.learn(build_lesson(stream, row, step.arm), step.expected, step.sd)
    return gained


def list_runs(real: bool, seeds: int) -> list[OnlineRun]:
    """Return the runs on a stream; with `real`, also those with benchmark priors."""
    some = [OnlineRun(policy) for policy in AGENTS]
    some += [OnlineRun(policy, "flat") for policy in ("hierarchical", "linucb")]
    some += [OnlineRun(policy, "noisy", 0.2) for policy in ("hierarchical", "linucb")]
    some.append(OnlineRun("hierarchical", "noisy", 0.05))
    if real:
        some += [OnlineRun("hierarchical", "real", share) for share in (1.0, 0.2, 0.05)]
    return [msgspec.structs.replace(plan, seeds=seeds) for plan in some]


def run_all(
    stream: Stream, seeds: int, folder: Path, only: Sequence[str], bar: Progress
) -> OnlineReport:
    """Run the selected evaluations of one stream."""
    online: list[OnlineResult] = []
    plans = list_runs(priors_path(folder, stream.name).is_file(), seeds) if "online" in only else []
    for plan in plans:
        label = f"{stream.name}: {plan.policy}, {plan.prior} prior, {plan.feedback:.0%} feedback"
        task = bar.add_task(label, total=1.0)

        def report_progress(share: float, task: TaskID = task) -> None:
            bar.update(task, completed=share)

        online.append(run(stream, plan, folder, report_progress))
        bar.remove_task(task)
    return OnlineReport(
        [compute_references(stream)],
        online,
        [run_new_model(stream, error, seeds) for error in (0.0, 0.2) if "newcomer" in only],
        [run_degradation(stream, seeds)] if "decay" in only else [],
        [run_budget(stream, goal, seeds) for goal in (0.05, 0.1, 0.25) if "budget" in only],
    )


def print_report(report: OnlineReport, console: Console) -> None:
    """Print the report as tables."""
    table = Table(title="Utilities of reference policies")
    for name in ("source", "requests", "arms", "random", "fixed", "informed", "task", "oracle"):
        table.add_column(name)
    for one in report.references:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in _values(one)))
    console.print(table)
    table = Table(title="Share of the headroom, with 95 % intervals over seeds")
    for name in ("source", "policy", "prior", "feedback", "utility", "whole stream", "first 500"):
        table.add_column(name)
    for found in report.online:
        whole, first = found.online_headroom, found.first_500_headroom
        table.add_row(
            found.source,
            found.policy,
            found.prior,
            f"{found.feedback:.0%}",
            f"{found.utility.mean:.4f}",
            f"{whole.mean:.3f} [{whole.low:.3f}, {whole.high:.3f}]",
            f"{first.mean:.3f} [{first.low:.3f}, {first.high:.3f}]",
        )
    console.print(table)
    for other in (*report.newcomers, *report.decays, *report.budgets):
        console.print(other)


def main() -> None:
    """Run the selected evaluations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/routing"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--source", action="append", help="only this source; may be repeated")
    parser.add_argument("--only", nargs="+", default=["online", "newcomer", "decay", "budget"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    reports = []
    with Progress(console=console) as bar:
        for table in read_tables(options.data):
            if options.source and table.name not in options.source:
                continue
            stream = build_stream(table)
            reports.append(run_all(stream, options.seeds, options.data, options.only, bar))
    report = OnlineReport(
        [one for part in reports for one in part.references],
        [one for part in reports for one in part.online],
        [one for part in reports for one in part.newcomers],
        [one for part in reports for one in part.decays],
        [one for part in reports for one in part.budgets],
    )
    print_report(report, console)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))


def _values(struct: Struct) -> list[object]:
    return [getattr(struct, name) for name in struct.__struct_fields__]


if __name__ == "__main__":
    main()
