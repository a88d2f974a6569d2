"""Open a connection: TCP, through a proxy if there is one, then TLS."""

import asyncio
import re
import socket
import ssl

from sophia.adapters.upstreams.http1.exchange import HttpConnection
from sophia.adapters.upstreams.http1.origin import HttpOrigin, bracket_ipv6
from sophia.adapters.upstreams.http1.proxy import Proxy
from sophia.core.failures import FailureKind, UpstreamFailure

_MAX_TUNNEL_HEAD = 16384
_NOT_HTTP = "The proxy's answer is not valid HTTP/1.1."
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})")


async def open_connection(
    connection: HttpConnection, origin: HttpOrigin, proxy: Proxy | None, tls: ssl.SSLContext | None
) -> None:
    """Connect `connection` to `origin`. Raises UpstreamFailure with `sent=False`."""
    try:
        await _open(connection, origin, proxy, tls)
    except TimeoutError:
        raise
    except (OSError, UnicodeError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        kind, message = _explain(error, origin, proxy)
        raise UpstreamFailure(kind, message, sent=False) from error


async def _open(
    connection: HttpConnection, origin: HttpOrigin, proxy: Proxy | None, tls: ssl.SSLContext | None
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
        transport = await _open_tunnel(loop, origin, proxy)
        try:
            secured = await loop.start_tls(transport, connection, tls, server_hostname=origin.host)
        except BaseException:
            # A cancelled attempt included: nothing else knows this socket yet.
            transport.abort()
            raise
        if secured is None:
            raise ConnectionResetError
        connection.connection_made(secured)


async def _open_tunnel(
    loop: asyncio.AbstractEventLoop, origin: HttpOrigin, proxy: Proxy
) -> asyncio.Transport:
    reader = asyncio.StreamReader(_MAX_TUNNEL_HEAD)
    transport, _ = await loop.create_connection(
        lambda: asyncio.StreamReaderProtocol(reader), proxy.host, proxy.port
    )
    try:
        transport.write(_connect_request(origin, proxy))
        head = await reader.readuntil(b"\r\n\r\n")
        reader.feed_eof()
        status = _STATUS_LINE.match(head)
        if status is None or await reader.read():
            raise UpstreamFailure(FailureKind.MALFORMED, _NOT_HTTP, sent=False)
        if not status[1].startswith(b"2"):
            message = f"The proxy refused the tunnel: {status[1].decode()}."
            raise UpstreamFailure(FailureKind.REFUSED, message, sent=False)
    except BaseException:
        # As above.
        transport.abort()
        raise
    return transport


def _connect_request(origin: HttpOrigin, proxy: Proxy) -> bytes:
    target = f"{bracket_ipv6(origin.host)}:{origin.port}"
    secret = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{secret}\r\n".encode()


def _explain(error: Exception, origin: HttpOrigin, proxy: Proxy | None) -> tuple[FailureKind, str]:
    address = f"the proxy {proxy.host}:{proxy.port}" if proxy is not None else origin.authority
    match error:
        case ssl.SSLCertVerificationError():
            reason = f"The certificate of {origin.host} is refused: {error.verify_message}."
            return FailureKind.TLS, reason
        case ssl.SSLError():
            reason = getattr(error, "reason", None) or "the handshake failed"
            return FailureKind.TLS, f"TLS with {origin.host}: {reason}."
        case socket.gaierror() | UnicodeError():
            host = proxy.host if proxy is not None else origin.host
            return FailureKind.DNS, f"The name {host} does not resolve."
        case asyncio.LimitOverrunError():
            return FailureKind.MALFORMED, _NOT_HTTP
        case ConnectionResetError() | ConnectionAbortedError() | BrokenPipeError() | EOFError():
            return FailureKind.RESET, f"The connection to {address} ended while it was opened."
        case _:
            reason = getattr(error, "strerror", None) or "no address answered"
            return FailureKind.REFUSED, f"Cannot connect to {address}: {reason}."
