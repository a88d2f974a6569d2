"""Figures of quality against cost: policies, hull of single arms, oracle and true task."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lab.evaluation.curves import CostQualityCurve
from lab.evaluation.measures import EvaluationBaseline

LINES = {"oracle": ":", "true task": "--"}


def draw(
    folder: Path,
    name: str,
    baseline: EvaluationBaseline,
    curves: dict[str, CostQualityCurve],
    arms: Sequence[str],
) -> list[Path]:
    """Write `<name>.png` and `<name>.svg`, and return their paths."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "sophia"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    line = baseline.single_arms[0]
    quality, cost = baseline.quality.mean(axis=0), baseline.cost.mean(axis=0)
    axes.plot(line.hull.cost, line.hull.quality, color="0.6", label="hull of single arms")
    axes.scatter(cost, quality, color="0.6", s=12)
    axes.annotate(arms[line.best], (line.cost, line.quality), fontsize=7, color="0.3")
    for label, curve in curves.items():
        axes.plot(curve.cost, curve.quality, LINES.get(label, "-"), label=label, linewidth=1.3)
    top = max(float(curve.quality.max()) for curve in curves.values())
    spread = top - float(np.quantile(quality, 0.3))
    axes.set(
        title=f"{name}: quality against cost",
        xlabel="mean cost of a request, US dollars",
        ylabel="mean quality",
        xscale="log",
        ylim=(top - 1.3 * spread, top + 0.05 * spread),
    )
    axes.legend(fontsize=7)
    axes.grid(visible=True, alpha=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    figure.savefig(paths[0], dpi=120, metadata={"Software": None})
    figure.savefig(paths[1], metadata={"Date": None})
    pyplot.close(figure)
    return paths
