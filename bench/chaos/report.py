"""Render a run for the terminal, as a page and as a picture."""

import html
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.chaos.client import OUTCOMES
from bench.chaos.faults import AFTER_CONTENT, BEFORE_CONTENT
from bench.chaos.gateways import DESCRIPTIONS
from bench.gateway.report import NOTHING, format_markdown_table, format_number

JsonObject = dict[str, Any]
NOTES = {
    "faults": "One attempt in ten at the primary model meets a fault before any content, a retry as often as the "
    "first attempt. Half of the requests are streams.",
    "cuts": "The first attempt of every stream breaks off at a random byte between its first content and its finish "
    "reason, framed as chunks, by length or by the end of the connection. A further attempt is answered in full; "
    "one that brings the text so far as an assistant's message is continued from there.",
    "outage": "Every attempt at the primary model gets 503 or a reset.",
    "kinds": "The first attempt of each request met the fault.",
    "attempts": "Attempts that reached the upstream; a refused connection is not among them. Failover is the time from "
    "the end of a fault to the next attempt, by the upstream's clock, without silence. Each gateway gets a rate that "
    "it carries.",
    "soak": "Process figures are of the first phase, money is of all phases. The amount still reserved belongs to "
    "attempts of which the upstream reports no cost.",
}
TITLES = {
    "faults": "Faults before content",
    "cuts": "Cut streams",
    "outage": "Outage of the primary model",
    "kinds": "Outcomes by fault",
    "attempts": "Attempts and time",
    "soak": "Sophia during the run",
}
COLOURS = dict(zip(OUTCOMES, ("#4a9d6f", "#c98a2b", "#b3261e", "#d9705f", "#7a8594"), strict=True))
LABEL_WIDTH, BAR_WIDTH, VALUE_WIDTH, ROW_HEIGHT, MARGIN = 290, 380, 110, 26, 14


def count_failed(phase: JsonObject) -> int:
    """Return the requests without a fault that failed all the same."""
    outcomes = phase["outcomes_without_fault"]
    return int(sum(outcomes.values()) - outcomes.get("complete", 0))


