"""Prometheus metrics, counted in plain numbers and put into Prometheus' form when it scrapes.

Labels are bounded by the catalogue; counting one request costs about a microsecond.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from sophia.core.events import Settled
from sophia.core.money import usd

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class _Histogram:
    """Counts of durations in seconds by bucket, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(_SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(_SECONDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return cumulated counts by upper bound."""
        grown, rows = 0, []
        for bound, count in zip((*map(str, _SECONDS), "+Inf"), self.counts, strict=True):
            grown += count
            rows.append((bound, float(grown)))
        return rows


class _Tally:
    """What one model has done since this process began; money in nano-dollars."""

    __slots__ = ("completion", "cost", "duration", "first", "prompt", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.cost = 0
        self.prompt = 0
        self.completion = 0
        self.duration = _Histogram()
        self.first = _Histogram()


class PrometheusSink(Collector):
    """Counts settled requests. `spent`: the ledger's earlier costs, nano-dollars by model."""

    def __init__(
        self,
        spent: Iterable[tuple[str, int]] = (),
        scores: Iterable[tuple[str, float, int]] = (),
    ) -> None:
        self.registry = CollectorRegistry()
        self._spent = dict(spent)
        self._tallies: dict[str, _Tally] = {}
        self._failures: dict[tuple[str, str], int] = {}
        self._judgements: dict[str, int] = {}
        self._scores = {model: (mean, count) for model, mean, count in scores}
        self.registry.register(self)

    def gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """Export a figure that is read when somebody scrapes."""
        Gauge(name, about, registry=self.registry).set_function(read)

    def emit(self, event: Settled) -> None:
        """Count one request."""
        tally = self._tallies.get(event.model)
        if tally is None:
            tally = self._tallies[event.model] = _Tally()
        tally.statuses[event.status] = tally.statuses.get(event.status, 0) + 1
        tally.cost += event.cost_nano
        tally.prompt += event.prompt_tokens
        tally.completion += event.completion_tokens
        tally.duration.observe(event.duration_s)
        if event.first_content_s is not None:
            tally.first.observe(event.first_content_s)
        for attempt in event.attempts:
            if attempt.failure is not None:
                key = attempt.model, attempt.failure
                self._failures[key] = self._failures.get(key, 0) + 1

    def score(self, model: str, score: float) -> None:
        """Take a score from feedback into the model's mean."""
        mean, count = self._scores.get(model, (0.0, 0))
        self._scores[model] = mean + (score - mean) / (count + 1), count + 1

    def judged(self, became: str, cost: Sequence[tuple[str, int]]) -> None:
        """Count what became of an answer that was to be judged; `cost`: nano-dollars by model."""
        self._judgements[became] = self._judgements.get(became, 0) + 1
        for model, nano in cost:
            self._tallies.setdefault(model, _Tally()).cost += nano

    def render(self) -> bytes:
        """Return the page that Prometheus scrapes."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it stands now."""
        tallies = list(self._tallies.items())
        requests = CounterMetricFamily(
            "openrouter_requests",
            "Requests by the model that answered and the status the caller got.",
            labels=["model", "status"],
        )
        tokens = CounterMetricFamily(
            "sophia_tokens", "Tokens billed, by model and direction.", labels=["model", "direction"]
        )
        spent = CounterMetricFamily(
            "sophia_cost_dollars",
            "US dollars spent per model since this process began.",
            labels=["model"],
        )
        for model, tally in tallies:
            for status, count in list(tally.statuses.items()):
                requests.add_metric([model, str(status)], count)
            tokens.add_metric([model, "prompt"], tally.prompt)
            tokens.add_metric([model, "completion"], tally.completion)
            spent.add_metric([model], usd(tally.cost))
        yield requests
        yield self._costs(tallies)
        yield spent
        yield tokens
        yield _histogram(
            "openrouter_response_duration_seconds",
            "Seconds from a request's arrival to the end of its answer.",
            [(model, tally.duration) for model, tally in tallies],
        )
        yield _histogram(
            "sophia_first_content_seconds",
            "Seconds from dispatch to the first content, by model.",
            [(model, tally.first) for model, tally in tallies],
        )
        yield from self._judged()

    def _costs(self, tallies: list[tuple[str, _Tally]]) -> Metric:
        family = GaugeMetricFamily(
            "openrouter_cost_dollars",
            "US dollars spent per model since the ledger began.",
            labels=["model"],
        )
        totals = dict(self._spent)
        for model, tally in tallies:
            totals[model] = totals.get(model, 0) + tally.cost
        for model, nano in totals.items():
            family.add_metric([model], usd(nano))
        return family

    def _judged(self) -> Iterator[Metric]:
        quality = GaugeMetricFamily(
            "openrouter_quality_score",
            "Mean score (0 to 1) that feedback gave to a model's answers.",
            labels=["model"],
        )
        for model, (mean, _) in list(self._scores.items()):
            quality.add_metric([model], mean)
        failures = CounterMetricFamily(
            "sophia_attempt_failures",
            "Attempts that failed, by model and cause.",
            labels=["model", "cause"],
        )
        for (model, cause), count in list(self._failures.items()):
            failures.add_metric([model, cause], count)
        judgements = CounterMetricFamily(
            "sophia_judgements",
            "Answers that were to be judged by a model, by what became of it: judged, unread (the "
            "reply was no mark), unpaid, dropped (too many waited), no_judge, empty or failed.",
            labels=["became"],
        )
        for became, count in list(self._judgements.items()):
            judgements.add_metric([became], count)
        yield quality
        yield failures
        yield judgements


def _histogram(name: str, about: str, rows: list[tuple[str, _Histogram]]) -> Metric:
    family = HistogramMetricFamily(name, about, labels=["model"])
    for model, histogram in rows:
        family.add_metric([model], histogram.buckets(), histogram.total)
    return family
