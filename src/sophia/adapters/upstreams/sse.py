"""Server-sent events: bytes in any split become the payloads of `data:` lines, in order."""

from sophia.core.failures import FailureKind, UpstreamFailure

MAX_EVENT_BYTES = 1024 * 1024


class EventReader:
    """Collects bytes until an event is complete; comments, names and ids are noise to us."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data payloads that `data` completes.

        Raises:
            UpstreamFailure: an event is longer than a megabyte.
        """
        if self._tail:
            data = self._tail + data
        if b"\r" in data:
            return self._feed_crlf(data)
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

    def _feed_crlf(self, data: bytes) -> list[bytes]:
        held = b""
        if data.endswith(b"\r"):
            # The line feed of this carriage return may still be on its way.
            data, held = data[:-1], b"\r"
        payloads = self._split(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
        self._tail += held
        return payloads

    def _keep(self, tail: bytes) -> None:
        if len(tail) > MAX_EVENT_BYTES:
            raise UpstreamFailure(FailureKind.TOO_LARGE, "one event is longer than 1 MiB")
        self._tail = tail

    def rest(self) -> bytes | None:
        """Return the payload of an event that the end of the stream left without its blank line."""
        tail, self._tail = self._tail, b""
        return _payload(tail.replace(b"\r", b"\n")) if tail else None


def _payload(event: bytes) -> bytes | None:
    lines = []
    for line in event.split(b"\n"):
        if line.startswith(b"data:"):
            lines.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            lines.append(b"")
    return b"\n".join(lines) if lines else None