def build_tables(result: JsonObject) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield the key of each table, and its rows with the titles first."""
    gateways: list[JsonObject] = list(result["gateways"].values())
    for phase in ("faults", "outage", "cuts"):
        extra = ["complete by continuation"] if phase == "cuts" and _continues(result) else []
        rows = [
            ["gateway", "requests", "with a fault", *OUTCOMES, *extra, "failed without a fault"]
        ]
        for gateway in gateways:
            found = gateway["phases"][phase]
            counts = [found["outcomes"].get(name, 0) for name in OUTCOMES]
            counts += [found["continued"].get("complete", 0) for _ in extra]
            numbers = (found["requests"], found["with_fault"], *counts, count_failed(found))
            rows.append([gateway["title"], *(f"{number:,}" for number in numbers)])
        yield phase, rows
    rows = [["fault", *(gateway["title"] for gateway in gateways)]]
    for phase, kinds in (("faults", BEFORE_CONTENT), ("cuts", AFTER_CONTENT)):
        for kind, title in kinds.items():
            found = [each["phases"][phase]["outcomes_by_fault"].get(kind, {}) for each in gateways]
            rows.append([title, *map(_format_outcomes, found)])
    yield "kinds", rows
    yield "attempts", [_attempt_titles(), *map(_attempt_row, gateways)]
    if soak := next((gateway for gateway in gateways if "soak" in gateway), None):
        yield "soak", [["figure", "value"], *_soak_rows(soak["soak"], soak["nano_dollars"])]


def _continues(result: JsonObject) -> bool:
    return bool(result["settings"].get("on_cut") == "continue")


def _format_outcomes(counts: dict[str, int]) -> str:
    found = [f"{counts[name]:,} {name}" for name in OUTCOMES if name in counts]
    return ", ".join(found) or NOTHING


def _attempt_titles() -> list[str]:
    times = ["without a fault: p50 / p99 ms", "failover: p50 / p99 ms"]
    return [
        "gateway",
        "requests/s",
        *times,
        "attempts: mean / max",
        "outage, after 5 s: mean / max",
    ]


def _attempt_row(gateway: JsonObject) -> list[str]:
    faults, outage = gateway["phases"]["faults"], gateway["phases"]["outage"]
    pairs = (
        (faults["healthy_ms"], "p50", "p99"),
        (faults["failover_ms"], "p50", "p99"),
        (faults["attempts"], "mean", "max"),
        (outage["late_attempts"], "mean", "max"),
    )
    cells = [
        " / ".join(format_number(one[name]) for name in names) if one else NOTHING
        for one, *names in pairs
    ]
    return [gateway["title"], format_number(faults["rate"]), *cells]


def _soak_rows(soak: JsonObject, books: dict[str, int]) -> list[list[str]]:
    memory, descriptors, block = soak["resident_mb"], soak["descriptors"], soak["block_ms"]
    return [
        ["seconds", format_number(soak["seconds"])],
        ["memory at the start / at the end, MB", f"{memory['first']} / {memory['last']}"],
        ["slope of memory in the second half, MB/h", format_number(soak["resident_mb_per_hour"])],
        ["file descriptors: min / max", f"{descriptors['min']} / {descriptors['max']}"],
        [
            "slope of file descriptors in the second half, 1/h",
            format_number(soak["descriptors_per_hour"]),
        ],
        [
            "longest event-loop block of a second: p50 / p99 / max ms",
            " / ".join(map(format_number, block.values())),
        ],
        ["the upstream's bill, US dollars", f"{books['bill'] / 1e9:.9f}"],
        ["the ledger, US dollars", f"{books['ledger'] / 1e9:.9f}"],
        ["still reserved, US dollars", f"{books['held'] / 1e9:.9f}"],
    ]


def render_page(result: JsonObject, picture: str) -> str:
    """Return the page of the reference."""
    machine, settings = result["machine"], result["settings"]
    versions = ", ".join(
        f"{name} {version}" for name, version in sorted(result["versions"].items())
    )
    parts = [
        "# Faults of upstreams",
        f"Made {result['made']} by `{result['command']}`. {machine['processor']}, {machine['cores']} cores for client, "
        f"upstream and gateway, {machine['distribution']}, Python {machine['python']}; load by other work before the "
        f"run {settings['load']}. {versions}.",
        "The same scripted faults, played to each gateway on loopback. A second model is healthy, and each gateway is "
        "configured to fall back on it. `bench/README.md` describes the method.",
        f"![Outcomes of requests with a fault]({picture})",
        "\n".join(f"- {name}: {meaning}" for name, meaning in OUTCOMES.items()),
    ]
    for key, table in build_tables(result):
        parts += [f"## {TITLES[key]}", NOTES[key], format_markdown_table(table)]
    configured = [
        f"- {each['title']}: {DESCRIPTIONS[name]}." for name, each in result["gateways"].items()
    ]
    if _continues(result):
        configured.append("- Sophia also has `routing.on_cut: continue`.")
    parts += ["## Configuration", "\n".join(configured)]
    if result["missing"]:
        missing = [f"- {name}: {why}" for name, why in result["missing"].items()]
        parts += ["## Not measured", "\n".join(missing)]
    return "\n\n".join(parts) + "\n"


def render_svg(result: JsonObject) -> str:
    """Return stacked bars of outcomes as SVG for light and dark pages, without fonts or scripts."""
    rows = [(phase, each) for phase in ("faults", "cuts") for each in result["gateways"].values()]
    width, height = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH, MARGIN * 2 + 52 + ROW_HEIGHT * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="13">',
        "<title>Outcomes of requests with a fault</title>",
        "<style>text{fill:#39414d}@media(prefers-color-scheme:dark){text{fill:#d5dae2}}</style>",
        f'<text x="{MARGIN}" y="{MARGIN + 10}" font-weight="600">Outcomes of requests with a fault</text>',
    ]
    for place, (name, colour) in enumerate(COLOURS.items()):
        at = MARGIN + place * 110
        parts += [
            f'<rect x="{at}" y="{MARGIN + 22}" width="12" height="12" rx="2" fill="{colour}"/>',
            f'<text x="{at + 18}" y="{MARGIN + 33}">{name}</text>',
        ]
    for row, (phase, gateway) in enumerate(rows):
        top, left, found = (
            MARGIN + 52 + row * ROW_HEIGHT,
            float(LABEL_WIDTH),
            gateway["phases"][phase],
        )
        label = html.escape(f"{gateway['title']}: {TITLES[phase].lower()}")
        parts.append(f'<text x="{MARGIN}" y="{top + 14}">{label}</text>')
        for name, colour in COLOURS.items():
            length = found["outcomes"].get(name, 0) / max(1, found["with_fault"]) * BAR_WIDTH
            parts.append(
                f'<rect x="{left:.1f}" y="{top}" width="{length:.1f}" height="18" fill="{colour}"/>'
            )
            left += length
        parts.append(f'<text x="{left + 6:.1f}" y="{top + 14}">of {found["with_fault"]:,}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def print_report(result: JsonObject, console: Console) -> None:
    """Print the tables in the terminal."""
    for key, (head, *body) in build_tables(result):
        shown = Table(head[0], title=TITLES[key], title_justify="left")
        for name in head[1:]:
            shown.add_column(name, justify="right")
        for row in body:
            shown.add_row(*row)
        console.print(shown)
    for name, why in result["missing"].items():
        console.print(f"[yellow]not measured[/] {name}: {why}", highlight=False)
