"""Render a summary as JSON, as Markdown and for the terminal."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.gateway.goals import GOALS
from bench.gateway.summary import Figures
from bench.gateway.targets import Target

NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Result:
    """A benchmark result with its settings, machine and versions."""

    made: str
    command: str
    settings: dict[str, object]
    machine: dict[str, str | int]
    versions: dict[str, str]
    targets: list[Target]
    summary: dict[str, Figures]
    over: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: one figure, or two separated by a slash."""

    title: str
    figures: tuple[str, ...]
    phase: str = ""


MAIN = (
    Column("requests/s", ("sat.rps",)),
    Column("CPU µs", ("sat.cpu_us",)),
    Column("CPU × nginx", ("sat.cpu_us_x_nginx",)),
    Column("rps × nginx", ("sat.rps_x_nginx",)),
    Column("rps × LiteLLM", ("sat.rps_x_litellm",)),
    Column("rps × Portkey", ("sat.rps_x_portkey",)),
)
FOOTPRINT = (
    Column("64 kB: CPU µs", ("large.cpu_us",)),
    Column("64 kB: × nginx", ("large.cpu_us_x_nginx",)),
    Column("memory MB", ("resident_mb",)),
    Column("cold start s", ("cold_seconds",)),
)
LATENCY = (
    Column("200/s: p50 / p99 ms", ("r200.added_p50_ms", "r200.added_p99_ms"), "r200"),
    Column("500/s: p50 / p99 ms", ("r500.added_p50_ms", "r500.added_p99_ms"), "r500"),
    Column("500/s: CPU µs", ("r500.cpu_us",), "r500"),
    Column("500/s: CPU × nginx", ("r500.cpu_us_x_nginx",), "r500"),
    Column("500/s: longest loop block ms", ("r500.loop_block_ms",), "r500"),
)
STORE = (
    Column("questions to the store per request", ("r500.round_trips",)),
    Column("CPU × one process", ("sat.cpu_us_x_one",)),
)
STREAMS = (
    Column("64 streams: events/s", ("sse.events_per_s",)),
    Column("CPU µs per event", ("sse.cpu_us_event",)),
    Column("× nginx", ("sse.cpu_us_event_x_nginx",)),
    Column("bursts: events/s", ("burst.events_per_s",)),
    Column("1,000/s: first byte added p50 ms", ("pace.added_ttfb_p50_ms",), "pace"),
    Column("event lag p99 ms", ("pace.lag_p99_ms",), "pace"),
)


def format_number(value: float | None) -> str:
    """Format with three significant digits and thousands separators."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def format_cell(column: Column, target: Target, result: Result) -> str:
    """Return the cell of one target; "over" if it cannot sustain the phase's rate."""
    figures = result.summary.get(target.name, {})
    values = [figures[name].median if name in figures else None for name in column.figures]
    if all(value is None for value in values):
        return "over" if column.phase in result.over.get(target.name, []) else NOTHING
    return " / ".join(format_number(value) for value in values)


def build_rows(
    columns: tuple[Column, ...], result: Result, *, tls: bool = False
) -> list[list[str]]:
    """Return a title row and a row for each target with figures, fastest first."""
    shown = [target for target in result.targets if target.tls == tls and target.kind != "direct"]
    shown.sort(key=lambda target: -_throughput(result, target))
    body = [
        [target.title, *(format_cell(column, target, result) for column in columns)]
        for target in shown
    ]
    return [
        ["gateway", *(column.title for column in columns)],
        *(row for row in body if set(row[1:]) != {NOTHING}),
    ]


def _throughput(result: Result, target: Target) -> float:
    figure = result.summary.get(target.name, {}).get("sat.rps")
    return figure.median if figure else 0.0


def build_goal_rows(result: Result) -> list[list[str]]:
    """Return a title row and a row for each goal that was measured."""
    found = [["goal", "bound", "measured", "met"]]
    for goal in GOALS:
        value = goal.find_median(result.summary)
        if value is not None:
            found.append(
                [
                    goal.title,
                    f"{goal.direction} {goal.bound:g}",
                    format_number(value),
                    "yes" if goal.is_met(value) else "no",
                ]
            )
    return found


def list_missed_goals(result: Result) -> list[str]:
    """Return the titles of the goals that were measured and missed."""
    values = ((goal, goal.find_median(result.summary)) for goal in GOALS if not goal.informational)
    return [goal.title for goal, value in values if value is not None and not goal.is_met(value)]


