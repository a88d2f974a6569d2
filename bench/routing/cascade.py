"""Resolved share and cost of agent cascades with an imperfect checker, on SWE-bench Verified.

The first agent and the value of a good answer are chosen on the other folds; the next agent follows
the product's own rule (`sophia.routing.escalation`). The checker is not sampled: expectations over
its verdicts are computed exactly.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lab.evaluation.tables import OutcomeTable, read_table
from sophia.routing.escalation import (
    CheckReliability,
    CheckScore,
    EscalationCandidate,
    choose_escalation,
    estimate_success,
    update_success,
)

DATA = Path(__file__).parents[2].parent / "shared/data/routing"
SOURCE = "swebench_verified"
BUDGET_USD = 0.19
TARGET = 0.79
MAX_ATTEMPTS = 3
NANO = 10**9
RESAMPLES = 1000
WIDTH = 160
# From the cost of the cheapest agent to a hundred times that of the most expensive one.
VALUES_USD = tuple(float(value) for value in np.geomspace(0.01, 100, 33))
Vector = NDArray[np.float64]


class Checker(msgspec.Struct, frozen=True):
    """A checker by its shares of accepted good answers and of rejected bad ones."""

    name: str
    accepts: float
    rejects: float

    @property
    def reliability(self) -> CheckReliability:
        """The reliability in the form of the product's rule."""
        return CheckReliability(self.accepts, 1 - self.rejects)


CHECKERS = (
    Checker("checker 90/70", 0.9, 0.7),
    Checker("checker 80/60", 0.8, 0.6),
    Checker("perfect checker", 1.0, 1.0),
)


class StrategyResult(msgspec.Struct, frozen=True):
    """Resolved share and US dollars per query of one strategy, with 95 % intervals."""

    name: str
    chains: tuple[tuple[str, ...], ...]
    resolved: float
    resolved_low: float
    resolved_high: float
    cost_usd: float
    cost_low: float
    cost_high: float


class CascadeResult(msgspec.Struct, frozen=True):
    """Results of all strategies; `reached`: the 90/70 checker meets the target within the budget."""

    queries: int
    arms: int
    folds: int
    budget_usd: float
    target: float
    reached: bool
    lines: tuple[StrategyResult, ...]


def run(data: Path = DATA, *, source: str = SOURCE, folds: int = 5, seed: int = 0) -> CascadeResult:
    """Evaluate cascades with each checker, and single agents, by cross-fitting.

    Raises:
        InvalidTable: the arms of the source cannot be compared.
        ValueError: the source has no costs.
    """
    table = read_table(data / source)
    if table.cost is None:
        raise ValueError(f"{source} has no costs")
    fold_ids = table.assign_folds(folds, seed)
    count = len(table.questions)
    drawn = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    experiment = _Experiment(table, fold_ids, drawn)
    lines = [
        _single("best single", experiment, np.inf),
        _single("best single in budget", experiment, BUDGET_USD),
    ]
    lines += [_cascade(experiment, checker) for checker in CHECKERS]
    first = next(line for line in lines if line.name == CHECKERS[0].name)
    reached = first.resolved >= TARGET and first.cost_usd <= BUDGET_USD
    return CascadeResult(count, len(table.arms), folds, BUDGET_USD, TARGET, reached, tuple(lines))


def build_chain(
    first: int, quality: Vector, cost: Vector, checker: Checker, value: float
) -> tuple[int, ...]:
    """Return the arms that the product's rule calls, in order, while every check fails.

    Args:
        first: the first arm.
        quality: expected quality of each arm, (A,).
        cost: expected cost of each arm in US dollars, (A,).
        checker: the checker of every answer but the last.
        value: value of a good answer in US dollars.
    """
    known = {"check": checker.reliability}
    beliefs, chain = quality.copy(), [first]
    while len(chain) < MAX_ATTEMPTS:
        last = chain[-1]
        good = estimate_success(float(beliefs[last]), [CheckScore("check", 0.0)], known)
        beliefs = np.array(
            [update_success(float(one), float(beliefs[last]), good) for one in beliefs]
        )
        others = [
            EscalationCandidate(
                model=str(arm),
                success_probability=float(beliefs[arm]),
                expected_nano=round(cost[arm] * NANO),
                held_nano=0,
            )
            for arm in range(len(quality))
            if arm not in chain
        ]
        chosen = choose_escalation(good, others, round(value * NANO))
        if chosen is None:
            break
        chain.append(int(chosen.model))
    return tuple(chain)


