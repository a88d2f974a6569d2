"""The HTTP/1.1 client over TLS, directly and through a proxy's tunnel."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from http1_server import (
    OK,
    PATIENT,
    Script,
    Server,
    answering,
    failing,
    post,
    read_request,
    serving,
)

from sophia.adapters.upstreams.http1.origin import HttpOrigin, PoolLimits
from sophia.adapters.upstreams.http1.pool import ConnectionPool
from sophia.adapters.upstreams.http1.proxy import Proxy
from sophia.core.calls import Deadlines
from sophia.core.failures import FailureKind


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def presenting(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


def secure(server: Server, host: str = "localhost") -> HttpOrigin:
    return HttpOrigin("https", host, server.port, "/v1")


async def test_a_trusted_server_is_answered_and_kept(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    """TLS changes nothing but the price: keep-alive works and names are sent and checked."""
    names: list[str | None] = []
    context = presenting(authority.issue_cert("localhost"))
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    async with serving(answering(OK, OK), ssl=context) as server:
        pool = ConnectionPool(secure(server), ssl_context=trusting)
        assert [await post(pool), await post(pool, bytes(500_000))] == [b"ok", b"ok"]
        assert server.connections == 1
        await pool.close()
    assert names == ["localhost"]


async def test_an_address_is_checked_like_a_name(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    """A certificate may name an IP address."""
    context = presenting(authority.issue_cert("127.0.0.1"))
    async with serving(answering(OK), ssl=context) as server:
        pool = ConnectionPool(secure(server, "127.0.0.1"), ssl_context=trusting)
        assert await post(pool) == b"ok"
        await pool.close()


async def test_a_certificate_for_another_host_is_refused(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    """Nothing is sent to another host."""
    context = presenting(authority.issue_cert("other.example"))
    async with serving(answering(OK), ssl=context) as server:
        pool = ConnectionPool(
            secure(server), ssl_context=trusting, limits=PoolLimits(max_connections=1)
        )
        for _ in range(2):
            failure = await failing(post(pool))
            assert (failure.kind, failure.sent) == (FailureKind.TLS, False)
            assert "localhost" in failure.message
        await pool.close()


async def test_an_unknown_authority_is_refused() -> None:
    """By default the system's roots are trusted and no others."""
    context = presenting(trustme.CA().issue_cert("localhost"))
    async with serving(answering(OK), ssl=context) as server:
        pool = ConnectionPool(secure(server))
        failure = await failing(post(pool))
        assert (failure.kind, failure.sent) == (FailureKind.TLS, False)
        assert "certificate" in failure.message
        await pool.close()


