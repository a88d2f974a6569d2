"""Server-sent events: the payloads of `data:` lines, from bytes in any split."""

from sophia.adapters.upstreams.json_text import BYTE_ORDER_MARK
from sophia.core.failures import FailureKind, UpstreamFailure

MAX_EVENT_BYTES = 32 * 1024 * 1024
"""Longest event: a picture of several megabytes comes in one."""


class EventReader:
    """Collects bytes until an event is complete, and ignores comments, names and ids."""

    __slots__ = ("_is_start", "_parts", "_pending", "_size", "saw_comment")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        # A carriage return whose line feed may be in the next bytes.
        self._pending = b""
        self._is_start = True
        self.saw_comment = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads that `data` completes; `saw_comment` tells of a comment among it.

        Raises UpstreamFailure if an event is longer than `MAX_EVENT_BYTES`.
        """
        if self._pending:
            data, self._pending = self._pending + data, b""
        if b"\r" in data:
            if data.endswith(b"\r"):
                data, self._pending = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self.saw_comment = data.startswith(b":") or b"\n:" in data
        if self._parts:
            if b"\n\n" not in data and b"\n\n" not in self._parts[-1][-1:] + data[:1]:
                self._keep(data)
                return []
            data = b"".join([*self._parts, data])
        self._parts, self._size = [], 0
        if self._is_start:
            if BYTE_ORDER_MARK.startswith(data[:3]) and len(data) < len(BYTE_ORDER_MARK):
                self._keep(data)
                return []
            data, self._is_start = data.removeprefix(BYTE_ORDER_MARK), False
        return self._split(data)

    def _split(self, data: bytes) -> list[bytes]:
        events = data.split(b"\n\n")
        self._keep(events.pop())
        payloads = []
        for event in events:
            if event.startswith(b"data: ") and b"\n" not in event:
                payloads.append(event[6:])
            elif (payload := _payload(event)) is not None:
                payloads.append(payload)
        return payloads

    def flush(self) -> bytes | None:
        """Return the payload of a last event that has no blank line after it."""
        tail, self._parts = b"".join(self._parts), []
        return _payload(tail.removeprefix(BYTE_ORDER_MARK)) if tail else None

    def _keep(self, data: bytes) -> None:
        if data:
            self._parts.append(data)
            self._size += len(data)
        if self._size > MAX_EVENT_BYTES:
            size = MAX_EVENT_BYTES >> 20
            raise UpstreamFailure(FailureKind.TOO_LARGE, f"one event is longer than {size} MiB.")


def _payload(event: bytes) -> bytes | None:
    lines = [
        line[5:].removeprefix(b" ")
        for line in event.split(b"\n")
        if line.startswith(b"data:") or line == b"data"
    ]
    return b"\n".join(lines) if lines else None