def simulate_chain(
    chain: Sequence[int], good: Vector, cost: Vector, checker: Checker
) -> tuple[Vector, Vector]:
    """Return the probability that each query is resolved, and its expected cost, (N,) each.

    A failed check leads to the next arm; the last arm's answer is returned unchecked.
    """
    reach, resolved, spent = np.ones(len(good)), np.zeros(len(good)), np.zeros(len(good))
    for arm in chain:
        passed = np.where(good[:, arm] > 0.5, checker.accepts, 1 - checker.rejects)
        passed = np.ones(len(good)) if arm == chain[-1] else passed
        spent += reach * cost[:, arm]
        resolved += reach * passed * good[:, arm]
        reach = reach * (1 - passed)
    return resolved, spent


class _Experiment(msgspec.Struct, frozen=True):
    """The table, each query's fold, and the bootstrap resamples."""

    table: OutcomeTable
    fold_ids: NDArray[np.intp]
    resamples: NDArray[np.intp]


Choose = Callable[[NDArray[np.bool_]], tuple[int, ...]]


def _cascade(experiment: _Experiment, checker: Checker) -> StrategyResult:
    quality, cost = experiment.table.quality, _costs(experiment.table)

    def choose(train: NDArray[np.bool_]) -> tuple[int, ...]:
        means, costs = quality[train].mean(axis=0), cost[train].mean(axis=0)
        chains = {
            build_chain(first, means, costs, checker, value)
            for first in range(len(means))
            for value in VALUES_USD
        }
        best: tuple[int, ...] = (int(np.argmin(costs)),)
        most = -1.0
        for chain in sorted(chains):
            resolved, spent = simulate_chain(chain, quality[train], cost[train], checker)
            if spent.mean() <= BUDGET_USD and resolved.mean() > most:
                best, most = chain, float(resolved.mean())
        return best

    return _cross_fitted(checker.name, experiment, choose, checker)


def _single(name: str, experiment: _Experiment, budget: float) -> StrategyResult:
    quality, cost = experiment.table.quality, _costs(experiment.table)

    def choose(train: NDArray[np.bool_]) -> tuple[int, ...]:
        able = cost[train].mean(axis=0) <= budget
        return (int(np.argmax(np.where(able, quality[train].mean(axis=0), -1.0))),)

    return _cross_fitted(name, experiment, choose, CHECKERS[0])


def _cross_fitted(
    name: str, experiment: _Experiment, choose: Choose, checker: Checker
) -> StrategyResult:
    table, fold_ids = experiment.table, experiment.fold_ids
    resolved, spent = np.zeros(len(fold_ids)), np.zeros(len(fold_ids))
    chains = []
    for fold in np.unique(fold_ids):
        test = fold_ids == fold
        chain = choose(~test)
        chains.append(tuple(table.arms[arm] for arm in chain))
        resolved[test], spent[test] = simulate_chain(
            chain, table.quality[test], _costs(table)[test], checker
        )
    drawn = experiment.resamples
    low, high = np.quantile(resolved[drawn].mean(axis=1), (0.025, 0.975))
    least, most = np.quantile(spent[drawn].mean(axis=1), (0.025, 0.975))
    return StrategyResult(
        name,
        tuple(dict.fromkeys(chains)),
        float(resolved.mean()),
        float(low),
        float(high),
        float(spent.mean()),
        float(least),
        float(most),
    )


def _costs(table: OutcomeTable) -> Vector:
    if table.cost is None:
        raise ValueError(f"{table.name} has no costs")
    return table.cost


def build_table(result: CascadeResult) -> Table:
    """Return the results as a table for the terminal."""
    title = f"Agentic cascade, {result.queries} queries, {result.arms} agents, cross-fitted"
    table = Table(title=title)
    for name in ("strategy", "resolved", "[95 %]", "USD", "[95 %]", "agents in order, by fold"):
        table.add_column(name)
    for line in result.lines:
        table.add_row(
            line.name,
            f"{line.resolved:.3f}",
            f"{line.resolved_low:.3f}–{line.resolved_high:.3f}",
            f"{line.cost_usd:.3f}",
            f"{line.cost_low:.3f}–{line.cost_high:.3f}",
            "\n".join(" → ".join(chain) for chain in line.chains),
        )
    return table


def main() -> None:
    """Run, print, and write JSON with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--source", default=SOURCE)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = run(options.data, source=options.source, folds=options.folds, seed=options.seed)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(build_table(result))
    word = "reached" if result.reached else "missed"
    console.print(f"{result.target:.2f} at ${result.budget_usd:.2f} with 90/70: {word}")
    if options.json:
        options.json.write_text(json.dumps(msgspec.to_builtins(result), indent=1) + "\n")


if __name__ == "__main__":
    main()