async def test_an_expired_certificate_is_refused(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    """The message says that it expired."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    context = presenting(authority.issue_cert("localhost", not_after=yesterday))
    async with serving(answering(OK), ssl=context) as server:
        pool = ConnectionPool(secure(server), ssl_context=trusting)
        failure = await failing(post(pool))
        assert failure.kind is FailureKind.TLS
        assert "expired" in failure.message
        await pool.close()


async def test_a_server_without_tls_is_a_tls_failure(trusting: ssl.SSLContext) -> None:
    """An http port under an https URL is a common slip."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with serving(script) as server:
        pool = ConnectionPool(secure(server), ssl_context=trusting)
        failure = await failing(post(pool))
        assert (failure.kind, failure.sent) == (FailureKind.TLS, False)
        await pool.close()


async def test_a_cut_over_tls_is_a_cut(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    """Lengths are checked over TLS too."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"
    context = presenting(authority.issue_cert("localhost"))
    async with serving(answering(answer, close=True), ssl=context) as server:
        pool = ConnectionPool(secure(server), ssl_context=trusting)
        assert (await failing(post(pool))).kind is FailureKind.CUT
        await pool.close()


async def test_an_unread_stream_over_tls_arrives_whole(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    """Stopping and going on loses nothing between the TLS layer and the reader."""
    size = 16 * 1024 * 1024
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    context = presenting(authority.issue_cert("localhost"))
    async with serving(answering(answer), ssl=context) as server:
        pool = ConnectionPool(secure(server), ssl_context=trusting)
        stream = await pool.send(b"GET", b"/", None, PATIENT)
        (connection,) = pool._busy
        while not connection._reading_paused:
            await asyncio.sleep(0)
        first = await stream.read()
        assert first is not None
        assert len(first) < size // 4
        assert len(first) + len(await stream.body(size)) == size
        await pool.close()


# Through a proxy's tunnel.


def tunnelling(target_port: int, heads: list[bytes]) -> Script:
    """A proxy that connects every client to `target_port` on loopback."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await read_request(reader))[0])
        back, forth = await asyncio.open_connection("127.0.0.1", target_port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(pump(reader, forth), pump(back, writer))
        finally:
            forth.transport.abort()

    return script


async def test_https_goes_through_a_tunnel(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    """The proxy learns the host and its own credentials; TLS is with the upstream."""
    heads: list[bytes] = []
    context = presenting(authority.issue_cert("upstream.example"))
    async with (
        serving(answering(OK, OK), ssl=context) as server,
        serving(tunnelling(server.port, heads)) as middle,
    ):
        pool = ConnectionPool(
            HttpOrigin.parse("https://upstream.example/v1"),
            ssl_context=trusting,
            proxy=Proxy.parse(f"http://user:pw@127.0.0.1:{middle.port}"),
        )
        assert [await post(pool), await post(pool)] == [b"ok", b"ok"]
        await pool.close()
    assert heads == [
        b"CONNECT upstream.example:443 HTTP/1.1\r\nHost: upstream.example:443\r\n"
        b"Proxy-Authorization: Basic dXNlcjpwdw==\r\n\r\n"
    ]


async def test_the_certificate_is_checked_through_a_tunnel(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    """A proxy cannot stand in for the upstream."""
    context = presenting(authority.issue_cert("proxy.example"))
    async with (
        serving(answering(OK), ssl=context) as server,
        serving(tunnelling(server.port, [])) as middle,
    ):
        pool = ConnectionPool(
            HttpOrigin.parse("https://upstream.example"),
            ssl_context=trusting,
            proxy=Proxy("127.0.0.1", middle.port),
        )
        failure = await failing(post(pool))
        assert (failure.kind, failure.sent) == (FailureKind.TLS, False)
        await pool.close()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", FailureKind.REFUSED),
        (b"HTTP/1.1 200 OK\r\n\r\nsurplus", FailureKind.MALFORMED),
        (b"nonsense\r\n\r\n", FailureKind.MALFORMED),
        (b"", FailureKind.RESET),
    ],
)
async def test_a_refused_tunnel_is_named(
    trusting: ssl.SSLContext, answer: bytes, kind: FailureKind
) -> None:
    """The proxy's refusal is reported without its credentials; nothing has been sent."""
    async with serving(answering(answer, close=True)) as middle:
        proxy = Proxy.parse(f"http://user:secret@127.0.0.1:{middle.port}")
        pool = ConnectionPool(
            HttpOrigin.parse("https://upstream.example"), ssl_context=trusting, proxy=proxy
        )
        failure = await failing(post(pool))
        assert (failure.kind, failure.sent) == (kind, False)
        assert "secret" not in str(failure)
        await pool.close()


async def test_a_silent_proxy_runs_into_the_connect_deadline(trusting: ssl.SSLContext) -> None:
    """The connect deadline covers the tunnel."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(script) as middle:
        proxy = Proxy("127.0.0.1", middle.port)
        pool = ConnectionPool(
            HttpOrigin.parse("https://upstream.example"), ssl_context=trusting, proxy=proxy
        )
        failure = await failing(post(pool, deadlines=Deadlines(connect=0.1)))
        assert (failure.kind, failure.sent) == (FailureKind.CONNECT_TIMEOUT, False)
        await asyncio.wait_for(middle.ended.wait(), 2)
        await pool.close()


async def test_a_tunnel_is_closed_when_tls_cannot_begin(trusting: ssl.SSLContext) -> None:
    """No connection outlives its failure, not even one for a name that is too long for TLS."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

    async with serving(script) as middle:
        pool = ConnectionPool(
            HttpOrigin.parse("https://" + ".".join(["x" * 63] * 5)),
            ssl_context=trusting,
            proxy=Proxy("127.0.0.1", middle.port),
        )
        failure = await failing(post(pool))
        assert (failure.kind, failure.sent) == (FailureKind.TLS, False)
        await asyncio.wait_for(middle.ended.wait(), 2)
        await pool.close()
