"""The HTTP/1.1 client against real servers on loopback: pool, bodies, deadlines, cancellation."""

import asyncio
import socket
import ssl
import struct

import pytest
from http1_server import (
    OK,
    PATIENT,
    answering,
    failing,
    pooled,
    post,
    read_request,
    serving,
)

from sophia.adapters.upstreams.http1 import Limits, Origin, Pool, Proxy, header_lines
from sophia.core.calls import Deadlines
from sophia.core.failures import FailureKind

PIPE_SIZE = 64 * 1024 * 1024


# What is sent.


async def test_the_request_holds_the_fixed_the_extra_and_the_body() -> None:
    """One request: path under the base path, Host, static and extra headers, length, body."""
    seen: list[tuple[bytes, bytes]] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(b"HTTP/1.1 201 Made\r\nX-Generation-Id: g1\r\nContent-Length: 0\r\n\r\n")

    async with serving(script) as server:
        pool = Pool(server.origin(), static_headers=(("Authorization", "Bearer k"),))
        extra = header_lines([("X-Title", "t")])
        answer = await pool.send(b"POST", b"/chat?a=b", b"{}", PATIENT, extra)
        assert (answer.status, await answer.body()) == (201, b"")
        assert answer.header(b"x-generation-id") == b"g1"
        assert answer.header(b"x-absent") is None
        await pool.close()
    host = b"127.0.0.1:%d" % server.port
    assert seen == [
        (
            b"POST /v1/chat?a=b HTTP/1.1\r\nHost: " + host + b"\r\nAuthorization: Bearer k\r\n"
            b"X-Title: t\r\nContent-Length: 2\r\n\r\n",
            b"{}",
        )
    ]


@pytest.mark.parametrize("path", [b"chat", b"/a b", b"/a\r\nX: y", b"/\0", b"/a#b", b"/\xff"])
async def test_a_path_cannot_break_the_request_apart(path: bytes) -> None:
    """A bad path is the caller's mistake, found before anything is sent."""
    pool = Pool(Origin.parse("http://127.0.0.1:9"))
    with pytest.raises(ValueError, match="path"):
        await pool.send(b"GET", path, None, PATIENT)


@pytest.mark.parametrize("lines", [b"A: b", b"A: b\r\n\r\n", b"A: b\r\n\r\nGET /\r\n", b"\0\r\n"])
async def test_extra_lines_cannot_end_the_head(lines: bytes) -> None:
    """Lines that were not made by header_lines are refused when they would end the head."""
    pool = Pool(Origin.parse("http://127.0.0.1:9"))
    with pytest.raises(ValueError, match="header lines"):
        await pool.send(b"GET", b"/", None, PATIENT, lines)


async def test_a_static_header_cannot_hold_a_line_break() -> None:
    """The message names the header and keeps the key."""
    with pytest.raises(ValueError, match="Authorization") as caught:
        Pool(Origin.parse("http://h"), static_headers=(("Authorization", "Bearer sk\r\n"),))
    assert "sk" not in str(caught.value)


