"""Server-sent events: the payloads do not depend on how the bytes were split, nor on line ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.adapters.upstreams.sse import MAX_EVENT_BYTES, EventReader
from sophia.core.failures import FailureKind, UpstreamFailure

LINES = st.text(
    st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20
).map(str.encode)
EVENTS = st.lists(
    st.tuples(
        st.lists(LINES, max_size=3),
        st.sampled_from(
            [b"", b": OPENROUTER PROCESSING", b"event: message", b"id: 7", b"retry: 5"]
        ),
        st.booleans(),
    ),
    max_size=6,
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def write(events: list[tuple[list[bytes], bytes, bool]], end: bytes) -> tuple[bytes, list[bytes]]:
    """Return the bytes of events, and the payloads that they carry."""
    out, payloads = b"", []
    for lines, noise, spaced in events:
        out += noise + end if noise else b""
        for line in lines:
            out += (b"data: " if spaced or line.startswith(b" ") else b"data:") + line + end
        out += end
        if lines:
            payloads.append(b"\n".join(lines))
    return out, payloads


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in zip(places, places[1:], strict=False)]


@given(EVENTS, ENDS, st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_gives_the_same_payloads(
    events: list[tuple[list[bytes], bytes, bool]], end: bytes, cuts: list[int]
) -> None:
    data, expected = write(events, end)
    reader = EventReader()
    seen = [payload for part in split(data, cuts) for payload in reader.feed(part)]
    if (rest := reader.flush()) is not None:
        # A lone carriage return at the very end waits for its line feed.
        seen.append(rest)
    assert seen == expected


@given(EVENTS, ENDS)
def test_one_byte_at_a_time(events: list[tuple[list[bytes], bytes, bool]], end: bytes) -> None:
    data, expected = write(events, end)
    reader = EventReader()
    seen = [payload for byte in data for payload in reader.feed(bytes([byte]))]
    rest = reader.flush()
    assert seen + ([] if rest is None else [rest]) == expected


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_no_bytes_break_the_reader(parts: list[bytes]) -> None:
    reader = EventReader()
    for part in parts:
        assert all(isinstance(payload, bytes) for payload in reader.feed(part))
    reader.flush()


def test_an_event_without_its_blank_line_is_found_at_the_end() -> None:
    reader = EventReader()
    assert reader.feed(b"data: one\n\ndata: two") == [b"one"]
    assert reader.flush() == b"two" and reader.flush() is None


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_an_endless_event_is_refused(end: bytes) -> None:
    reader = EventReader()
    with pytest.raises(UpstreamFailure) as failed:
        for _ in range(MAX_EVENT_BYTES // 65536 + 2):
            reader.feed(b"x" * 65536 + end)
    assert failed.value.kind is FailureKind.TOO_LARGE
