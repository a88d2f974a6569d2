"""Figures of a report, PNG and SVG: cost-quality curves and calibration."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.evaluation.report import PlotCurve, PolicyResult, TableReport, plot_window

_GREY = "0.6"
_DOTS_PER_INCH = 120
_COLUMNS = 4


def write_figures(report: TableReport, folder: Path) -> list[Path]:
    """Write the figures of a report into `folder`, creating it; return their paths.

    `<table>-curve` is quality against cost, where costs are recorded; `<table>-calibration`
    expected against observed scores. The same report always gives the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in _build_figures(report):
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            path = folder / f"{report.table}-{name}.{suffix}"
            _save(figure, path, metadata)
            written.append(path)
    return written


def _build_figures(report: TableReport) -> Iterator[tuple[str, Any]]:
    if report.hull is not None:
        yield "curve", _build_curve_figure(report)
    yield "calibration", _build_calibration_figure(report)


def _save(figure: Any, path: Path, metadata: dict[str, None]) -> None:
    """Write a figure so that the same one always gives the same bytes."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "sophia", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=_DOTS_PER_INCH, metadata=metadata)


def _build_curve_figure(report: TableReport) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    costs = [one.cost_usd or 0.0 for one in report.singles]
    axes.scatter(costs, [one.quality for one in report.singles], color=_GREY, s=14, zorder=1)
    _plot_curve(axes, report.hull, label="random mixes of single models", color=_GREY)
    _plot_curve(
        axes, report.oracle, label="oracle: the best model per question", color="0.2", linestyle=":"
    )
    _plot_curve(axes, report.true_task.curve, label="true task", color="0.2", linestyle="--")
    for result in report.policies:
        _plot_curve(axes, result.curve, label=result.policy, linewidth=1.6, zorder=3)
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
    _set_limits(axes, report)
    axes.grid(visible=True, alpha=0.25)
    axes.legend(fontsize=8, loc="lower right")
    return figure


def _set_limits(axes: Any, report: TableReport) -> None:
    shown = plot_window(report)
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


def _plot_curve(axes: Any, line: PlotCurve | None, **style: Any) -> None:
    if line is not None:
        drawn = line.resample()
        axes.plot(drawn.cost, drawn.quality, **{"linewidth": 1.2, "zorder": 2, **style})


def _build_calibration_figure(report: TableReport) -> Any:
    from matplotlib.figure import Figure

    shown = [report.true_task, *report.policies]
    columns = min(len(shown), _COLUMNS)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.7 * columns, 2.9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, result in zip(grid.flat, shown, strict=False):
        _plot_reliability(axes, result)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_axis_off()
    figure.supxlabel("expected score", fontsize=9)
    figure.supylabel("observed score", fontsize=9)
    figure.suptitle(f"{report.table}: expected and observed scores", fontsize=10)
    return figure


def _plot_reliability(axes: Any, result: PolicyResult) -> None:
    bins = result.reliability
    most = max(one.count for one in bins)
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1)
    axes.errorbar(
        [one.expected for one in bins],
        [one.observed for one in bins],
        yerr=[one.error for one in bins],
        fmt="none",
        color="tab:blue",
        linewidth=1,
    )
    # The area of a dot is its share of the answers, so that sparse bins stand out less.
    axes.scatter(
        [one.expected for one in bins],
        [one.observed for one in bins],
        s=[8 + 72 * one.count / most for one in bins],
        color="tab:blue",
        zorder=3,
    )
    # Exact probabilities would show the error `floor` on as many questions.
    error, floor = result.ece.value or 0.0, result.ece_floor.value or 0.0
    axes.set_title(f"{result.policy}\nECE {error:.3f}, by chance {floor:.3f}", fontsize=9)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.grid(visible=True, alpha=0.25)