async def test_a_large_request_body_arrives_whole_at_a_slow_reader() -> None:
    """Writing waits for the upstream's pace."""
    body = bytes(range(256)) * 32768

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: %d" % len(body) in head
        received = bytearray()
        while len(received) < len(body):
            received += await reader.read(300_000)
            await asyncio.sleep(0)
        writer.write(OK if received == body else b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    async with serving(script) as server, pooled(server) as pool:
        assert await post(pool, body) == b"ok"
        assert server.connections == 1


@pytest.mark.parametrize("framing", [b"Content-Length: 3\r\n", b""])
async def test_an_early_refusal_is_delivered_and_its_connection_dropped(framing: bytes) -> None:
    """An upstream may say 413 without reading the rest, and take its time to end the body."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\n" + framing + b"\r\nbig")
        await writer.drain()
        await asyncio.Event().wait()

    async with serving(script) as server, pooled(server) as pool:
        for expected in (1, 2):
            answer = await pool.send(b"POST", b"/chat", bytes(PIPE_SIZE), PATIENT)
            assert (answer.status, await answer.read()) == (413, b"big")
            assert server.connections == expected
            answer.close()


# The pool.


async def test_a_connection_is_used_again() -> None:
    """Keep-alive is the rule."""
    async with serving(answering(OK, OK, OK)) as server, pooled(server) as pool:
        assert [await post(pool) for _ in range(3)] == [b"ok"] * 3
        assert server.connections == 1


async def test_the_connection_used_last_is_taken_first() -> None:
    """LIFO lets what is not needed grow old."""
    numbers: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = server.connections
        while True:
            await read_request(reader)
            numbers.append(number)
            writer.write(OK)

    async with serving(script) as server, pooled(server) as pool:
        await asyncio.gather(post(pool), post(pool))
        del numbers[:]
        for _ in range(4):
            await post(pool)
        assert server.connections == 2
        assert len(set(numbers)) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"surplus",
    ],
)
async def test_a_connection_that_ends_is_not_used_again(answer: bytes) -> None:
    """Connection: close, HTTP/1.0 and surplus bytes each cost a new connection."""
    async with serving(answering(answer)) as server, pooled(server) as pool:
        assert [await post(pool), await post(pool)] == [b"ok", b"ok"]
        assert server.connections == 2


async def test_idle_connections_expire() -> None:
    """The pool closes what nobody needed for `idle_expiry` seconds."""
    async with (
        serving(answering(OK)) as server,
        pooled(server, Limits(idle_expiry=0.05)) as pool,
    ):
        await post(pool)
        await asyncio.wait_for(server.ended.wait(), 2)


async def test_no_more_idle_connections_are_kept_than_allowed() -> None:
    """`max_idle` bounds what lies about."""
    async with serving(answering(OK)) as server, pooled(server, Limits(max_idle=0)) as pool:
        await post(pool)
        await asyncio.wait_for(server.ended.wait(), 2)


async def test_bytes_nobody_asked_for_close_an_idle_connection() -> None:
    """An answer to a question not yet asked must not be taken for the next one's."""
    surplus = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        if server.connections == 1:
            await surplus.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    async with serving(script) as server, pooled(server) as pool:
        await post(pool)
        surplus.set()
        await asyncio.wait_for(server.ended.wait(), 2)
        assert await post(pool) == b"ok"
        assert server.connections == 2


async def test_a_stale_connection_is_replaced_silently_once() -> None:
    """The upstream closed while we were sending: nothing was read, so asking again is safe."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await read_request(reader)
        writer.close()

    async with serving(script) as server, pooled(server) as pool:
        assert [await post(pool), await post(pool)] == [b"ok", b"ok"]
        assert server.connections == 2


async def test_a_reused_connection_that_began_to_answer_is_not_retried() -> None:
    """One byte of an answer means that the request was read and may be billed."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await read_request(reader)
        writer.write(b"HTTP/1.1 2")
        writer.close()

    async with serving(script) as server, pooled(server) as pool:
        await post(pool)
        failure = await failing(post(pool))
        assert (failure.kind, failure.sent) == (FailureKind.RESET, True)
        assert server.connections == 1


async def test_a_reset_on_a_fresh_connection_is_a_failure() -> None:
    """Only the pool's own guess about a kept connection is corrected, nothing else."""
    async with serving(answering(b"", close=True)) as server, pooled(server) as pool:
        failure = await failing(post(pool))
        assert (failure.kind, failure.sent) == (FailureKind.RESET, True)
        assert server.connections == 1


@pytest.mark.parametrize(("wait", "requests"), [(0.0, 3), (0.3, 2)])
async def test_only_a_reset_at_once_on_a_reused_connection_is_retried(
    wait: float, requests: int
) -> None:
    """A later one may come from a server that has read the request, and bills it."""
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await read_request(reader))[1])
        writer.write(OK)
        seen.append((await read_request(reader))[1])
        await asyncio.sleep(wait)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with serving(script) as server, pooled(server) as pool:
        await post(pool, b"1")
        if wait:
            failure = await failing(post(pool, b"2"))
            assert (failure.kind, failure.sent) == (FailureKind.RESET, True)
        else:
            assert await post(pool, b"2") == b"ok"
        assert seen == [b"1", b"2", b"2"][:requests]


