"""Writes the reference page of the routing bench from its JSON. `python -m bench.routing.page`."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench/results/routing.json"
PAGE = ROOT / "docs/reference/routing-benchmark.md"
HEAD = """# The routing benchmark

What `make bench-routing` measured ([what is reached and what is not](../explanation/routing-results.md)). Policies are
cross-fitted in {folds} folds; the price of money is set on the other folds. Intervals are 95 % bootstraps over questions.

- **gap**: share of the area between the hull of single models and the oracle that is recovered; *swept*: with the best
  price of money in hindsight, as published figures are made.
- **c100**: cost at which the best single model's quality is reached, as a share of its cost; – never.
- **peak**: points of quality above the best single model. **q25**: quality at a quarter of its cost, against it.
- **harm**: points below the hull at the worst price of money, swept.
- **ECE**: expected calibration error per arm, and what chance alone would show.
- **online**: share of the way from random to fully informed when only the chosen model's outcome is seen, over the
  whole stream and over the first 500 requests (two seeds: wide).

`hierarchical_no_text` leaves the embedding out, `told task` is told the true task, `oracle` the answers.
"""


def main() -> None:
    """Write the page."""
    told = json.loads(RESULTS.read_text())
    parts = [HEAD.format(folds=told["settings"]["folds"]), _means(told["multi_task_mean"])]
    parts += [_source(name, source) for name, source in told["sources"].items()]
    PAGE.write_text("\n".join(parts))


def _means(means: dict[str, dict[str, float]]) -> str:
    rows = [
        [name, f"{one['gap']:.3f}", f"{one['gap_swept']:.3f}", f"{one['least_gap']:.3f}"]
        for name, one in means.items()
    ]
    return "## Mean of the six multi-task sources\n\n" + _table(["policy", "gap", "swept", "least"], rows)


def _source(name: str, source: dict[str, Any]) -> str:
    about = (
        f"{source['questions']:,} questions, {source['arms']} arms, {source['tasks']} tasks. Best single: "
        f"{source['best_single']}, quality {source['best_single_quality']:.3f}; oracle "
        f"{source['oracle_quality']:.3f}."
    )
    rows = [[policy, *_cells(one)] for policy, one in source["policies"].items()]
    head = ["policy", "gap", "95 %", "swept", "c100", "peak", "q25", "harm", "ECE", "chance", "online", "first 500"]
    return f"## {name}\n\n{about}\n\n{_table(head, rows)}"


def _cells(one: dict[str, Any]) -> list[str]:
    low, high = one["gap"]["interval"]
    return [
        _number(one["gap"]),
        f"{low:.2f} to {high:.2f}" if low is not None else "–",
        _number(one["swept"]["gap"]),
        _number(one["c100"], 2),
        _number(one["peak_gain"], 2),
        _number(one["quality_at_25pct_cost"]),
        _number(one["swept"]["harm"], 2),
        _number(one["ece"]),
        "–" if one.get("ece_floor") is None else f"{one['ece_floor']:.3f}",
        _number(one["online_headroom"], 2),
        _number(one["first_500_headroom"], 2),
    ]


def _number(figure: dict[str, Any] | None, digits: int = 3) -> str:
    value = None if figure is None else figure["value"]
    return "–" if value is None else f"{value:.{digits}f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
