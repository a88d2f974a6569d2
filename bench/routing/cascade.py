"""What a cascade of agents resolves for its money, with a checker that errs: SWE-bench Verified.

Who is asked first, and what a good answer is worth, is fixed on the other folds; who follows is the
product's own rule (`sophia.routing.cascade`). The checker is not drawn but reckoned with: each
query counts with the chances of every course that its answers can take.
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

from sophia.learning.tables import OutcomeTable, read_table
from sophia.routing.cascade import (
    Reliability,
    Signal,
    Stakes,
    Standby,
    after,
    chance,
    escalate,
)

DATA = Path(__file__).parents[2].parent / "shared/data/routing"
SOURCE = "swebench_verified"
BUDGET_USD = 0.19
TARGET = 0.79
MOST_ATTEMPTS = 3
NANO = 10**9
RESAMPLES = 1000
WIDTH = 160
# From what the cheapest agent costs to a hundred times what the dearest does.
VALUES_USD = tuple(float(value) for value in np.geomspace(0.01, 100, 33))
Vector = NDArray[np.float64]


class Checker(msgspec.Struct, frozen=True):
    """The shares of good answers that are accepted and of bad ones that are rejected."""

    name: str
    accepts: float
    rejects: float

    @property
    def reliability(self) -> Reliability:
        """The same as the product's rule knows it."""
        return Reliability(self.accepts, 1 - self.rejects)


CHECKERS = (
    Checker("checker 90/70", 0.9, 0.7),
    Checker("checker 80/60", 0.8, 0.6),
    Checker("perfect checker", 1.0, 1.0),
)


class Line(msgspec.Struct, frozen=True):
    """One way to serve all queries: share resolved and US dollars each, with 95 % intervals."""

    name: str
    chains: tuple[tuple[str, ...], ...]
    resolved: float
    resolved_low: float
    resolved_high: float
    cost_usd: float
    cost_low: float
    cost_high: float


class Result(msgspec.Struct, frozen=True):
    """All lines; `reached` says whether the 90/70 checker resolves the target within the budget."""

    queries: int
    arms: int
    folds: int
    budget_usd: float
    target: float
    reached: bool
    lines: tuple[Line, ...]


def run(data: Path = DATA, *, source: str = SOURCE, folds: int = 5, seed: int = 0) -> Result:
    """Return what cascades with each checker and single agents do, cross-fitted.

    Raises:
        Unreadable: the arms of the source cannot be compared.
        ValueError: the source has no costs.
    """
    table = read_table(data / source)
    if table.cost is None:
        raise ValueError(f"{source} has no costs")
    places = table.folds(folds, seed)
    count = len(table.questions)
    drawn = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    setting = _Setting(table, places, drawn)
    lines = [
        _single("best single", setting, np.inf),
        _single("best single in budget", setting, BUDGET_USD),
    ]
    lines += [_cascade(setting, checker) for checker in CHECKERS]
    first = next(line for line in lines if line.name == CHECKERS[0].name)
    reached = first.resolved >= TARGET and first.cost_usd <= BUDGET_USD
    return Result(count, len(table.arms), folds, BUDGET_USD, TARGET, reached, tuple(lines))


def chain_of(
    first: int, quality: Vector, cost: Vector, checker: Checker, value: float
) -> tuple[int, ...]:
    """Return whom the product's rule asks, in order, while every answer fails its check.

    Args:
        first: the arm that is asked first.
        quality: what is expected of each arm, (A,).
        cost: US dollars that each is expected to cost, (A,).
        checker: what is known of it.
        value: US dollars that a good answer is worth.
    """
    known = {"check": checker.reliability}
    beliefs, chain = quality.copy(), [first]
    while len(chain) < MOST_ATTEMPTS:
        last = chain[-1]
        good = chance(float(beliefs[last]), [Signal("check", 0.0)], known)
        beliefs = np.array([after(float(one), float(beliefs[last]), good) for one in beliefs])
        others = [
            Standby(str(arm), float(beliefs[arm]), round(cost[arm] * NANO), 0)
            for arm in range(len(quality))
            if arm not in chain
        ]
        chosen = escalate(good, others, Stakes(round(value * NANO)))
        if chosen is None:
            break
        chain.append(int(chosen.model))
    return tuple(chain)


