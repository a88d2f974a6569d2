"""Write the reference page of the routing bench from its JSON. `python -m bench.routing.page`."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench/results/routing.json"
PAGE = ROOT / "docs/reference/routing-benchmark.md"
HEAD = """# The routing benchmark

Measured by `make bench-routing`; [routing results](../explanation/routing-results.md) compares these numbers with the
goals. Policies are cross-fitted in {folds} folds; the price of money is set on the other folds. Intervals are 95 %
bootstraps over questions.

- **gap**: share of the area between the hull of single models and the oracle that is recovered; *swept*: with the best
  price of money in hindsight, as in published figures.
- **c100**: cost at which the best single model's quality is reached, as a share of its cost; – never.
- **peak**: points of quality above the best single model. **q25**: quality at a quarter of its cost, as a share of its
  quality.
- **harm**: points below the hull at the worst price of money, swept.
- **ECE**: expected calibration error per arm; *chance*: the error of exact probabilities on as many questions.
- **online**: share of the way from random to fully informed when only the chosen model's outcome is observed, over the
  whole stream and over the first 500 requests (two seeds: wide).

`hierarchical` is the policy in service, `true task` knows each question's task, `oracle` its best model.
"""


def main() -> None:
    """Write the page."""
    results = json.loads(RESULTS.read_text())
    parts = [HEAD.format(folds=results["settings"]["folds"]), _means(results["multi_task_mean"])]
    parts += [_source(name, source) for name, source in results["sources"].items()]
    PAGE.write_text("\n".join(parts))


def _means(means: dict[str, dict[str, float]]) -> str:
    rows = [
        [name, f"{mean['gap']:.3f}", f"{mean['gap_swept']:.3f}", f"{mean['least_gap']:.3f}"]
        for name, mean in means.items()
    ]
    return "## Mean of the six multi-task sources\n\n" + _table(
        ["policy", "gap", "swept", "minimum"], rows
    )


def _source(name: str, source: dict[str, Any]) -> str:
    about = (
        f"{source['questions']:,} questions, {source['arms']} arms, {source['tasks']} tasks. Best single: "
        f"{source['best_single']}, quality {source['best_single_quality']:.3f}; oracle "
        f"{source['oracle_quality']:.3f}."
    )
    rows = [[name, *_cells(policy)] for name, policy in source["policies"].items()]
    head = [
        "policy",
        "gap",
        "95 %",
        "swept",
        "c100",
        "peak",
        "q25",
        "harm",
        "ECE",
        "chance",
        "online",
        "first 500",
    ]
    return f"## {name}\n\n{about}\n\n{_table(head, rows)}"


def _cells(policy: dict[str, Any]) -> list[str]:
    low, high = policy["gap"]["interval"]
    return [
        _number(policy["gap"]),
        f"{low:.2f} to {high:.2f}" if low is not None else "–",
        _number(policy["swept"]["gap"]),
        _number(policy["c100"], 2),
        _number(policy["peak_gain"], 2),
        _number(policy["quality_at_25pct_cost"]),
        _number(policy["swept"]["harm"], 2),
        _number(policy["ece"]),
        "–" if policy.get("ece_floor") is None else f"{policy['ece_floor']:.3f}",
        _number(policy["online_headroom"], 2),
        _number(policy["first_500_headroom"], 2),
    ]


def _number(figure: dict[str, Any] | None, digits: int = 3) -> str:
    value = None if figure is None else figure["value"]
    return "–" if value is None else f"{value:.{digits}f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
