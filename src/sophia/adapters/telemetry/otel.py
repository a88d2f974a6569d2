"""OpenTelemetry by the GenAI conventions: spans per request and attempt, and client metrics.

Needs the `otel` extra; the standard OTEL_* variables name the exporter's address.
"""

from typing import Any

import msgspec
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

from sophia import __version__
from sophia.core.events import Settled
from sophia.core.ids import encode_id
from sophia.core.money import nano_to_usd
from sophia.core.rows import AttemptOutcome

_OPERATIONS = {
    "chat/completions": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}


class OtelSink:
    """Turns settled requests into spans and metrics, by default exported over OTLP."""

    def __init__(
        self, tracers: TracerProvider | None = None, meters: MeterProvider | None = None
    ) -> None:
        resource = Resource.create({"service.name": "sophia", "service.version": __version__})
        if tracers is None:
            tracers = TracerProvider(resource=resource)
            tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        if meters is None:
            reader = PeriodicExportingMetricReader(OTLPMetricExporter())
            meters = MeterProvider(metric_readers=[reader], resource=resource)
        self._tracers, self._meters = tracers, meters
        self._tracer = tracers.get_tracer("sophia", __version__)
        meter = meters.get_meter("sophia", __version__)
        self._duration = meter.create_histogram("gen_ai.client.operation.duration", unit="s")
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", unit="{token}")
        self._time_to_first_chunk = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk", unit="s"
        )

    def emit(self, event: Settled) -> None:
        """Export one request with its attempts."""
        operation = _OPERATIONS.get(event.endpoint, event.endpoint)
        end_ns = event.attempts[-1].at_ms * 1_000_000 if event.attempts else None
        start_ns = end_ns - int(event.duration_s * 1e9) if end_ns is not None else None
        common: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": event.upstream,
            "gen_ai.request.model": event.requested_model,
            "gen_ai.response.model": event.model,
        }
        span = self._tracer.start_span(
            f"{operation} {event.requested_model}",
            kind=SpanKind.SERVER,
            start_time=start_ns,
            attributes={
                **common,
                "gen_ai.request.stream": event.stream,
                "gen_ai.usage.input_tokens": event.prompt_tokens,
                "gen_ai.usage.output_tokens": event.completion_tokens,
                "gen_ai.usage.cost": nano_to_usd(event.cost_nano),
                "sophia.decision_id": encode_id("dec", event.request_id),
                "sophia.key_id": event.key_id,
                "sophia.policy": event.policy,
                "sophia.task_type": event.task_type,
                "http.response.status_code": event.status,
            },
        )
        if isinstance(event.user, msgspec.Raw):
            span.set_attribute("user.id", str(msgspec.json.decode(event.user)))
        if event.first_content_s is not None:
            span.set_attribute("sophia.first_content_s", event.first_content_s)
        if event.finish_reason is not None:
            span.set_attribute("gen_ai.response.finish_reasons", [event.finish_reason])
        if event.error_type is not None:
            span.set_attribute("error.type", event.error_type)
            span.set_status(Status(StatusCode.ERROR))
        parent = trace.set_span_in_context(span)
        for attempt in event.attempts:
            self._export_attempt(attempt, operation, parent)
        span.end(end_time=end_ns)
        self._record_metrics(event, common)

    def _export_attempt(self, attempt: AttemptOutcome, operation: str, parent: Any) -> None:
        end_ns = attempt.at_ms * 1_000_000
        span = self._tracer.start_span(
            f"{operation} {attempt.model}",
            context=parent,
            kind=SpanKind.CLIENT,
            start_time=end_ns - int(attempt.total_ms * 1e6),
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.request.model": attempt.model,
                "gen_ai.usage.cost": nano_to_usd(attempt.cost_nano),
                "sophia.attempt.state": attempt.state,
            },
        )
        if attempt.failure is not None:
            span.set_attribute("error.type", attempt.failure)
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=end_ns)

    def _record_metrics(self, event: Settled, common: dict[str, Any]) -> None:
        self._duration.record(event.duration_s, common)
        tokens = {"input": event.prompt_tokens, "output": event.completion_tokens}
        for direction, count in tokens.items():
            self._tokens.record(count, {**common, "gen_ai.token.type": direction})
        if event.first_content_s is not None:
            self._time_to_first_chunk.record(event.first_content_s, common)

    def close(self) -> None:
        """Export buffered spans and metrics."""
        self._tracers.shutdown()
        self._meters.shutdown()