def format_markdown_table(table: list[list[str]]) -> str:
    """Return a Markdown table with numbers right-aligned."""
    head, *body = table
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in body)])


def render_section(result: Result, picture: str) -> str:
    """Return the section of the reference page."""
    machine, settings = result.machine, result.settings
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result.versions.items()))
    parts = [
        f"Made {result.made} by `{result.command}`: {settings['rounds']} interleaved rounds "
        f"(other gateways for language models: {settings['peer_rounds']}), windows of {settings['seconds']} s, "
        f"medians; ratios are taken inside a round. {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, {machine['distribution']}, {machine['kernel']}, Python {machine['python']}. "
        f"{versions}.",
        f"![CPU time per request]({picture})",
        "One gateway on one core; load generator and upstream on another. 1.5 kB requests, 32 connections:",
        format_markdown_table(build_rows(MAIN, result)),
    ]
    parts += _section("64 kB requests, memory after load, start to first answer", FOOTPRINT, result)
    parts += _section("Latency above the upstream's own 50 ms", LATENCY, result)
    parts += _section("Streams of 50 events", STREAMS, result)
    parts += _section(
        "Several processes, and the store: at 500 requests/s, and saturated", STORE, result
    )
    if any(target.tls for target in result.targets):
        parts += [
            "TLS to the upstream (ratios to nginx with TLS):",
            format_markdown_table(build_rows(MAIN, result, tls=True)),
        ]
    if len(build_goal_rows(result)) > 1:
        parts += ["Goals:", format_markdown_table(build_goal_rows(result))]
    if result.missing:
        parts += [
            "Not measured:",
            "\n".join(f"- {name}: {why}" for name, why in result.missing.items()),
        ]
    parts.append("“over”: the rate is more than the gateway carries on one core.")
    return "\n\n".join(parts) + "\n"


def _section(title: str, columns: tuple[Column, ...], result: Result) -> list[str]:
    table = build_rows(columns, result)
    return [f"{title}:", format_markdown_table(table)] if len(table) > 1 else []


def print_report(result: Result, console: Console) -> None:
    """The same tables in the terminal."""
    named = [
        ("Saturated, one core", build_rows(MAIN, result)),
        ("64 kB requests, memory, start", build_rows(FOOTPRINT, result)),
        ("Constant rate: latency above the upstream's own 50 ms", build_rows(LATENCY, result)),
        ("Streams", build_rows(STREAMS, result)),
        ("Processes and store", build_rows(STORE, result)),
        ("TLS to the upstream", build_rows(MAIN, result, tls=True)),
        ("Goals", build_goal_rows(result)),
    ]
    for title, table in named:
        if len(table) > 1:
            console.print(_rich_table(title, table))
    for name, why in result.missing.items():
        console.print(f"[yellow]not measured[/] {name}: {why}", highlight=False)


def _rich_table(title: str, table: list[list[str]]) -> Table:
    shown = Table(title=title, title_justify="left")
    for position, name in enumerate(table[0]):
        shown.add_column(name, justify="right" if position else "left", no_wrap=not position)
    for row in table[1:]:
        shown.add_row(*row)
    return shown


def write_json(result: Result, path: Path) -> None:
    """Write the result as JSON, one line per figure for readable diffs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {
        target: {name: asdict(figure) for name, figure in values.items()}
        for target, values in result.summary.items()
    }
    head = {
        "made": result.made,
        "command": result.command,
        "settings": result.settings,
        "machine": result.machine,
        "versions": result.versions,
        "titles": {target.name: target.title for target in result.targets},
        "over": result.over,
        "missing": result.missing,
        "goals": [
            dict(zip(("title", "bound", "measured", "met"), row, strict=True))
            for row in build_goal_rows(result)[1:]
        ],
    }
    lines = [json.dumps(head, indent=1, ensure_ascii=False)[:-2] + ',\n "figures": {']
    for place, (target, values) in enumerate(figures.items()):
        inner = ",\n".join(
            f"   {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items()
        )
        lines.append(
            f"  {json.dumps(target)}: {{\n{inner}\n  }}" + ("," if place + 1 < len(figures) else "")
        )
    path.write_text("\n".join([*lines, " }", "}"]) + "\n")
    json.loads(path.read_text())