async def test_a_full_pool_fails_at_once() -> None:
    """Waiting in line is not the client's to decide."""
    async with (
        serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")) as server,
        pooled(server, Limits(max_connections=1)) as pool,
    ):
        answer = await pool.send(b"POST", b"/", b"", PATIENT)
        failure = await failing(post(pool))
        assert (failure.kind, failure.sent) == (FailureKind.POOL_EXHAUSTED, False)
        answer.close()
        answer.close()
        await asyncio.wait_for(server.ended.wait(), 2)
        assert (await pool.send(b"POST", b"/", b"", PATIENT)).status == 200


async def test_closing_the_pool_fails_what_is_under_way() -> None:
    """Nothing waits for an answer that cannot come."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        await reader.read()

    asked = asyncio.Event()
    async with serving(script) as server, pooled(server) as pool:
        asking = asyncio.ensure_future(failing(post(pool)))
        await asked.wait()
        await pool.close()
        assert (await asking).kind is FailureKind.RESET
        assert (await failing(post(pool))).sent is False


# What is read.


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


async def test_an_answer_to_head_has_no_body() -> None:
    """Whatever length it announces."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    async with serving(answering(answer)) as server, pooled(server) as pool:
        head = await pool.send(b"HEAD", b"/", None, PATIENT)
        assert (head.header(b"content-length"), await head.body()) == (b"99", b"")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", FailureKind.CUT),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", FailureKind.CUT),
        (b"HTTP/1.1 200 OK\r\nContent-", FailureKind.RESET),
        (b"220 smtp.example ESMTP\r\n", FailureKind.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", FailureKind.TOO_LARGE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"b" * 5000, FailureKind.TOO_LARGE),
    ],
)
async def test_a_broken_answer_is_named(answer: bytes, kind: FailureKind) -> None:
    """Cut, malformed and too large are different failures."""
    async with (
        serving(answering(answer, close=True)) as server,
        pooled(server, Limits(max_body_bytes=4000)) as pool,
    ):
        failure = await failing(post(pool))
        assert (failure.kind, failure.sent) == (kind, True)


async def test_what_came_before_a_cut_can_be_read() -> None:
    """A stream's beginning is worth having, and its missing end is told."""
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
    """At most the high-water mark and the kernel's buffers hold what nobody has read."""
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


# Clocks and cancellation.


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize(
    ("deadlines", "kind"),
    [
        (Deadlines(content=0.05), FailureKind.CONTENT_TIMEOUT),
        (Deadlines(total=0.05), FailureKind.TOTAL_TIMEOUT),
    ],
)
async def test_silence_runs_into_a_deadline(deadlines: Deadlines, kind: FailureKind) -> None:
    """The content clock covers the head, the total clock everything."""
    async with serving(_silent) as server, pooled(server) as pool:
        failure = await failing(post(pool, deadlines=deadlines))
        assert (failure.kind, failure.sent) == (kind, True)
        await asyncio.wait_for(server.ended.wait(), 2)


async def test_the_owner_sets_the_content_clock() -> None:
    """What counts as content is known to who reads it."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst"
    async with serving(answering(answer)) as server, pooled(server) as pool:
        stream = await pool.send(b"POST", b"/", b"", Deadlines(content=0.2))
        stream.expect_by(None, FailureKind.STALL)
        assert await stream.read() == b"first"
        stream.expect_by(asyncio.get_running_loop().time() + 0.07, FailureKind.STALL)
        assert (await failing(stream.read())).kind is FailureKind.STALL


async def test_a_cancelled_send_closes_the_socket_and_frees_its_slot() -> None:
    """A client that left must not leave a generation running."""
    async with serving(_silent) as server, pooled(server, Limits(max_connections=1)) as pool:
        for count in (1, 2):
            asking = asyncio.create_task(post(pool))
            while server.connections < count:
                await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.wait_for(server.ended.wait(), 2)
            server.ended.clear()


async def test_a_cancelled_read_closes_the_socket() -> None:
    """The same in the middle of a stream."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
    async with serving(answering(answer)) as server, pooled(server) as pool:
        stream = await pool.send(b"POST", b"/", b"", PATIENT)
        reading = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(server.ended.wait(), 2)


