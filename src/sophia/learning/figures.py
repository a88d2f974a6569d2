"""The curves and the calibration of a report as pictures, PNG and SVG; needs matplotlib."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sophia.learning.report import Judged, Line, TableReport, window

_GREY = "0.6"
_DOTS_PER_INCH = 120
_COLUMNS = 4


def draw(report: TableReport, folder: Path) -> list[Path]:
    """Write the pictures of a report into `folder`, which is made; return their paths.

    `<table>-curve` is quality against cost, where costs are recorded; `<table>-calibration` what
    was expected against what came. The same report always gives the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in _figures(report):
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            path = folder / f"{report.table}-{name}.{suffix}"
            save(figure, path, metadata)
            written.append(path)
    return written


def _figures(report: TableReport) -> Iterator[tuple[str, Any]]:
    if report.hull is not None:
        yield "curve", _curve(report)
    yield "calibration", _calibration(report)


def save(figure: Any, path: Path, metadata: dict[str, None]) -> None:
    """Write a figure so that the same one always gives the same bytes."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "sophia", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=_DOTS_PER_INCH, metadata=metadata)


def _curve(report: TableReport) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    costs = [one.cost_usd or 0.0 for one in report.singles]
    axes.scatter(costs, [one.quality for one in report.singles], color=_GREY, s=14, zorder=1)
    _plot(axes, report.hull, label="single models, mixed by a coin", color=_GREY)
    _plot(axes, report.oracle, label="oracle: the best model of each", color="0.2", linestyle=":")
    _plot(axes, report.told_task.curve, label="told the task", color="0.2", linestyle="--")
    for judged in report.policies:
        _plot(axes, judged.curve, label=judged.policy, linewidth=1.6, zorder=3)
    best = report.singles[0]
    place = best.cost_usd or 0.0, best.quality
    axes.annotate(
        best.arm, place, (4, 6), textcoords="offset points", fontsize=8, ha="right", va="bottom"
    )
    axes.set(
        title=f"{report.table}: {report.questions:,} questions, {len(report.singles)} models",
        xlabel="mean cost of a question, US dollars",
        ylabel="mean quality",
    )
    _frame(axes, report)
    axes.grid(visible=True, alpha=0.25)
    axes.legend(fontsize=8, loc="lower right")
    return figure


def _frame(axes: Any, report: TableReport) -> None:
    shown = window(report)
    if shown is None:
        return
    (left, right), (bottom, top) = shown
    room = 0.04 * (top - bottom)
    axes.set_ylim(bottom - room, top + room)
    if left > 0.0:
        from matplotlib.ticker import LogLocator, NullLocator

        axes.set_xscale("log")
        margin = (right / left) ** 0.03
        axes.set_xlim(left / margin, right * margin)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda cost, place: rf"\${cost:.3g}")


def _plot(axes: Any, line: Line | None, **style: Any) -> None:
    if line is not None:
        drawn = line.dense()
        axes.plot(drawn.cost, drawn.quality, **{"linewidth": 1.2, "zorder": 2, **style})


def _calibration(report: TableReport) -> Any:
    from matplotlib.figure import Figure

    shown = [report.told_task, *report.policies]
    columns = min(len(shown), _COLUMNS)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.7 * columns, 2.9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, judged in zip(grid.flat, shown, strict=False):
        _reliability(axes, judged)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_axis_off()
    figure.supxlabel("expected score", fontsize=9)
    figure.supylabel("observed score", fontsize=9)
    figure.suptitle(f"{report.table}: what was expected, and what came", fontsize=10)
    return figure


def _reliability(axes: Any, judged: Judged) -> None:
    bins = judged.reliability
    most = max(one.answers for one in bins)
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1)
    axes.errorbar(
        [one.expected for one in bins],
        [one.observed for one in bins],
        yerr=[one.error for one in bins],
        fmt="none",
        color="tab:blue",
        linewidth=1,
    )
    # A dot's area is its share of the answers: empty corners weigh little.
    axes.scatter(
        [one.expected for one in bins],
        [one.observed for one in bins],
        s=[8 + 72 * one.answers / most for one in bins],
        color="tab:blue",
        zorder=3,
    )
    # So far off would exact chances look too, on as many questions.
    error, floor = judged.ece.value or 0.0, judged.ece_floor.value or 0.0
    axes.set_title(f"{judged.policy}\nECE {error:.3f}, by chance {floor:.3f}", fontsize=9)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.grid(visible=True, alpha=0.25)
