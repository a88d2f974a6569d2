"""However the network cuts a stream of bytes, the answer read from it is the same."""

import asyncio
import http.client
import io
import itertools
from collections.abc import Iterator

import pytest
from http1_stage import PlayedAnswer, SilentTransport, play
from hypothesis import given
from hypothesis import strategies as st

from sophia.adapters.upstreams.http1.exchange import HttpConnection, HttpResponse
from sophia.adapters.upstreams.http1.origin import PoolLimits
from sophia.core.failures import FailureKind, UpstreamFailure

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-ABC09_", min_size=1, max_size=12)
VALUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
HEADERS = st.lists(st.tuples(TOKEN.map("X-{}".format), VALUE), max_size=6)
STATUS = st.sampled_from([200, 201, 400, 429, 500, 503])
CHUNKS = st.lists(st.binary(min_size=1, max_size=60), max_size=8)
INTERIM = st.sampled_from(
    [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]
)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def head(status: int, headers: list[tuple[str, str]], *framing: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers), *framing]
    return "\r\n".join([*lines, "", ""]).encode()


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, bytes, bool]:
    """(stream, body, whether only the end of the connection ends it)."""
    status, headers, chunks = draw(STATUS), draw(HEADERS), draw(CHUNKS)
    body = b"".join(chunks)
    kind = draw(st.sampled_from(["length", "chunked", "eof"]))
    if kind == "length":
        stream = head(status, headers, f"Content-Length: {len(body)}") + body
    elif kind == "eof":
        stream = head(status, headers) + body
    else:
        extension = draw(st.sampled_from([b"", b";a=b", b";flag"]))
        trailer = draw(st.sampled_from([b"", b"X-Sum: 1\r\n", b"X-Sum: 1\r\nX-T: \r\n"]))
        stream = head(status, headers, "Transfer-Encoding: chunked")
        for chunk in chunks:
            stream += b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk)
        stream += b"0\r\n" + trailer + b"\r\n"
    return stream, body, kind == "eof"


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(stream) + 1) for place in places}), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges) if a < b]


PLACES = st.lists(st.integers(0, 5000), max_size=30)


@given(answers(), INTERIM, PLACES)
def test_any_split_gives_the_same_answer(
    loop: asyncio.AbstractEventLoop,
    answer: tuple[bytes, bytes, bool],
    interim: bytes,
    places: list[int],
) -> None:
    """Segment borders carry no meaning."""
    stream, body, ends_with_connection = answer
    whole = play(loop, [interim + stream], ended=ends_with_connection)
    split = play(loop, cut(interim + stream, places), ended=ends_with_connection)
    single = play(loop, [bytes([byte]) for byte in interim + stream], ended=ends_with_connection)
    assert whole == split == single
    assert whole.body == body
    assert whole.complete
    assert whole.reusable is not ends_with_connection


@given(answers(), st.integers(0, 5000), PLACES)
def test_a_cut_stream_never_looks_complete(
    loop: asyncio.AbstractEventLoop,
    answer: tuple[bytes, bytes, bool],
    length: int,
    places: list[int],
) -> None:
    """A truncated answer is a failure, unless its format has no end of its own."""
    stream, body, ends_with_connection = answer
    short = stream[: length % len(stream)]
    seen = play(loop, cut(short, places), ended=True)
    assert body.startswith(seen.body)
    if not seen.status:
        assert seen.failure is FailureKind.RESET
    elif ends_with_connection:
        assert seen.complete
    else:
        assert seen.failure is FailureKind.CUT
        assert not seen.complete


@given(answers())
def test_the_standard_library_reads_the_same(
    loop: asyncio.AbstractEventLoop, answer: tuple[bytes, bytes, bool]
) -> None:
    """Two independent readers agree on every valid answer."""
    stream, _, ends_with_connection = answer
    ours = play(loop, [stream], ended=ends_with_connection)
    theirs = http.client.HTTPResponse(_Canned(stream))  # type: ignore[arg-type]
    theirs.begin()
    assert ours.status == theirs.status
    assert [(n.decode(), v.decode()) for n, v in ours.headers] == [
        (name, value) for name, value in theirs.getheaders()
    ]
    assert ours.body == theirs.read()


class _Canned:
    """As much of a socket as http.client asks for."""

    def __init__(self, stream: bytes) -> None:
        self._stream = stream

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._stream)


