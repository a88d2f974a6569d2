"""Logs: text or JSON lines on standard error, and one line per request if a setting asks for it."""

import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

import msgspec

from sophia.core.events import Settled
from sophia.core.ids import encode_id, extract_timestamp_ms
from sophia.core.money import nano_to_usd

encode = msgspec.json.Encoder().encode


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        request_id = getattr(record, "request_id", None)
        if request_id is not None:
            line["request_id"] = request_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return encode(line).decode()


def configure_logging(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send Sophia's and the server's logs to `stream`, by default standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    if form == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("sophia", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
    if level == "info":
        # The server announces what Sophia's own start text says better.
        logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _format_time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


class RequestLog:
    """Writes one JSON line per settled request: the key, the model, the outcome and the cost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def emit(self, event: Settled) -> None:
        """Write the line."""
        line = {
            "event": "request",
            "time": _format_time(extract_timestamp_ms(event.request_id)),
            "request_id": encode_id("req", event.request_id),
            "decision_id": encode_id("dec", event.request_id),
            "key_id": event.key_id,
            "user": event.user,
            "metadata": event.metadata,
            "endpoint": event.endpoint,
            "requested_model": event.requested_model,
            "model": event.model,
            "provider": event.provider,
            "upstream": event.upstream,
            "policy": event.policy,
            "task_type": event.task_type,
            "stream": event.stream,
            "status": event.status,
            "finish_reason": event.finish_reason,
            "error_type": event.error_type,
            "cost_usd": nano_to_usd(event.cost_nano),
            "prompt_tokens": event.prompt_tokens,
            "completion_tokens": event.completion_tokens,
            "first_content_ms": _milliseconds(event.first_content_s),
            "duration_ms": _milliseconds(event.duration_s),
            "attempts": len(event.attempts),
        }
        try:
            self._stream.write(encode(line).decode() + "\n")
        except (OSError, ValueError):
            return  # A closed stream is no reason to fail a request.