async def test_a_cancelled_upload_closes_the_socket() -> None:
    """The same while the request is still being written."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        begun.set()
        await gone.wait()

    begun, gone = asyncio.Event(), asyncio.Event()
    async with serving(script) as server, pooled(server, Limits(max_connections=1)) as pool:
        asking = asyncio.create_task(post(pool, bytes(PIPE_SIZE)))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        gone.set()
        await asyncio.wait_for(server.ended.wait(), 2)
        assert await _is_free(pool)


async def _is_free(pool: Pool) -> bool:
    return (await failing(post(pool, deadlines=Deadlines(content=0.01)))).kind is (
        FailureKind.CONTENT_TIMEOUT
    )


def tight(origin: Origin) -> Pool:
    """A pool of one, with its trust read before any clock runs."""
    trust = ssl.create_default_context()
    return Pool(origin, limits=Limits(max_connections=1), ssl_context=trust)


async def test_a_silent_handshake_runs_into_the_connect_deadline() -> None:
    """The connect clock covers TLS; nothing has been sent."""
    async with serving(_silent) as server:
        pool = tight(Origin("https", "127.0.0.1", server.port, ""))
        for _ in range(2):
            failure = await failing(post(pool, deadlines=Deadlines(connect=0.1)))
            assert (failure.kind, failure.sent) == (FailureKind.CONNECT_TIMEOUT, False)
            await asyncio.wait_for(server.ended.wait(), 2)
        await pool.close()


async def test_a_cancelled_connect_frees_its_slot() -> None:
    """Cancellation in the middle of a handshake closes the socket too."""
    async with serving(_silent) as server:
        pool = tight(Origin("https", "127.0.0.1", server.port, ""))
        asking = asyncio.create_task(post(pool))
        while not server.connections:
            await asyncio.sleep(0.001)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(server.ended.wait(), 2)
        failure = await failing(post(pool, deadlines=Deadlines(connect=0.05)))
        assert failure.kind is FailureKind.CONNECT_TIMEOUT
        await pool.close()


async def test_nobody_listening_is_refused() -> None:
    """The failure says where, and that nothing was sent."""
    async with serving(_silent) as server:
        port = server.port
    failure = await failing(post(Pool(Origin("http", "127.0.0.1", port, ""))))
    assert (failure.kind, failure.sent) == (FailureKind.REFUSED, False)
    assert str(port) in failure.message


async def test_a_name_that_cannot_exist_does_not_resolve() -> None:
    """Names are the DNS's failure, not the upstream's."""
    failure = await failing(post(Pool(Origin("http", "a..b", 80, ""))))
    assert (failure.kind, failure.sent) == (FailureKind.DNS, False)


# Through a proxy, in plain.


async def test_a_plain_origin_is_asked_of_the_proxy_in_absolute_form() -> None:
    """The proxy sees the whole URL and its own credentials."""
    heads: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await read_request(reader))[0])
        writer.write(OK)

    async with serving(script) as server:
        proxy = Proxy.parse(f"http://user:pw@127.0.0.1:{server.port}")
        pool = Pool(Origin.parse("http://upstream.example/v1"), proxy=proxy)
        assert await post(pool) == b"ok"
        await pool.close()
    assert heads == [
        b"POST http://upstream.example/v1/chat HTTP/1.1\r\nHost: upstream.example\r\n"
        b"Proxy-Authorization: Basic dXNlcjpwdw==\r\nContent-Length: 2\r\n\r\n"
    ]
