"""Prometheus metrics: counted in plain numbers, converted to metric families at each scrape.

prometheus_client's own counters take 3 to 8 µs per request instead of 0.5, and sum dollars as
floats, which drift away from the ledger. Labels are bounded by the catalogue.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from sophia.core.events import Settled
from sophia.core.money import nano_to_usd
from sophia.core.rows import AttemptOutcome

_BOUNDS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 120000, 300000)
_BUCKET_BOUNDS_S = tuple(ms / 1000 for ms in _BOUNDS_MS)
_HELP = {
    "openrouter_requests": "Requests by the model that answered and the status the caller got.",
    "openrouter_cost_dollars": "US dollars spent per model since the ledger began.",
    "sophia_cost_dollars": "US dollars spent per model since this process began.",
    "sophia_tokens": "Tokens billed, by model and direction.",
    "openrouter_response_duration_seconds": (
        "Seconds from a request's arrival to the end of its answer."
    ),
    "sophia_first_content_seconds": "Seconds from dispatch to the first content, by model.",
    "openrouter_quality_score": "Mean score (0 to 1) that feedback gave to a model's answers.",
    "sophia_attempt_failures": "Attempts that failed, by model and cause.",
    "sophia_target_success": (
        "Share of answers among the last attempts, by upstream and model; only of those asked."
    ),
    "sophia_target_ejected": "1 while a model is ejected at an upstream after failures, else 0.",
    "sophia_store_round_trips": (
        "Questions to the database: statements over the network, or transactions in SQLite."
    ),
    "sophia_judgements": (
        "Answers sampled for a judge, by result: judged, unparsable (the reply is no score), "
        "unpaid, dropped (too many waited), no_judge, empty or failed."
    ),
}


TargetFigures = tuple[str, str, float, bool]
"""An upstream, a model there ("" for its key), its share of successes, whether it is healthy."""


@dataclass(slots=True)
class _Histogram:
    """Counts of durations in seconds by bucket, and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_BUCKET_BOUNDS_S) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(_BUCKET_BOUNDS_S, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return cumulative counts by upper bound."""
        bounds = (*map(str, _BUCKET_BOUNDS_S), "+Inf")
        return list(zip(bounds, map(float, accumulate(self.counts)), strict=True))


@dataclass(slots=True, kw_only=True)
class _ModelCounters:
    """Totals of one model since this process began; money in nano-dollars."""

    statuses: Counter[int] = field(default_factory=Counter)
    cost_nano: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    duration: _Histogram = field(default_factory=_Histogram)
    first_content: _Histogram = field(default_factory=_Histogram)


class PrometheusSink(Collector):
    """Counts settled requests.

    `costs` are those of the ledger, nano-dollars by model; None in a process that does not report
    what belongs to the ledger, so that sums over all processes are right.
    """

    def __init__(self, scores: Iterable[tuple[str, float, int]]) -> None:
        self.registry = CollectorRegistry()
        self.costs: Mapping[str, int] | None = None
        self._counters: defaultdict[str, _ModelCounters] = defaultdict(_ModelCounters)
        self._failures: Counter[tuple[str, str]] = Counter()
        self._judgements: Counter[str] = Counter()
        self.list_targets: Callable[[], Iterable[TargetFigures]] = tuple
        self.count_round_trips: Callable[[], int] = int
        self.replace_scores(scores)
        self.registry.register(self)

    def add_gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """Export a figure that `read` returns at each scrape."""
        Gauge(name, about, registry=self.registry).set_function(read)

    def emit(self, event: Settled) -> None:
        """Count one request."""
        counters = self._counters[event.model]
        counters.statuses[event.status] += 1
        counters.cost_nano += event.cost_nano
        counters.prompt_tokens += event.prompt_tokens
        counters.completion_tokens += event.completion_tokens
        counters.duration.observe(event.duration_s)
        if event.first_content_s is not None:
            counters.first_content.observe(event.first_content_s)
        for attempt in event.attempts:
            if attempt.failure is not None:
                self._failures[attempt.model, attempt.failure] += 1

    def record_score(self, model: str, score: float) -> None:
        """Add a score from feedback to the model's mean."""
        mean, count = self._scores.get(model, (0.0, 0))
        self._scores[model] = mean + (score - mean) / (count + 1), count + 1

    def replace_scores(self, scores: Iterable[tuple[str, float, int]]) -> None:
        """Take over the mean scores of the store, which has those of all processes."""
        self._scores = {model: (mean, count) for model, mean, count in scores}

    def count_judgement(self, result: str, outcomes: Sequence[AttemptOutcome]) -> None:
        """Count one answer to be judged, by its result; `outcomes` are the judges' attempts."""
        self._judgements[result] += 1
        for outcome in outcomes:
            self._counters[outcome.model].cost_nano += outcome.cost_nano

    def render(self) -> bytes:
        """Return the page for a scrape."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with its current values."""
        models = list(self._counters.items())
        rows: list[Any] = [
            ((m, str(s)), n) for m, counters in models for s, n in list(counters.statuses.items())
        ]
        yield _build_metric(CounterMetricFamily, "openrouter_requests", ["model", "status"], rows)
        costs = self.costs or {}
        rows = [((model,), nano_to_usd(nano)) for model, nano in costs.items()]
        yield _build_metric(GaugeMetricFamily, "openrouter_cost_dollars", ["model"], rows)
        rows = [((model,), nano_to_usd(counters.cost_nano)) for model, counters in models]
        yield _build_metric(CounterMetricFamily, "sophia_cost_dollars", ["model"], rows)
        rows = []
        for model, counters in models:
            rows.append(((model, "prompt"), counters.prompt_tokens))
            rows.append(((model, "completion"), counters.completion_tokens))
        yield _build_metric(CounterMetricFamily, "sophia_tokens", ["model", "direction"], rows)
        name = "openrouter_response_duration_seconds"
        rows = [((m,), c.duration.buckets(), c.duration.total) for m, c in models]
        yield _build_metric(HistogramMetricFamily, name, ["model"], rows)
        rows = [((m,), c.first_content.buckets(), c.first_content.total) for m, c in models]
        yield _build_metric(HistogramMetricFamily, "sophia_first_content_seconds", ["model"], rows)
        scores = [] if self.costs is None else list(self._scores.items())
        rows = [((model,), mean) for model, (mean, _) in scores]
        yield _build_metric(GaugeMetricFamily, "openrouter_quality_score", ["model"], rows)
        rows = list(self._failures.items())
        yield _build_metric(
            CounterMetricFamily, "sophia_attempt_failures", ["model", "cause"], rows
        )
        targets = list(self.list_targets())
        labels = ["upstream", "model"]
        rows = [((upstream, model), success) for upstream, model, success, _ in targets if model]
        yield _build_metric(GaugeMetricFamily, "sophia_target_success", labels, rows)
        rows = [((upstream, model), float(not healthy)) for upstream, model, _, healthy in targets]
        yield _build_metric(GaugeMetricFamily, "sophia_target_ejected", labels, rows)
        rows = [((), self.count_round_trips())]
        yield _build_metric(CounterMetricFamily, "sophia_store_round_trips", [], rows)
        rows = [((result,), count) for result, count in list(self._judgements.items())]
        yield _build_metric(CounterMetricFamily, "sophia_judgements", ["result"], rows)


def _build_metric(
    family: type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily],
    name: str,
    labels: list[str],
    rows: Iterable[Any],
) -> Metric:
    """Return a metric family with a sample for each row of label values and figures."""
    metric = family(name, _HELP[name], labels=labels)
    for row in rows:
        metric.add_metric(*row)
    return metric


def merge_pages(pages: Mapping[int, bytes]) -> bytes:
    """Return one page of the pages of several workers, with a label `worker` on every sample."""
    heads: dict[str, list[str]] = {}
    samples: defaultdict[str, list[str]] = defaultdict(list)
    for worker, page in pages.items():
        family = ""
        for line in page.decode().splitlines():
            if line.startswith("# "):
                _, kind, family, _ = line.split(" ", 3)
                if kind == "HELP":
                    is_known = family in heads
                if not is_known:
                    heads.setdefault(family, []).append(line)
                continue
            name, _, rest = line.partition("{")
            if rest:
                samples[family].append(f'{name}{{worker="{worker}",{rest}')
            else:
                name, value = line.rsplit(" ", 1)
                samples[family].append(f'{name}{{worker="{worker}"}} {value}')
    lines = [line for family, head in heads.items() for line in (*head, *samples[family])]
    return "\n".join([*lines, ""]).encode()
