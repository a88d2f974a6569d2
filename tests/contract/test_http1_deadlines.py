"""Deadlines and cancellation of the HTTP/1.1 client, and connections that cannot be opened."""

import asyncio
import ssl

import pytest
from http1_server import PATIENT, answering, failing, pooled, post, serving

from sophia.adapters.upstreams.http1.origin import HttpOrigin, PoolLimits
from sophia.adapters.upstreams.http1.pool import ConnectionPool
from sophia.core.calls import Deadlines
from sophia.core.failures import FailureKind

PIPE_SIZE = 64 * 1024 * 1024


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
    """The content deadline covers the head, the total deadline everything."""
    async with serving(_silent) as server, pooled(server) as pool:
        failure = await failing(post(pool, deadlines=deadlines))
        assert (failure.kind, failure.sent) == (kind, True)
        await asyncio.wait_for(server.ended.wait(), 2)


async def test_the_reader_sets_the_content_deadline() -> None:
    """Only the reader of a stream can recognise its content."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst"
    async with serving(answering(answer)) as server, pooled(server) as pool:
        stream = await pool.send(b"POST", b"/", b"", Deadlines(content=0.2))
        stream.expect_within(5, FailureKind.STALL)
        assert await stream.read() == b"first"
        stream.expect_within(0.07, FailureKind.STALL)
        assert (await failing(stream.read())).kind is FailureKind.STALL


async def test_a_cancelled_send_closes_the_socket_and_frees_its_slot() -> None:
    """A client that disconnects must not leave a generation running."""
    async with serving(_silent) as server, pooled(server, PoolLimits(max_connections=1)) as pool:
        for _ in range(2):
            asking = asyncio.create_task(post(pool))
            await server.accepted.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.wait_for(server.ended.wait(), 2)
            server.accepted.clear()
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
    async with serving(script) as server, pooled(server, PoolLimits(max_connections=1)) as pool:
        asking = asyncio.create_task(post(pool, bytes(PIPE_SIZE)))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        gone.set()
        await asyncio.wait_for(server.ended.wait(), 2)
        assert await _is_free(pool)


async def _is_free(pool: ConnectionPool) -> bool:
    return (await failing(post(pool, deadlines=Deadlines(content=0.01)))).kind is (
        FailureKind.CONTENT_TIMEOUT
    )


def tight(origin: HttpOrigin) -> ConnectionPool:
    """Return a pool of one connection, with its trusted roots read before any deadline runs."""
    trust = ssl.create_default_context()
    return ConnectionPool(origin, limits=PoolLimits(max_connections=1), ssl_context=trust)


async def test_a_silent_handshake_runs_into_the_connect_deadline() -> None:
    """The connect deadline covers TLS; nothing has been sent."""
    async with serving(_silent) as server:
        pool = tight(HttpOrigin("https", "127.0.0.1", server.port, ""))
        for _ in range(2):
            failure = await failing(post(pool, deadlines=Deadlines(connect=0.1)))
            assert (failure.kind, failure.sent) == (FailureKind.CONNECT_TIMEOUT, False)
            await asyncio.wait_for(server.ended.wait(), 2)
        await pool.close()


async def test_a_cancelled_connect_frees_its_slot() -> None:
    """Cancellation in the middle of a handshake closes the socket too."""
    async with serving(_silent) as server:
        pool = tight(HttpOrigin("https", "127.0.0.1", server.port, ""))
        asking = asyncio.create_task(post(pool))
        await server.accepted.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(server.ended.wait(), 2)
        failure = await failing(post(pool, deadlines=Deadlines(connect=0.05)))
        assert failure.kind is FailureKind.CONNECT_TIMEOUT
        await pool.close()


async def test_a_closed_port_is_refused() -> None:
    """The failure names the address, and nothing was sent."""
    async with serving(_silent) as server:
        port = server.port
    failure = await failing(post(ConnectionPool(HttpOrigin("http", "127.0.0.1", port, ""))))
    assert (failure.kind, failure.sent) == (FailureKind.REFUSED, False)
    assert str(port) in failure.message


async def test_a_name_that_cannot_exist_does_not_resolve() -> None:
    """A failure of DNS is not one of the upstream."""
    failure = await failing(post(ConnectionPool(HttpOrigin("http", "a..b", 80, ""))))
    assert (failure.kind, failure.sent) == (FailureKind.DNS, False)
