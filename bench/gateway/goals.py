"""Performance goals of the gateway, and their check against a result."""

from dataclasses import dataclass
from typing import Literal

from bench.gateway.summary import Figures


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on one figure of one target; missing an informational one is no failure."""

    title: str
    target: str
    figure: str
    direction: Literal["at most", "at least"]
    bound: float
    informational: bool = False

    def find_median(self, summary: dict[str, Figures]) -> float | None:
        """Return the median, or None if it was not measured."""
        figure = summary.get(self.target, {}).get(self.figure)
        return figure.median if figure else None

    def is_met(self, value: float) -> bool:
        """Return whether a value keeps the bound."""
        return value <= self.bound if self.direction == "at most" else value >= self.bound


GOALS = (
    Goal("CPU per request, named model, × nginx", "sophia", "sat.cpu_us_x_nginx", "at most", 4.5),
    Goal(
        "CPU per request, sophia/auto, × nginx", "sophia-auto", "sat.cpu_us_x_nginx", "at most", 20
    ),
    Goal("throughput, named model, × nginx", "sophia", "sat.rps_x_nginx", "at least", 0.22),
    Goal("throughput, sophia/auto, × nginx", "sophia-auto", "sat.rps_x_nginx", "at least", 0.05),
    Goal(
        "throughput × Envoy (an aim)",
        "sophia",
        "sat.rps_x_envoy",
        "at least",
        1,
        informational=True,
    ),
    Goal("throughput × LiteLLM", "sophia", "sat.rps_x_litellm", "at least", 100),
    Goal("throughput × Portkey", "sophia", "sat.rps_x_portkey", "at least", 25),
    Goal("throughput × smg (Rust)", "sophia", "sat.rps_x_smg", "at least", 1),
    Goal("throughput × ferrogw (Go)", "sophia", "sat.rps_x_ferrogw", "at least", 1),
    Goal("added p50 at 500 requests/s, ms", "sophia", "r500.added_p50_ms", "at most", 0.35),
    Goal(
        "p99 above nginx's at 500 requests/s, ms",
        "sophia",
        "r500.p99_over_nginx_ms",
        "at most",
        1.5,
    ),
    Goal(
        "longest event-loop block at 500 requests/s, ms",
        "sophia",
        "r500.loop_block_ms",
        "at most",
        10,
    ),
    Goal("CPU per 64 kB request, × nginx", "sophia", "large.cpu_us_x_nginx", "at most", 3.5),
    Goal("CPU per SSE event, µs", "sophia", "sse.cpu_us_event", "at most", 16),
    Goal("cold start to the first answer, s", "sophia", "cold_seconds", "at most", 0.9),
    Goal("resident memory after load, MB", "sophia", "resident_mb", "at most", 100),
    Goal(
        "questions to SQLite per request at 500 requests/s",
        "sophia",
        "r500.round_trips",
        "at most",
        0.05,
    ),
    Goal(
        "questions to PostgreSQL per request at 500 requests/s",
        "sophia-postgres",
        "r500.round_trips",
        "at most",
        0.05,
    ),
    *(
        Goal(
            f"CPU per request, {count} processes on one core, × one process",
            f"sophia-{count}",
            "sat.cpu_us_x_one",
            "at most",
            1.1,
        )
        for count in (2, 4)
    ),
)
