"""Connections of the HTTP/1.1 client: kept, reused, replaced and limited."""

import asyncio
import socket
import struct

import pytest
from http1_server import OK, PATIENT, answering, failing, pooled, post, read_request, serving

from sophia.adapters.upstreams.http1.origin import PoolLimits
from sophia.core.failures import FailureKind


async def test_a_connection_is_used_again() -> None:
    """Keep-alive is the rule."""
    async with serving(answering(OK, OK, OK)) as server, pooled(server) as pool:
        assert [await post(pool) for _ in range(3)] == [b"ok"] * 3
        assert server.connections == 1


async def test_the_connection_used_last_is_taken_first() -> None:
    """LIFO lets surplus connections expire."""
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
    """The pool closes connections that were idle for `idle_expiry` seconds."""
    async with (
        serving(answering(OK)) as server,
        pooled(server, PoolLimits(idle_expiry=0.05)) as pool,
    ):
        await post(pool)
        await asyncio.wait_for(server.ended.wait(), 2)


async def test_no_more_idle_connections_are_kept_than_allowed() -> None:
    """`max_idle` bounds the idle connections."""
    async with serving(answering(OK)) as server, pooled(server, PoolLimits(max_idle=0)) as pool:
        await post(pool)
        await asyncio.wait_for(server.ended.wait(), 2)


async def test_unrequested_bytes_close_an_idle_connection() -> None:
    """Unrequested bytes must not be taken for the answer to the next request."""
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


async def test_a_stale_connection_is_told_and_the_next_call_gets_a_new_one() -> None:
    """The upstream closed while we were sending. It may have read the call, and bills it then."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await read_request(reader)
        writer.close()

    async with serving(script) as server, pooled(server) as pool:
        assert await post(pool) == b"ok"
        failure = await failing(post(pool))
        assert (failure.kind, failure.stale) == (FailureKind.RESET, True)
        assert await post(pool) == b"ok"
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
    """Only a request on a reused connection is retried."""
    async with serving(answering(b"", close=True)) as server, pooled(server) as pool:
        failure = await failing(post(pool))
        assert (failure.kind, failure.sent) == (FailureKind.RESET, True)
        assert server.connections == 1


@pytest.mark.parametrize(("wait", "stale"), [(0.0, True), (0.4, False)])
async def test_only_a_reset_at_once_on_a_reused_connection_may_be_repeated(
    wait: float, stale: bool
) -> None:
    """A later one may come from a server that has read the request, and bills it."""
    bodies: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append((await read_request(reader))[1])
        writer.write(OK)
        bodies.append((await read_request(reader))[1])
        await asyncio.sleep(wait)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with serving(script) as server, pooled(server) as pool:
        await post(pool, b"1")
        failure = await failing(post(pool, b"2"))
        assert (failure.kind, failure.sent) == (FailureKind.RESET, True)
        assert failure.stale is stale
        assert bodies == [b"1", b"2"]


async def test_a_full_pool_fails_at_once() -> None:
    """The client does not queue requests."""
    async with (
        serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")) as server,
        pooled(server, PoolLimits(max_connections=1)) as pool,
    ):
        answer = await pool.send(b"POST", b"/", b"", PATIENT)
        failure = await failing(post(pool))
        assert (failure.kind, failure.sent) == (FailureKind.POOL_EXHAUSTED, False)
        answer.close()
        answer.close()
        await asyncio.wait_for(server.ended.wait(), 2)
        assert (await pool.send(b"POST", b"/", b"", PATIENT)).status == 200


async def test_closing_the_pool_fails_what_is_under_way() -> None:
    """No caller waits for an answer that cannot come."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        await reader.read()

    arrived = asyncio.Event()
    async with serving(script) as server, pooled(server) as pool:
        asking = asyncio.ensure_future(failing(post(pool)))
        await arrived.wait()
        await pool.close()
        assert (await asking).kind is FailureKind.RESET
        assert (await failing(post(pool))).sent is False
