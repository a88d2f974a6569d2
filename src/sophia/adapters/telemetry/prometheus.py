"""Prometheus metrics; labels are bounded by the catalogue, children are looked up once."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sophia.core.events import Settled
from sophia.core.money import usd

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class _Children(NamedTuple):
    one: Callable[[], None]
    cost_total: Callable[[float], None]
    cost: Callable[[float], None]
    duration: Callable[[float], None]
    prompt: Callable[[float], None]
    completion: Callable[[float], None]


class PrometheusSink:
    """Counts settled requests. `spent`: the ledger's earlier costs, nano-dollars by model."""

    def __init__(self, spent: Iterable[tuple[str, int]] = ()) -> None:
        self.registry = CollectorRegistry()
        labels = ["model"]
        self._requests = Counter(
            "openrouter_requests_total",
            "Requests by the model that answered and the status the caller got.",
            ["model", "status"],
            registry=self.registry,
        )
        self._cost = Gauge(
            "openrouter_cost_dollars",
            "US dollars spent per model since the ledger began.",
            labels,
            registry=self.registry,
        )
        self._cost_total = Counter(
            "sophia_cost_dollars_total",
            "US dollars spent per model since this process began.",
            labels,
            registry=self.registry,
        )
        self._duration = Histogram(
            "openrouter_response_duration_seconds",
            "Seconds from a request's arrival to the end of its answer.",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._quality = Gauge(
            "openrouter_quality_score",
            "Mean score (0 to 1) that feedback gave to a model's answers.",
            labels,
            registry=self.registry,
        )
        self._tokens = Counter(
            "sophia_tokens_total",
            "Tokens billed, by model and direction.",
            ["model", "direction"],
            registry=self.registry,
        )
        self._failures = Counter(
            "sophia_attempt_failures_total",
            "Attempts that failed, by model and cause.",
            ["model", "cause"],
            registry=self.registry,
        )
        self._first = Histogram(
            "sophia_first_content_seconds",
            "Seconds from dispatch to the first content, by model.",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._children: dict[tuple[str, int], _Children] = {}
        self._firsts: dict[str, Callable[[float], None]] = {}
        self._scores: dict[str, tuple[float, int]] = {}
        for model, nano in spent:
            self._cost.labels(model).set(usd(nano))

    def gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """Export a figure that is read when somebody scrapes."""
        Gauge(name, about, registry=self.registry).set_function(read)

    def emit(self, event: Settled) -> None:
        """Count one request."""
        children = self._children.get((event.model, event.status))
        if children is None:
            children = self._make(event.model, event.status)
        children.one()
        children.duration(event.duration_s)
        if event.cost_nano:
            dollars = usd(event.cost_nano)
            children.cost_total(dollars)
            children.cost(dollars)
        if event.completion_tokens or event.prompt_tokens:
            children.prompt(event.prompt_tokens)
            children.completion(event.completion_tokens)
        if event.first_content_s is not None:
            first = self._firsts.get(event.model)
            if first is None:
                first = self._firsts[event.model] = self._first.labels(event.model).observe
            first(event.first_content_s)
        for attempt in event.attempts:
            if attempt.failure is not None:
                self._failures.labels(attempt.model, attempt.failure).inc()

    def score(self, model: str, score: float) -> None:
        """Take a score from feedback into the model's mean."""
        mean, count = self._scores.get(model, (0.0, 0))
        mean, count = mean + (score - mean) / (count + 1), count + 1
        self._scores[model] = mean, count
        self._quality.labels(model).set(mean)

    def render(self) -> bytes:
        """Return the page that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _make(self, model: str, status: int) -> _Children:
        children = self._children[model, status] = _Children(
            self._requests.labels(model, str(status)).inc,
            self._cost_total.labels(model).inc,
            self._cost.labels(model).inc,
            self._duration.labels(model).observe,
            self._tokens.labels(model, "prompt").inc,
            self._tokens.labels(model, "completion").inc,
        )
        return children
