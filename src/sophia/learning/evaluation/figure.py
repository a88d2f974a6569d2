"""Figure of a policy comparison: cost by day, and scores with their intervals."""

from pathlib import Path
from typing import Any

from sophia.learning.evaluation.compare import ACTUAL_POLICY, CounterfactualReport
from sophia.learning.evaluation.off_policy import OffPolicyEstimate

_DOTS_PER_INCH = 120


def write_figure(report: CounterfactualReport, path: Path) -> None:
    """Write the figure as PNG or SVG, by the suffix; equal reports give equal bytes.

    Raises:
        ModuleNotFoundError: matplotlib, of the extra `figures`, is missing.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _plot_costs(left, report)
    _plot_scores(right, report)
    # Without these, matplotlib adds the date, its own name and random ids.
    metadata = {"Software": None} if path.suffix == ".png" else {"Date": None}
    with mpl.rc_context({"svg.hashsalt": "sophia", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=_DOTS_PER_INCH, metadata=metadata)


def _plot_costs(axes: Any, report: CounterfactualReport) -> None:
    for result in report.policies:
        style = {"color": "0.2", "linestyle": "--"} if result.policy == ACTUAL_POLICY else {}
        names = [day.name[5:] for day in result.days]
        costs = [day.cost_usd for day in result.days]
        axes.plot(names, costs, marker="o", markersize=4, label=result.policy, **style)
    axes.set(title="expected cost by day", ylabel="US dollars")
    axes.set_ylim(bottom=0.0)
    axes.tick_params(axis="x", rotation=45)
    axes.grid(visible=True, alpha=0.25)
    axes.legend(fontsize=8)


def _plot_scores(axes: Any, report: CounterfactualReport) -> None:
    names = [result.policy for result in report.policies]
    for row, result in enumerate(report.policies):
        estimate, label = result.overall.estimate, f"${result.overall.cost_usd:,.2f}"
        if isinstance(estimate, OffPolicyEstimate):
            dr = estimate.dr
            interval = [[dr.value - dr.low], [dr.high - dr.value]]
            axes.errorbar([dr.value], [row], xerr=interval, fmt="o", color="0.2", capsize=3)
            position = (dr.value, row)
        else:
            position, label = (report.mean_score or 0.5, row), f"refused; {label}"
        axes.annotate(label, position, (0, 7), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set(title="score (95 %) and expected cost", xlabel="mean score")
    axes.grid(visible=True, axis="x", alpha=0.25)
