"""Medians over rounds, and ratios taken inside each round: same minutes, same noise."""

import statistics
from collections.abc import Callable
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
Reader = Callable[[Record], float | None]


def summarise(targets: list[Target], records: list[Record]) -> dict[str, Figures]:
    """Every figure of every target that has one, by target and by the figure's name.

    Names are `phase.metric` as in `sat.rps`; `phase.cpu_x_nginx` and `phase.rps_x_PEER` are ratios,
    `phase.added_p50_ms` is the latency above the upstream's own. Units are in the names.
    """
    rounds = {(record.target, record.round): record for record in records}
    return {target.name: _figures(target, records, rounds) for target in targets}


def _figures(target: Target, records: list[Record], rounds: dict[tuple[str, int], Record]) -> Figures:
    own = [record for record in records if record.target == target.name]
    found: dict[str, list[float]] = {}

    def add(name: str, value: float | None) -> None:
        if value is not None:
            found.setdefault(name, []).append(value)

    for record in own:
        if record.cold_seconds:
            add("cold_seconds", record.cold_seconds)
        if record.resident_mb:
            add("resident_mb", record.resident_mb)
        direct = rounds.get(("direct", record.round))
        base = rounds.get((target.base, record.round))
        for phase, window in record.windows.items():
            for metric in ("rps", "cpu_us", "cpu_us_event", "events_per_s", "errors", "foreign_cores", "load_core"):
                if not (metric == "events_per_s" and not window.get("events_seen")):
                    add(f"{phase}.{metric}", window.get(metric))
            for metric in ("p50", "p99", "ttfb_p50", "lag_p99"):
                if _value(record, phase, metric) is not None:
                    add(f"{phase}.{metric}_ms", window[metric] / 1e3)
            add(f"{phase}.added_p50_ms", _difference(record, direct, phase, "p50"))
            add(f"{phase}.added_p99_ms", _difference(record, direct, phase, "p99"))
            add(f"{phase}.added_ttfb_p50_ms", _difference(record, direct, phase, "ttfb_p50"))
            for metric in ("rps", "cpu_us", "cpu_us_event"):
                add(f"{phase}.{metric}_x_nginx", _ratio(record, base, phase, metric))
            for peer in PEERS:
                suffix = "+tls" if target.tls else ""
                add(f"{phase}.rps_x_{peer}", _ratio(record, rounds.get((peer + suffix, record.round)), phase, "rps"))
    return {name: _figure(values) for name, values in sorted(found.items())}


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
