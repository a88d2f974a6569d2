"""Telemetry of requests follows its conventions and never contains a prompt or a key."""

import io
import json
import logging

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gateway import FLASH, MINI, Gateway
from sophia.adapters.telemetry.logs import RequestLog, configure_logging
from sophia.adapters.telemetry.otel import OtelSink
from sophia.sandbox import ScriptStep

SECRET = "the swan sings at midnight"


async def test_a_request_is_a_server_span_with_a_client_span_for_each_attempt(
    sophia: Gateway,
) -> None:
    """Names and attributes follow OpenTelemetry's GenAI conventions."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    meters = MeterProvider(metric_readers=[reader])
    sink = OtelSink(tracers, meters)
    sophia.sophia.app.runtime.sinks = (sink,)
    sophia.up.script(MINI, ScriptStep(status=500))
    answer = await sophia.client.chat(MINI, text=SECRET, models=[MINI, FLASH])
    assert answer.status == 200
    failed, served, whole = spans.get_finished_spans()
    assert whole.kind is SpanKind.SERVER and whole.name == f"chat {MINI}"
    assert {failed.kind, served.kind} == {SpanKind.CLIENT}
    assert failed.parent is not None and failed.parent.span_id == whole.context.span_id
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes is not None and failed.attributes["error.type"] == "status:500"
    attributes = dict(whole.attributes or {})
    usage = answer.json["usage"]
    assert attributes["gen_ai.operation.name"] == "chat"
    assert (
        attributes["gen_ai.request.model"] == MINI and attributes["gen_ai.response.model"] == FLASH
    )
    assert attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert attributes["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert attributes["sophia.decision_id"] == answer.json["sophia"]["decision_id"]
    data = reader.get_metrics_data()
    assert data is not None
    names = {
        metric.name
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"} <= names
    exported = "".join(span.to_json() for span in (failed, served, whole))
    assert SECRET not in exported and sophia.client.key not in exported
    sink.close()


async def test_the_request_log_is_one_json_line_without_the_text(sophia: Gateway) -> None:
    """A line has the model and the cost, and neither prompts nor keys."""
    stream = io.StringIO()
    sophia.sophia.app.runtime.sinks = (RequestLog(stream),)
    answer = await sophia.client.chat("sophia/auto", text=SECRET)
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["model"] == answer.json["model"] and entry["status"] == 200
    assert entry["cost_usd"] == answer.json["usage"]["cost"] and entry["attempts"] == 1
    assert SECRET not in line and sophia.client.key not in line


def test_logs_in_json_keep_the_request_id_and_the_traceback() -> None:
    """A failure can be found by the request id in the answer."""
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    logger = logging.getLogger("sophia.test")
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("it failed", extra={"request_id": "req-1"})
    entry = json.loads(stream.getvalue())
    assert entry["request_id"] == "req-1" and entry["level"] == "error"
    assert "ValueError: no" in entry["exception"]
    logging.getLogger("sophia").handlers = []
    logging.getLogger("uvicorn").handlers = []
