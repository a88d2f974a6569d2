"""Medians over rounds, and ratios within a round, which share its noise."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from bench.gateway.run import Record
from bench.gateway.targets import Target

PEERS = ("envoy", "litellm", "portkey", "smg", "ferrogw")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number over the rounds: median and range."""

    median: float
    low: float
    high: float
    rounds: int


Figures = dict[str, Figure]


def summarise(targets: list[Target], records: list[Record]) -> dict[str, Figures]:
    """Return the figures of each target, by target and by name.

    Names are `phase.metric` as in `sat.rps`; `phase.cpu_x_nginx` and `phase.rps_x_PEER` are ratios,
    `phase.added_p50_ms` is the latency above the upstream's, `phase.cpu_us_x_one` a ratio to one
    process of Sophia, and `phase.round_trips` are questions to the store per request. Units are in the names.
    """
    rounds = {(record.target, record.round): record for record in records}
    return {target.name: _figures(target, records, rounds) for target in targets}


def _figures(
    target: Target, records: list[Record], rounds: dict[tuple[str, int], Record]
) -> Figures:
    found: dict[str, list[float]] = {}
    for record in records:
        if record.target != target.name:
            continue
        suffix = "+tls" if target.tls else ""
        others = {
            name: rounds.get((name + suffix, record.round)) for name in ("nginx", "sophia", *PEERS)
        }
        direct = rounds.get(("direct", record.round))
        named = [
            ("cold_seconds", record.cold_seconds or None),
            ("resident_mb", record.resident_mb or None),
        ]
        for phase in record.windows:
            named += [(f"{phase}.{name}", value) for name, value in _window_figures(record, phase)]
            named += [
                (f"{phase}.{name}", value)
                for name, value in _relative_figures(record, phase, direct, others)
            ]
        for name, value in named:
            if value is not None:
                found.setdefault(name, []).append(value)
    return {name: _figure(values) for name, values in sorted(found.items())}


def _window_figures(record: Record, phase: str) -> Iterator[tuple[str, float | None]]:
    """Yield the figures of a window by itself."""
    for metric in (
        "rps",
        "cpu_us",
        "cpu_us_event",
        "errors",
        "foreign_cores",
        "load_core",
        "loop_block_ms",
        "round_trips",
    ):
        yield metric, _value(record, phase, metric)
    if _value(record, phase, "events_seen"):
        yield "events_per_s", _value(record, phase, "events_per_s")
    for metric in ("p50", "p99", "ttfb_p50", "lag_p99"):
        value = _value(record, phase, metric)
        yield f"{metric}_ms", None if value is None else value / 1e3


def _relative_figures(
    record: Record, phase: str, direct: Record | None, others: dict[str, Record | None]
) -> Iterator[tuple[str, float | None]]:
    """Yield the figures of a window relative to others of the same round."""
    for metric in ("p50", "p99", "ttfb_p50"):
        yield f"added_{metric}_ms", _difference(record, direct, phase, metric)
    for metric in ("rps", "cpu_us", "cpu_us_event"):
        yield f"{metric}_x_nginx", _ratio(record, others["nginx"], phase, metric)
        yield f"{metric}_x_one", _ratio(record, others["sophia"], phase, metric)
    yield "p99_over_nginx_ms", _difference(record, others["nginx"], phase, "p99")
    for peer in PEERS:
        yield f"rps_x_{peer}", _ratio(record, others[peer], phase, "rps")


def _figure(values: list[float]) -> Figure:
    return Figure(
        _rounded(statistics.median(values)),
        _rounded(min(values)),
        _rounded(max(values)),
        len(values),
    )


def _rounded(value: float) -> float:
    """Round to four significant digits, the precision of the measurement."""
    return float(f"{value:.4g}")


def _value(record: Record | None, phase: str, metric: str) -> float | None:
    """Return a window's metric; None if it was not measured (the load generator reports -1)."""
    if record is None or phase not in record.windows:
        return None
    value = record.windows[phase].get(metric)
    return None if value is None or value < 0 else value


def _ratio(record: Record, other: Record | None, phase: str, metric: str) -> float | None:
    value, reference = _value(record, phase, metric), _value(other, phase, metric)
    return value / reference if value is not None and reference else None


def _difference(record: Record, other: Record | None, phase: str, metric: str) -> float | None:
    value, reference = _value(record, phase, metric), _value(other, phase, metric)
    return (value - reference) / 1e3 if value is not None and reference is not None else None
