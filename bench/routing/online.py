"""Learning while serving, on tables of outcomes. `python -m bench.routing.online --help`."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from bench.routing.online_agent import AGENTS, Agent, Ask, decide, lesson_of
from bench.routing.online_scenarios import Budget, Decay, Newcomer, budget, decay, newcomer
from bench.routing.online_stream import PRICE, Stream, priors_of, real_priors, stream_of
from bench.routing.sources import MIX, read_source
from sophia.learning.tables import OutcomeTable, is_table, read_table
from sophia.routing.policies.choose import Taste
from sophia.routing.policies.policy import Vector

FIRST = 500
SEEDS = 4
# Student's t for 95 %, by degrees of freedom.
STUDENT = (12.7, 4.3, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.2, 2.18, 2.16, 2.14, 2.13)

Tell = Callable[[float], None]


class Interval(Struct, frozen=True):
    """A mean over seeds, and where it is with 95 % confidence."""

    mean: float
    low: float
    high: float


class Online(Struct, frozen=True):
    """How one policy did on one stream, over several random orders of it.

    A headroom is the share of the way from random choice (0) to the router that knows all outcomes
    of all arms by task (1). `feedback` is the share of outcomes that were told.
    """

    source: str
    policy: str
    prior: str
    feedback: float
    seeds: int
    requests: int
    utility: Interval
    online_headroom: Interval
    first_500_headroom: Interval


class References(Struct, frozen=True):
    """Mean utilities that the headroom is measured between, and beside."""

    source: str
    requests: int
    arms: int
    random: float
    best_fixed: float
    informed: float
    told_task: float
    oracle: float


class Report(Struct, frozen=True):
    """Everything that a run found."""

    references: list[References] = []
    online: list[Online] = []
    newcomers: list[Newcomer] = []
    decays: list[Decay] = []
    budgets: list[Budget] = []


class Plan(Struct, frozen=True):
    """What is run: a policy, by its name in `AGENTS`, with a prior and a share of outcomes told.

    `prior` is `noisy` (true task means ± 6 points), `flat`, or `real` (other benchmarks' means).
    """

    policy: str = "hierarchical"
    prior: str = "noisy"
    feedback: float = 1.0
    seeds: int = SEEDS


def run(
    stream: Stream, plan: Plan, folder: Path | None = None, tell: Tell = lambda share: None
) -> Online:
    """Return how a policy does on random orders of `stream`; `folder` is for real priors."""
    runs = []
    for seed in range(plan.seeds):
        rng = np.random.default_rng([seed, 7])
        order = rng.permutation(len(stream.sights))
        agent = AGENTS[plan.policy](stream, priors_of(stream, plan.prior, rng, folder))
        told = rng.random(len(order)) < plan.feedback
        gained = _play(stream, agent, order, told, rng)
        utility = stream.utility[order]
        informed = utility[np.arange(len(order)), stream.informed[order]]
        runs.append(np.stack([gained, utility.mean(axis=1), informed]))
        tell((seed + 1) / plan.seeds)
    whole = np.stack([part.mean(axis=1) for part in runs])
    first = np.stack([part[:, :FIRST].mean(axis=1) for part in runs])
    return Online(
        stream.name,
        plan.policy,
        plan.prior,
        plan.feedback,
        plan.seeds,
        len(stream.sights),
        interval(whole[:, 0]),
        headroom(whole),
        headroom(first),
    )


def references(stream: Stream) -> References:
    """Return what fixed and all-knowing choices give on a stream."""
    utility = stream.utility
    told = sum(utility[stream.codes == task].sum(axis=0).max() for task in set(stream.codes))
    return References(
        stream.name,
        *utility.shape,
        random=float(utility.mean()),
        best_fixed=float(utility.mean(axis=0).max()),
        informed=float(utility[np.arange(len(utility)), stream.informed].mean()),
        told_task=float(told / len(utility)),
        oracle=float(utility.max(axis=1).mean()),
    )


def headroom(parts: np.ndarray) -> Interval:
    """Return the share of headroom from (seeds, [gained, random, informed]), by the jackknife."""

    def share(some: np.ndarray) -> float:
        gained, chance, informed = some.mean(axis=0)
        return float((gained - chance) / (informed - chance))

    count = len(parts)
    mean = share(parts)
    if count < 2:
        return Interval(mean, float("nan"), float("nan"))
    left_out = np.array([share(np.delete(parts, seed, axis=0)) for seed in range(count)])
    error = float(np.sqrt((count - 1) * ((left_out - left_out.mean()) ** 2).mean()))
    reach = error * STUDENT[min(count - 2, len(STUDENT) - 1)]
    return Interval(mean, mean - reach, mean + reach)


def interval(values: Vector) -> Interval:
    """Return the mean and its interval by Student's t."""
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"))
    reach = float(values.std(ddof=1) / len(values) ** 0.5)
    reach *= STUDENT[min(len(values) - 2, len(STUDENT) - 1)]
    return Interval(mean, mean - reach, mean + reach)


def tables_in(folder: Path) -> Iterable[OutcomeTable]:
    """Return the tables of a folder, `mix` first where its two sources are there."""
    parts = folder / "zeroeval", folder / "bfcl"
    if all(map(is_table, parts)) and real_priors(folder, "mix").is_file():
        yield read_source(folder, MIX)
    for path in sorted(folder.iterdir()):
        if is_table(path):
            yield read_table(path)


def _play(
    stream: Stream, agent: Agent, order: np.ndarray, told: np.ndarray, rng: np.random.Generator
) -> Vector:
    """Return the utility of every choice, (N,)."""
    taste = Taste(PRICE, stream.reference)
    utility = stream.utility
    gained = np.empty(len(order))
    for number, row in enumerate(order):
        step = decide(agent, stream, Ask(row, taste, float(rng.random())))
        gained[number] = utility[row, step.arm]
        if told[number]:
            agent.learn(lesson_of(stream, row, step.arm), step.expected, step.sd)
    return gained


def plans(real: bool, seeds: int) -> list[Plan]:
    """Return what is run on a stream; with `real` benchmark priors too."""
    some = [Plan(policy) for policy in AGENTS]
    some += [Plan(policy, "flat") for policy in ("hierarchical", "linucb")]
    some += [Plan(policy, "noisy", 0.2) for policy in ("hierarchical", "linucb")]
    some.append(Plan("hierarchical", "noisy", 0.05))
    if real:
        some += [Plan("hierarchical", "real", share) for share in (1.0, 0.2, 0.05)]
    return [msgspec.structs.replace(plan, seeds=seeds) for plan in some]


def study(stream: Stream, seeds: int, folder: Path, only: Sequence[str], bar: Progress) -> Report:
    """Return all that is asked of one stream."""
    online: list[Online] = []
    wanted = plans(real_priors(folder, stream.name).is_file(), seeds) if "online" in only else []
    for plan in wanted:
        told = f"{stream.name}: {plan.policy}, {plan.prior} prior, {plan.feedback:.0%} told"
        task = bar.add_task(told, total=1.0)

        def tell(share: float, task: TaskID = task) -> None:
            bar.update(task, completed=share)

        online.append(run(stream, plan, folder, tell))
        bar.remove_task(task)
    return Report(
        [references(stream)],
        online,
        [newcomer(stream, error, seeds) for error in (0.0, 0.2) if "newcomer" in only],
        [decay(stream, seeds)] if "decay" in only else [],
        [budget(stream, goal, seeds) for goal in (0.05, 0.1, 0.25) if "budget" in only],
    )


def show(report: Report, console: Console) -> None:
    """Print the report as tables."""
    table = Table(title="Utilities to measure between")
    for name in ("source", "requests", "arms", "random", "fixed", "informed", "told", "oracle"):
        table.add_column(name)
    for one in report.references:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in _values(one)))
    console.print(table)
    table = Table(title="Share of the headroom, with 95 % intervals over seeds")
    for name in ("source", "policy", "prior", "told", "utility", "whole stream", "first 500"):
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
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/routing"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--source", action="append", help="only this one; may be repeated")
    parser.add_argument("--only", nargs="+", default=["online", "newcomer", "decay", "budget"])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    console = Console()
    reports = []
    with Progress(console=console) as bar:
        for table in tables_in(asked.data):
            if asked.source and table.name not in asked.source:
                continue
            stream = stream_of(table)
            reports.append(study(stream, asked.seeds, asked.data, asked.only, bar))
    report = Report(
        [one for part in reports for one in part.references],
        [one for part in reports for one in part.online],
        [one for part in reports for one in part.newcomers],
        [one for part in reports for one in part.decays],
        [one for part in reports for one in part.budgets],
    )
    show(report, console)
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))


def _values(struct: Struct) -> list[object]:
    return [getattr(struct, name) for name in struct.__struct_fields__]


if __name__ == "__main__":
    main()
