"""Responses to the HTTP/1.1 client: every kind of body, whole, cut and malformed."""

import asyncio
import socket
import struct

import pytest
from http1_server import OK, PATIENT, answering, failing, pooled, post, read_request, serving

from sophia.core.failures import FailureKind

PIPE_SIZE = 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.1 204 No\r\n\r\n", b""),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;ext=1\r\none\r\n3\r\ntwo\r\n0\r\nX-Sum: 1\r\n\r\n",
            b"onetwo",
        ),
    ],
)
async def test_every_kind_of_body_is_read(answer: bytes, body: bytes) -> None:
    """Interim answers are skipped; length, chunks, and the connection's end delimit bodies."""
    async with serving(answering(answer, close=True)) as server, pooled(server) as pool:
        assert await post(pool) == body


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", FailureKind.CUT),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", FailureKind.CUT),
        (b"HTTP/1.1 200 OK\r\nContent-", FailureKind.RESET),
        (b"220 smtp.example ESMTP\r\n", FailureKind.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", FailureKind.TOO_LARGE),
    ],
)
async def test_a_broken_answer_is_named(answer: bytes, kind: FailureKind) -> None:
    """Cut, malformed and too large are different failures."""
    async with serving(answering(answer, close=True)) as server, pooled(server) as pool:
        failure = await failing(post(pool))
        assert (failure.kind, failure.sent) == (kind, True)


async def test_a_body_is_bounded() -> None:
    """Each caller sets the bytes that it accepts."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"b" * 5000
    async with serving(answering(answer, answer)) as server, pooled(server) as pool:
        response = await pool.send(b"POST", b"/", b"", PATIENT)
        assert (await failing(response.body(4999))).kind is FailureKind.TOO_LARGE
        response = await pool.send(b"POST", b"/", b"", PATIENT)
        assert len(await response.body(5000)) == 5000


async def test_what_came_before_a_cut_can_be_read() -> None:
    """A stream's beginning is worth having, and its missing end is a failure."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"
    async with serving(answering(answer, close=True)) as server, pooled(server) as pool:
        stream = await pool.send(b"POST", b"/", b"", PATIENT)
        assert await stream.read() == b"short"
        assert (await failing(stream.read())).kind is FailureKind.CUT


async def test_a_reset_is_not_the_end_of_a_body_without_length() -> None:
    """Only an orderly close may end such a body."""
    begun = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nfirst")
        await begun.wait()
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with serving(script) as server, pooled(server) as pool:
        stream = await pool.send(b"POST", b"/", b"", PATIENT)
        assert await stream.read() == b"first"
        begun.set()
        assert (await failing(stream.read())).kind is FailureKind.CUT


async def test_an_unread_stream_stops_the_upstream() -> None:
    """At most the high-water mark and the kernel's buffers hold unread bytes."""
    written = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % PIPE_SIZE)
        while written < PIPE_SIZE:
            writer.write(bytes(65536))
            await writer.drain()
            written += 65536

    async with serving(script) as server, pooled(server) as pool:
        stream = await pool.send(b"POST", b"/", b"", PATIENT)
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.02)
        assert written < PIPE_SIZE // 2
        size = 0
        while (data := await stream.read()) is not None:
            size += len(data)
        assert size == PIPE_SIZE
