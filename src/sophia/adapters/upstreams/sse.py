"""Server-sent events: the payloads of `data:` lines, from bytes in any split."""

from sophia.core.failures import FailureKind, UpstreamFailure

MAX_EVENT_BYTES = 1024 * 1024


class EventReader:
    """Collects bytes until an event is complete, and ignores comments, names and ids."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads that `data` completes.

        Raises UpstreamFailure if an event is longer than a megabyte.
        """
        if self._tail:
            data = self._tail + data
        pending = b""
        if b"\r" in data:
            if data.endswith(b"\r"):
                # The line feed after this carriage return may be in the next bytes.
                data, pending = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events = data.split(b"\n\n")
        tail = events.pop()
        if len(tail) > MAX_EVENT_BYTES:
            raise UpstreamFailure(FailureKind.TOO_LARGE, "one event is longer than 1 MiB")
        self._tail = tail + pending
        payloads = []
        for event in events:
            if event.startswith(b"data: ") and b"\n" not in event:
                payloads.append(event[6:])
            elif (payload := _payload(event)) is not None:
                payloads.append(payload)
        return payloads

    def flush(self) -> bytes | None:
        """Return the payload of a last event that has no blank line after it."""
        tail, self._tail = self._tail, b""
        return _payload(tail.replace(b"\r", b"\n")) if tail else None


def _payload(event: bytes) -> bytes | None:
    lines = [
        line[5:].removeprefix(b" ")
        for line in event.split(b"\n")
        if line.startswith(b"data:") or line == b"data"
    ]
    return b"\n".join(lines) if lines else None