@given(st.lists(st.binary(max_size=80), max_size=6), st.booleans())
def test_noise_is_a_failure_and_never_an_answer(
    loop: asyncio.AbstractEventLoop, noise: list[bytes], ended: bool
) -> None:
    """Whatever arrives, the caller sees an UpstreamFailure or goes on waiting."""
    seen = play(loop, noise, ended=ended)
    assert not seen.complete
    assert seen.failure in {None, FailureKind.MALFORMED, FailureKind.RESET, FailureKind.TOO_LARGE}
    assert not (ended and seen.failure is None)


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_end_with_their_head(
    loop: asyncio.AbstractEventLoop, status: int
) -> None:
    """204 and 304 have no body, whatever length they announce."""
    seen = play(loop, [head(status, [], "Content-Length: 5")])
    assert (seen.status, seen.body, seen.complete) == (status, b"", True)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"


@pytest.mark.parametrize(
    "stream",
    [
        OK + b"\r\nokHTTP/1.1 2",
        OK + b"\r\nokHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad",
        OK + b"\r\nok!",
        OK + b"Connection: close\r\n\r\nok",
        OK + b"Connection: close\r\n\r\nok!",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_a_connection_with_doubt_is_not_used_again(
    loop: asyncio.AbstractEventLoop, stream: bytes
) -> None:
    """Bytes past the end, or a wish to close, take the connection out of use, not the answer."""
    seen = play(loop, [stream])
    assert (seen.body, seen.complete, seen.reusable) == (b"ok", True, False)


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/9 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        OK + b"Content-Length: 3\r\n\r\nokk",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    ],
)
def test_broken_framing_is_malformed(loop: asyncio.AbstractEventLoop, stream: bytes) -> None:
    """Nothing is guessed: what the standard forbids is refused."""
    assert play(loop, [stream]).failure is FailureKind.MALFORMED


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 2000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 2000,
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 400 + b"Content-Length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 400,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"e" * 3000,
    ],
)
@pytest.mark.parametrize("step", [64, 100_000])
def test_endless_heads_and_trailers_are_too_large(
    loop: asyncio.AbstractEventLoop, stream: bytes, step: int
) -> None:
    """What is not body is bounded wherever it stands."""
    segments = [stream[at : at + step] for at in range(0, len(stream), step)]
    seen = play(loop, segments, limits=PoolLimits(max_header_bytes=1000))
    assert seen.failure is FailureKind.TOO_LARGE


def test_a_long_body_in_the_segment_of_a_short_head_is_no_long_head(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """The head's limit counts the head only."""
    body = b"b" * 5000
    seen = play(loop, [head(200, [], "Content-Length: 5000") + body], limits=_tight())
    assert seen == PlayedAnswer(
        status=200,
        headers=((b"Content-Length", b"5000"),),
        body=body,
        complete=True,
        failure=None,
        reusable=True,
    )


def _tight() -> PoolLimits:
    return PoolLimits(max_header_bytes=1000)


def test_an_upload_waits_until_its_transport_asks_for_more(loop: asyncio.AbstractEventLoop) -> None:
    """A request body is handed over slice by slice, never whole to a full buffer."""
    limits, body = PoolLimits(), bytes(200_000)
    connection = HttpConnection(limits, lambda _: None, lambda _: None)
    transport = _FullTransport(connection)
    connection.connection_made(transport)
    answer = HttpResponse(loop=loop, content_s=float("inf"), total_at=float("inf"))
    asking = connection.exchange(answer, b"POST / HTTP/1.1\r\n\r\n", body)
    for slices in range(1, 5):
        asking.send(None)
        assert len(transport.written) - 19 == min(slices * 65536, len(body))
        connection.resume_writing()
    asking.close()


def test_nothing_is_written_to_a_transport_that_broke_unnoticed(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Between the break and the loop's word of it, the connection counts as stale."""
    transport, limits = SilentTransport(), PoolLimits()
    connection = HttpConnection(limits, lambda _: None, lambda _: None)
    connection.connection_made(transport)
    transport.abort()
    answer = HttpResponse(loop=loop, content_s=float("inf"), total_at=float("inf"))
    with pytest.raises(UpstreamFailure) as caught:
        connection.exchange(answer, b"GET / HTTP/1.1\r\n\r\n", None).send(None)
    assert caught.value.kind is FailureKind.RESET
    assert (connection.has_received, transport.written) == (False, b"")


class _FullTransport(SilentTransport):
    """Is full after every write."""

    def __init__(self, connection: HttpConnection) -> None:
        super().__init__()
        self._connection = connection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(data)
        self._connection.pause_writing()
