"""Requests of the HTTP/1.1 client, as a server on loopback receives them."""

import asyncio

import pytest
from http1_server import LIMIT, OK, PATIENT, pooled, post, read_request, serving

from sophia.adapters.upstreams.http1.origin import HttpOrigin
from sophia.adapters.upstreams.http1.pool import ConnectionPool
from sophia.adapters.upstreams.http1.proxy import Proxy

PIPE_SIZE = 64 * 1024 * 1024


async def test_the_request_holds_the_static_headers_and_the_body() -> None:
    """One request: path under the base path, Host, static headers, length, body."""
    requests: list[tuple[bytes, bytes]] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        writer.write(b"HTTP/1.1 201 Made\r\nX-Generation-Id: g1\r\nContent-Length: 0\r\n\r\n")

    async with serving(script) as server:
        pool = ConnectionPool(server.origin(), static_headers=(("Authorization", "Bearer k"),))
        answer = await pool.send(b"POST", b"/chat?a=b", b"{}", PATIENT)
        assert (answer.status, await answer.body(LIMIT)) == (201, b"")
        assert answer.header(b"x-generation-id") == b"g1"
        assert answer.header(b"x-absent") is None
        await pool.close()
    host = b"127.0.0.1:%d" % server.port
    assert requests == [
        (
            b"POST /v1/chat?a=b HTTP/1.1\r\nHost: " + host + b"\r\nAuthorization: Bearer k\r\n"
            b"Content-Length: 2\r\n\r\n",
            b"{}",
        )
    ]


@pytest.mark.parametrize("path", [b"chat", b"/a b", b"/a\r\nX: y", b"/\0", b"/a#b", b"/\xff"])
async def test_a_path_cannot_break_the_request_apart(path: bytes) -> None:
    """A bad path is refused before anything is sent."""
    pool = ConnectionPool(HttpOrigin.parse("http://127.0.0.1:9"))
    with pytest.raises(ValueError, match="path"):
        await pool.send(b"GET", path, None, PATIENT)


async def test_a_static_header_cannot_hold_a_line_break() -> None:
    """The message names the header and keeps the key."""
    with pytest.raises(ValueError, match="Authorization") as caught:
        ConnectionPool(
            HttpOrigin.parse("http://h"), static_headers=(("Authorization", "Bearer sk\r\n"),)
        )
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


async def test_a_plain_origin_is_asked_of_the_proxy_in_absolute_form() -> None:
    """The proxy sees the whole URL and its own credentials."""
    heads: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await read_request(reader))[0])
        writer.write(OK)

    async with serving(script) as server:
        proxy = Proxy.parse(f"http://user:pw@127.0.0.1:{server.port}")
        pool = ConnectionPool(HttpOrigin.parse("http://upstream.example/v1"), proxy=proxy)
        assert await post(pool) == b"ok"
        await pool.close()
    assert heads == [
        b"POST http://upstream.example/v1/chat HTTP/1.1\r\nHost: upstream.example\r\n"
        b"Proxy-Authorization: Basic dXNlcjpwdw==\r\nContent-Length: 2\r\n\r\n"
    ]
