"""Bar chart of CPU time per request, on a logarithmic scale."""

import html
import math

from rich.console import Console
from rich.text import Text

from bench.gateway.report import Result, format_number
from bench.gateway.targets import Target

FIGURE = "sat.cpu_us"
COLOURS = {"limit": "#7a8594", "ours": "#5b5bd6", "peer": "#c98a2b"}
STYLES = {"limit": "bright_black", "ours": "bold blue", "peer": "yellow"}
LABEL_WIDTH, BAR_WIDTH, VALUE_WIDTH, ROW_HEIGHT, MARGIN = 200, 400, 180, 26, 14
TERMINAL_BAR = 44


def sort_by_cpu_time(result: Result) -> list[tuple[Target, float]]:
    """Return targets with their CPU time per request in microseconds, lowest first."""
    found = [
        (target, result.summary[target.name][FIGURE].median)
        for target in result.targets
        if not target.tls and FIGURE in result.summary.get(target.name, {})
    ]
    return sorted(found, key=lambda bar: bar[1])


def bar_length(value: float, low: float, high: float) -> float:
    """Return the length of a bar, 0 to 1, between half of the lowest value and the highest."""
    start = math.log10(low / 2)
    return (math.log10(value) - start) / max(math.log10(high) - start, 1e-9)


def render_svg(result: Result) -> str:
    """Return the chart as SVG for light and dark pages, without fonts or scripts."""
    found = sort_by_cpu_time(result)
    height = MARGIN * 2 + 30 + ROW_HEIGHT * len(found)
    width = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH
    values = [value for _, value in found] or [1.0]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="13">',
        "<title>CPU time per request on one core, microseconds, logarithmic scale</title>",
        "<style>text{fill:#39414d}@media(prefers-color-scheme:dark){text{fill:#d5dae2}}</style>",
        f'<text x="{MARGIN}" y="{MARGIN + 10}" font-weight="600">CPU time per request on one core '
        "(µs, logarithmic; shorter is better)</text>",
    ]
    for row, (target, value) in enumerate(found):
        top = MARGIN + 30 + row * ROW_HEIGHT
        length = bar_length(value, min(values), max(values)) * BAR_WIDTH
        weight = ' font-weight="600"' if target.kind == "ours" else ""
        parts.append(
            f'<text x="{MARGIN}" y="{top + 14}"{weight}>{html.escape(target.title)}</text>'
        )
        parts.append(
            f'<rect x="{LABEL_WIDTH}" y="{top}" width="{length:.1f}" height="18" rx="3" fill="{COLOURS[target.kind]}"/>'
        )
        label = _label(result, target, value)
        parts.append(
            f'<text x="{LABEL_WIDTH + length + 6:.1f}" y="{top + 14}"{weight}>{label}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def print_chart(result: Result, console: Console) -> None:
    """Print the chart in the terminal."""
    found = sort_by_cpu_time(result)
    if not found:
        return
    values = [value for _, value in found]
    console.print("\nCPU time per request on one core (µs, logarithmic; shorter is better)")
    for target, value in found:
        length = max(1, round(bar_length(value, min(values), max(values)) * TERMINAL_BAR))
        line = Text(f"{target.title:<26} ")
        line.append("█" * length, style=STYLES[target.kind])
        line.append(f" {_label(result, target, value)}")
        console.print(line)


def _label(result: Result, target: Target, value: float) -> str:
    ratio = result.summary[target.name].get(f"{FIGURE}_x_nginx")
    return f"{format_number(value)} µs" + (
        f" · {format_number(ratio.median)} × nginx" if ratio else ""
    )
