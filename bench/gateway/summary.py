"""Medians over rounds, and ratios taken inside each round: same minutes, same noise."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from bench.gateway.run import Record
from bench.gateway.targets import Target

PEERS = ("envoy", "litellm", "portkey", "smg", "ferrogw")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number over the rounds: its median and how far it spread."""

    median: float
    low: float
    high: float
    rounds: int


Figures = dict[str, Figure]


def summarise(targets: list[Target], records: list[Record]) -> dict[str, Figures]:
    """Every figure of every target that has one, by target and by the figure's name.

    Names are `phase.metric` as in `sat.rps`; `phase.cpu_x_nginx` and `phase.rps_x_PEER` are ratios,
    `phase.added_p50_ms` is the latency above the upstream's own. Units are in the names.
    """
    rounds = {(record.target, record.round): record for record in records}
    return {target.name: _figures(target, records, rounds) for target in targets}


def _figures(target: Target, records: list[Record], rounds: dict[tuple[str, int], Record]) -> Figures:
    found: dict[str, list[float]] = {}
    for record in records:
        if record.target != target.name:
            continue
        suffix = "+tls" if target.tls else ""
        others = {name: rounds.get((name + suffix, record.round)) for name in ("nginx", *PEERS)}
        direct = rounds.get(("direct", record.round))
        named = [("cold_seconds", record.cold_seconds or None), ("resident_mb", record.resident_mb or None)]
        for phase in record.windows:
            named += [(f"{phase}.{name}", value) for name, value in _own(record, phase)]
            named += [(f"{phase}.{name}", value) for name, value in _compared(record, phase, direct, others)]
        for name, value in named:
            if value is not None:
                found.setdefault(name, []).append(value)
    return {name: _figure(values) for name, values in sorted(found.items())}


def _own(record: Record, phase: str) -> Iterator[tuple[str, float | None]]:
    """What a window says by itself."""
    for metric in ("rps", "cpu_us", "cpu_us_event", "errors", "foreign_cores", "load_core", "loop_block_ms"):
        yield metric, _value(record, phase, metric)
    if _value(record, phase, "events_seen"):
        yield "events_per_s", _value(record, phase, "events_per_s")
    for metric in ("p50", "p99", "ttfb_p50", "lag_p99"):
        value = _value(record, phase, metric)
        yield f"{metric}_ms", None if value is None else value / 1e3


def _compared(
    record: Record, phase: str, direct: Record | None, others: dict[str, Record | None]
) -> Iterator[tuple[str, float | None]]:
    """What a window says beside others of the same round."""
    for metric in ("p50", "p99", "ttfb_p50"):
        yield f"added_{metric}_ms", _difference(record, direct, phase, metric)
    for metric in ("rps", "cpu_us", "cpu_us_event"):
        yield f"{metric}_x_nginx", _ratio(record, others["nginx"], phase, metric)
    for peer in PEERS:
        yield f"rps_x_{peer}", _ratio(record, others[peer], phase, "rps")


def _figure(values: list[float]) -> Figure:
    return Figure(_rounded(statistics.median(values)), _rounded(min(values)), _rounded(max(values)), len(values))


def _rounded(value: float) -> float:
    """Four significant digits: more would claim a precision that is not there."""
    return float(f"{value:.4g}")


def _value(record: Record | None, phase: str, metric: str) -> float | None:
    """A window's metric; None for what was not measured (the load generator says -1)."""
    if record is None or phase not in record.windows:
        return None
    value = record.windows[phase].get(metric)
    return None if value is None or value < 0 else value


def _ratio(record: Record, other: Record | None, phase: str, metric: str) -> float | None:
    mine, theirs = _value(record, phase, metric), _value(other, phase, metric)
    return mine / theirs if mine is not None and theirs else None


def _difference(record: Record, other: Record | None, phase: str, metric: str) -> float | None:
    mine, theirs = _value(record, phase, metric), _value(other, phase, metric)
    return (mine - theirs) / 1e3 if mine is not None and theirs is not None else None
