"""What would have been as a picture: cost by day, and scores with their intervals."""

from pathlib import Path
from typing import Any

from sophia.learning.figures import save
from sophia.learning.off_policy import Assessment
from sophia.learning.schema import NotInstalled
from sophia.learning.what_if import AS_IT_WAS, WhatIf


def draw(found: WhatIf, path: Path) -> None:
    """Write the picture as PNG or SVG, by the name's end; the same report gives the same bytes.

    Raises:
        NotInstalled: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NotInstalled(str(error), name="matplotlib") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _costs(left, found)
    _scores(right, found)
    save(figure, path, {"Software": None} if path.suffix == ".png" else {"Date": None})


def _costs(axes: Any, found: WhatIf) -> None:
    for one in found.policies:
        style = {"color": "0.2", "linestyle": "--"} if one.policy == AS_IT_WAS else {}
        names = [part.name[5:] for part in one.days]
        costs = [part.cost_usd for part in one.days]
        axes.plot(names, costs, marker="o", markersize=4, label=one.policy, **style)
    axes.set(title="expected cost by day", ylabel="US dollars")
    axes.set_ylim(bottom=0.0)
    axes.tick_params(axis="x", rotation=45)
    axes.grid(visible=True, alpha=0.25)
    axes.legend(fontsize=8)


def _scores(axes: Any, found: WhatIf) -> None:
    names = [one.policy for one in found.policies]
    for place, one in enumerate(found.policies):
        verdict, cost = one.whole.verdict, one.whole.cost_usd
        if isinstance(verdict, Assessment):
            dr = verdict.dr
            reach = [[dr.value - dr.low], [dr.high - dr.value]]
            axes.errorbar([dr.value], [place], xerr=reach, fmt="o", color="0.2", capsize=3)
            where = (dr.value, place)
        else:
            where = (found.mean_score or 0.5, place)
        told = f"${cost:,.2f}" if isinstance(verdict, Assessment) else f"refused; ${cost:,.2f}"
        axes.annotate(told, where, (0, 7), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set(title="score (95 %) and expected cost", xlabel="mean score")
    axes.grid(visible=True, axis="x", alpha=0.25)
