"""One request of a run, read to its end, and its outcome as a client sees it."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Literal

import httptools

Outcome = Literal["complete", "error", "silent", "unmarked", "hung"]
OUTCOMES: dict[Outcome, str] = {
    "complete": "the whole text arrived, with its end",
    "error": "the client sees a failure: status, error event, broken connection or no JSON",
    "silent": "text is missing, and the answer ends with [DONE] or a good finish reason",
    "unmarked": "text is missing; clean end of the connection without [DONE], finish reason or error",
    "hung": "no end within the limit",
}
GOOD_REASONS = ("stop", "length", "tool_calls")


@dataclass(slots=True)
class Received:
    """The bytes of one answer; `is_complete` when HTTP says that it has ended."""

    status: int = 0
    content_type: str = ""
    body: bytearray = field(default_factory=bytearray)
    is_complete: bool = False
    is_delimited: bool = False

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-type":
                self.content_type = value.decode("latin-1")
            case b"content-length" | b"transfer-encoding":
                self.is_delimited = True

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.is_complete = True


async def exchange(port: int, request: bytes, seconds: float) -> Received | None:
    """Send a request on a new connection and read its answer; None when that takes too long."""
    received = Received()
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                parser = httptools.HttpResponseParser(received)
                while not received.is_complete and (data := await reader.read(65536)):
                    parser.feed_data(data)
                    received.status = parser.get_status_code()
                # Without a length the end of the connection is the end of the answer.
                received.is_complete |= received.status > 0 and not received.is_delimited
            finally:
                writer.transport.abort()
    except TimeoutError:
        return None
    except (OSError, httptools.HttpParserError):
        received.is_complete = False
    return received


def write_request(path: str, headers: tuple[str, ...], body: dict[str, object] | None) -> bytes:
    """Return the bytes of a POST of JSON, or without a body of a GET."""
    data = b"" if body is None else json.dumps(body).encode()
    fields = (*headers, "Host: gateway", "Content-Type: application/json", "Connection: close")
    head = "\r\n".join((f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", *fields))
    return f"{head}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def is_continued(received: Received | None) -> bool:
    """Return whether Sophia says that another call went on with the answer."""
    return received is not None and b'"continued":[' in received.body


def classify(received: Received | None, text: str, *, streamed: bool) -> Outcome:
    """Return the outcome for a client that expects `text`."""
    if received is None:
        return "hung"
    if received.status != 200 or not received.is_complete:
        return "error"
    is_sse = received.content_type.startswith("text/event-stream")
    try:
        read, ends, failed = _read_stream(received) if is_sse else _read_whole(received)
    except (ValueError, LookupError, TypeError, AttributeError):
        # A client of a stream finds no event in a page of HTML, and sees an empty answer.
        return "unmarked" if streamed and b'"error"' not in received.body else "error"
    if failed:
        return "error"
    if read == text and ends:
        return "complete"
    return "silent" if ends else "unmarked"


def _read_stream(received: Received) -> tuple[str, bool, bool]:
    """Return the text of a stream, whether it says that it has ended, and whether it failed."""
    text, ends = "", False
    # As clients do, leave out an event without a blank line after it.
    for event in received.body.decode(errors="replace").replace("\r\n", "\n").split("\n\n")[:-1]:
        payload = event.partition("data:")[2].strip()
        if payload == "[DONE]":
            ends = True
        elif payload:
            chunk = json.loads(payload)
            choices = chunk.get("choices") or ()
            reasons = [choice.get("finish_reason") for choice in choices]
            text += "".join((choice.get("delta") or {}).get("content") or "" for choice in choices)
            ends = ends or any(reason in GOOD_REASONS for reason in reasons)
            if chunk.get("error") or "error" in reasons:
                return text, ends, True
    return text, ends, False


def _read_whole(received: Received) -> tuple[str, bool, bool]:
    body: Any = json.loads(received.body)
    choice = body["choices"][0]
    ends = choice.get("finish_reason") in GOOD_REASONS
    return choice["message"].get("content") or "", ends, bool(body.get("error"))
