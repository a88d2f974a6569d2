"""Open a connection: TCP, through a proxy if there is one, then TLS; name what went wrong."""

import asyncio
import re
import socket
import ssl

from sophia.adapters.upstreams.http1.exchange import Connection
from sophia.adapters.upstreams.http1.origin import Origin, bracketed
from sophia.adapters.upstreams.http1.proxy import Proxy
from sophia.core.failures import FailureKind, UpstreamFailure

_MAX_TUNNEL_HEAD = 16384
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})")


async def dial(
    connection: Connection, origin: Origin, proxy: Proxy | None, tls: ssl.SSLContext | None
) -> None:
    """Connect `connection` to `origin`. Raises UpstreamFailure with `sent=False`."""
    try:
        await _open(connection, origin, proxy, tls)
    except ssl.SSLCertVerificationError as error:
        raise _failure(
            FailureKind.TLS, f"The certificate of {origin.host} is refused: {error.verify_message}."
        ) from error
    except (ssl.SSLError, ssl.CertificateError) as error:
        reason = getattr(error, "reason", None) or "the handshake failed"
        raise _failure(FailureKind.TLS, f"TLS with {origin.host}: {reason}.") from error
    except (socket.gaierror, UnicodeError) as error:
        host = proxy.host if proxy is not None else origin.host
        raise _failure(FailureKind.DNS, f"The name {host} does not resolve.") from error
    except TimeoutError:
        raise
    except OSError as error:
        raise _refusal(origin, proxy, error) from error


async def _open(
    connection: Connection, origin: Origin, proxy: Proxy | None, tls: ssl.SSLContext | None
) -> None:
    loop = asyncio.get_running_loop()
    if proxy is None:
        name = origin.host if tls is not None else None
        await loop.create_connection(
            lambda: connection, origin.host, origin.port, ssl=tls, server_hostname=name
        )
    elif tls is None:
        await loop.create_connection(lambda: connection, proxy.host, proxy.port)
    else:
        transport = await _tunnel(loop, origin, proxy)
        try:
            secured = await loop.start_tls(transport, connection, tls, server_hostname=origin.host)
        except BaseException:
            transport.abort()
            raise
        if secured is None:
            raise ConnectionResetError
        connection.connection_made(secured)


async def _tunnel(
    loop: asyncio.AbstractEventLoop, origin: Origin, proxy: Proxy
) -> asyncio.Transport:
    answer: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_connection(lambda: _Tunnel(answer), proxy.host, proxy.port)
    try:
        transport.write(_connect_request(origin, proxy))
        head = await answer
        status = _STATUS_LINE.match(head)
        if status is None:
            raise _failure(FailureKind.MALFORMED, "The proxy's answer is not valid HTTP/1.1.")
        if not status[1].startswith(b"2"):
            raise _failure(
                FailureKind.REFUSED, f"The proxy refused the tunnel: {status[1].decode()}."
            )
    except BaseException:
        transport.abort()
        raise
    return transport


def _connect_request(origin: Origin, proxy: Proxy) -> bytes:
    target = f"{bracketed(origin.host)}:{origin.port}"
    secret = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{secret}\r\n".encode()


class _Tunnel(asyncio.Protocol):
    """Waits for the head of a proxy's answer to CONNECT."""

    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self._answer = answer
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, end, rest = self._seen.partition(b"\r\n\r\n")
        if rest or len(self._seen) > _MAX_TUNNEL_HEAD:
            head, end = b"", b"\r\n\r\n"
        if end and not self._answer.done():
            self._answer.set_result(head)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(ConnectionResetError())


def _refusal(origin: Origin, proxy: Proxy | None, error: OSError) -> UpstreamFailure:
    there = f"the proxy {proxy.host}:{proxy.port}" if proxy is not None else origin.authority
    if isinstance(error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)):
        return _failure(FailureKind.RESET, f"The connection to {there} ended while it was opened.")
    reason = error.strerror or "no address answered"
    return _failure(FailureKind.REFUSED, f"Cannot connect to {there}: {reason}.")


def _failure(kind: FailureKind, message: str) -> UpstreamFailure:
    return UpstreamFailure(kind, message, sent=False)