def follow(
    chain: Sequence[int], good: Vector, cost: Vector, checker: Checker
) -> tuple[Vector, Vector]:
    """Return the chance that each query is resolved and what it costs, (N,) each.

    An answer that fails is followed by the next arm's; the last one's is given whatever is found.
    """
    reach, resolved, spent = np.ones(len(good)), np.zeros(len(good)), np.zeros(len(good))
    for arm in chain:
        passed = np.where(good[:, arm] > 0.5, checker.accepts, 1 - checker.rejects)
        passed = np.ones(len(good)) if arm == chain[-1] else passed
        spent += reach * cost[:, arm]
        resolved += reach * passed * good[:, arm]
        reach = reach * (1 - passed)
    return resolved, spent


class _Setting(msgspec.Struct, frozen=True):
    """The table, each query's fold, and the resamples that intervals are taken from."""

    table: OutcomeTable
    places: NDArray[np.intp]
    resamples: NDArray[np.intp]


Choose = Callable[[NDArray[np.bool_]], tuple[int, ...]]


def _cascade(setting: _Setting, checker: Checker) -> Line:
    quality, cost = setting.table.quality, _costs(setting.table)

    def choose(train: NDArray[np.bool_]) -> tuple[int, ...]:
        means, costs = quality[train].mean(axis=0), cost[train].mean(axis=0)
        chains = {
            chain_of(first, means, costs, checker, value)
            for first in range(len(means))
            for value in VALUES_USD
        }
        best: tuple[int, ...] = (int(np.argmin(costs)),)
        most = -1.0
        for chain in sorted(chains):
            resolved, spent = follow(chain, quality[train], cost[train], checker)
            if spent.mean() <= BUDGET_USD and resolved.mean() > most:
                best, most = chain, float(resolved.mean())
        return best

    return _cross_fitted(checker.name, setting, choose, checker)


def _single(name: str, setting: _Setting, budget: float) -> Line:
    quality, cost = setting.table.quality, _costs(setting.table)

    def choose(train: NDArray[np.bool_]) -> tuple[int, ...]:
        able = cost[train].mean(axis=0) <= budget
        return (int(np.argmax(np.where(able, quality[train].mean(axis=0), -1.0))),)

    return _cross_fitted(name, setting, choose, CHECKERS[0])


def _cross_fitted(name: str, setting: _Setting, choose: Choose, checker: Checker) -> Line:
    table, places = setting.table, setting.places
    resolved, spent = np.zeros(len(places)), np.zeros(len(places))
    chains = []
    for fold in np.unique(places):
        test = places == fold
        chain = choose(~test)
        chains.append(tuple(table.arms[arm] for arm in chain))
        resolved[test], spent[test] = follow(
            chain, table.quality[test], _costs(table)[test], checker
        )
    drawn = setting.resamples
    low, high = np.quantile(resolved[drawn].mean(axis=1), (0.025, 0.975))
    least, most = np.quantile(spent[drawn].mean(axis=1), (0.025, 0.975))
    return Line(
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


def table_of(result: Result) -> Table:
    """Return the lines as people read them."""
    title = f"Agentic cascade, {result.queries} queries, {result.arms} agents, cross-fitted"
    told = Table(title=title)
    for name in ("way", "resolved", "[95 %]", "USD", "[95 %]", "agents in order, by fold"):
        told.add_column(name)
    for line in result.lines:
        told.add_row(
            line.name,
            f"{line.resolved:.3f}",
            f"{line.resolved_low:.3f}–{line.resolved_high:.3f}",
            f"{line.cost_usd:.3f}",
            f"{line.cost_low:.3f}–{line.cost_high:.3f}",
            "\n".join(" → ".join(chain) for chain in line.chains),
        )
    return told


def main() -> None:
    """Run, print, and write JSON if asked."""
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
    console.print(table_of(result))
    word = "reached" if result.reached else "missed"
    console.print(f"{result.target:.2f} at ${result.budget_usd:.2f} with 90/70: {word}")
    if options.json:
        options.json.write_text(json.dumps(msgspec.to_builtins(result), indent=1) + "\n")


if __name__ == "__main__":
    main()
