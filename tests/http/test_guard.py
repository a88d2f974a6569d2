"""The guard: heads that are refused, and upgrades that are ignored."""

import asyncio

import pytest
from guard_requests import BODY, CHUNKED, NATIVE, head, opened, refused

from gateway import MINI, NEMO, Gateway, Start, chat
from sophia.config import ServerSettings
from sophia.http.connection import find_network
from sophia.sandbox import ScriptStep


@pytest.mark.parametrize(
    ("host", "lines", "word"),
    [
        (None, (), "Host"),
        ("", (), "Host"),
        ("a b", (), "Host"),
        ("sophia/v1?", (), "Host"),
        ("user@sophia", (), "Host"),
        ("sophia:port", (), "Host"),
        ("[::1", (), "Host"),
        ("sophia", ("Host: sophia",), "host"),
        ("sophia", ("Host: other",), "host"),
    ],
)
async def test_a_request_has_exactly_one_valid_host(
    sophia: Gateway, host: str | None, lines: tuple[str, ...], word: str
) -> None:
    """A name that could be read in two ways is no name."""
    data = head(sophia.client.key, *lines, host=host) + BODY
    refused(await sophia.client.raw(data), 400, word)
    assert await sophia.untouched()


@pytest.mark.parametrize("host", ["sophia", "sophia:8080", "127.0.0.1:1", "[::1]:8080", "a_b.c-d."])
async def test_a_valid_host_is_served(sophia: Gateway, host: str) -> None:
    answer = await sophia.client.raw(head(sophia.client.key, host=host) + BODY)
    assert answer.status == 200


async def test_only_the_allowed_hosts_are_served(start: Start) -> None:
    """Health checks come under the address of the machine, whatever it is."""
    allowed = ServerSettings(allowed_hosts=("api.example.com", "*.example.org"))
    async with start(server=allowed) as gateway:
        key = gateway.client.key
        for host in ("api.example.com", "API.example.com:443", "a.b.example.org"):
            assert (await gateway.client.raw(head(key, host=host) + BODY)).status == 200
        for host in ("example.org", ".example.org", "evilexample.org", "api.example.com.evil"):
            answer = await gateway.client.raw(head(key, host=host) + BODY)
            refused(answer, 400, "server.allowed_hosts")
        for path, status in (("/health/live", 200), ("/health/ready", 200), ("/metrics", 400)):
            data = f"GET {path} HTTP/1.1\r\nHost: 10.0.0.7:8080\r\n\r\n".encode()
            assert (await gateway.client.raw(data)).status == status


@NATIVE
async def test_the_host_is_checked_again_when_it_changes(start: Start) -> None:
    """One connection may carry requests for several hosts, among them a health check."""
    async with (
        start(server=ServerSettings(allowed_hosts=("good",))) as gateway,
        opened(gateway) as (reader, writer),
    ):
        for host, path, status in (
            ("good", "/metrics", b"200"),
            ("evil", "/health/live", b"200"),
            ("evil", "/metrics", b"400"),
        ):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert status in await reader.readuntil(b"\r\n")
            rest = await reader.readuntil(b"\r\n\r\n")
            length = int(rest.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(length)


@pytest.mark.parametrize(
    ("lines", "body", "length"),
    [
        (("Transfer-Encoding: chunked",), CHUNKED, 5),
        (("Transfer-Encoding: gzip, chunked",), CHUNKED, None),
        (("Transfer-Encoding: identity",), BODY, None),
        (("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), CHUNKED, None),
        (("Content-Length: 5",), BODY, len(BODY)),
        ((f"Content-Length: {len(BODY)}",), BODY, len(BODY)),
    ],
)
async def test_the_end_of_a_body_is_named_in_one_way(
    sophia: Gateway, lines: tuple[str, ...], body: bytes, length: int | None
) -> None:
    """A proxy in front must not see other requests than Sophia does."""
    answer = await sophia.client.raw(head(sophia.client.key, *lines, length=length) + body)
    assert answer.status == 400
    assert await sophia.untouched()


@NATIVE
async def test_http_1_0_has_no_transfer_encoding(sophia: Gateway) -> None:
    """A proxy that knows HTTP/1.0 only takes the body for the next request."""
    data = head(sophia.client.key, "Transfer-Encoding: chunked", length=None, version="1.0")
    refused(await sophia.client.raw(data + CHUNKED), 400, "chunked")


@pytest.mark.parametrize(
    "target",
    [
        "/v1/../v1/models",
        "/v1/./models",
        "/v1/models/..",
        "/v1/%2e%2e/models",
        "/v1/%2E./models",
        "/v1/.%2e",
        "//v1/models",
        "/v1//models",
        "/v1%2fmodels",
        "/v1%2Fmodels",
        "/v1/models/a%2f..%2fb",
        "/v1\\models",
        "/v1%5cmodels",
        "/v1/models%00",
        "/v1/models%0d%0aX:y",
        "/v1/models%7f",
        "/v1/models%",
        "/v1/models%zz",
        "/v1/mod\xe9ls",
        "*",
    ],
)
async def test_a_path_has_one_spelling(sophia: Gateway, target: str) -> None:
    """Whatever stands in front and filters by path reads the same path."""
    data = f"GET {target} HTTP/1.1\r\nHost: sophia\r\n\r\n".encode("latin-1")
    answer = await sophia.client.raw(data)
    assert answer.status == 400


@NATIVE
async def test_a_target_has_no_fragment(sophia: Gateway) -> None:
    assert (await sophia.client.get("/v1/models#top")).status == 400


@pytest.mark.parametrize(
    "target",
    [
        f"/v1/models/{MINI}",
        f"/v1/models/{MINI.replace('/', '%2F')}",
        "/v1/models?limit=1&offset=0",
        "/api/v1/models/openai%2fgpt-4o-mini",
    ],
)
async def test_the_paths_of_clients_are_served(sophia: Gateway, target: str) -> None:
    """OpenAI's clients encode the slash in the id of a model."""
    assert (await sophia.client.get(target)).status == 200


@NATIVE
async def test_a_whole_url_as_target_names_the_host(start: Start) -> None:
    """RFC 9112, section 3.2.2: it takes precedence over the Host header."""
    async with start(server=ServerSettings(allowed_hosts=("good",))) as gateway:
        for named, status in (("good:80", 200), ("evil", 400)):
            data = f"GET http://{named}/metrics HTTP/1.1\r\nHost: good\r\n\r\n".encode()
            assert (await gateway.client.raw(data)).status == status


async def test_a_head_over_the_limits_is_refused(sophia: Gateway) -> None:
    """100 fields and 32 KiB."""
    many = [f"X-{number}: 1" for number in range(98)]
    for lines, status in (
        (many[:97], 200),
        (many, 431),
        (["X: " + "y" * 31_000], 200),
        (["X: " + "y" * 33_000], 431),
    ):
        data = head(sophia.client.key, *lines) + BODY
        answer = await sophia.client.raw(data)
        assert answer.status == status
        if status == 431:
            refused(answer, 431, "100 fields", "32,768 bytes")


@NATIVE
@pytest.mark.parametrize(
    ("start_line", "more"),
    [
        (b"GET /", b"x" * 1000),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"y" * 1000),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n" * 20),
    ],
    ids=["url", "header", "headers"],
)
@pytest.mark.parametrize("kept", [False, True])
async def test_a_head_without_end_is_cut_at_the_limit(
    sophia: Gateway, start_line: bytes, more: bytes, kept: bool
) -> None:
    """D10: the refusal does not wait for an end that never comes."""
    async with opened(sophia) as (reader, writer):
        if kept:
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readuntil(b'"live"}')
        writer.write(start_line)
        sent = 0
        while b"431" not in (seen := reader._buffer):
            writer.write(more)
            sent += len(more)
            await asyncio.sleep(0.001)
            assert sent < 64 * 1024, seen
        await reader.read(-1)


@NATIVE
@pytest.mark.parametrize("part", [b"5;" + b"e" * 1000, b"0\r\nX: " + b"y" * 1000])
async def test_what_frames_a_body_is_bounded_too(sophia: Gateway, part: bytes) -> None:
    """Chunk extensions and trailers are no body, and are not kept."""
    async with opened(sophia) as (reader, writer):
        writer.write(head(sophia.client.key, "Transfer-Encoding: chunked", length=None) + part)
        sent = 0
        while b"431" not in reader._buffer:
            writer.write(part[-1:] * 1000)
            sent += 1000
            await asyncio.sleep(0.001)
            assert sent < 64 * 1024


@NATIVE
async def test_trailers_are_not_taken_for_headers(sophia: Gateway) -> None:
    """A proxy checks the headers; what comes after the body must not change them."""
    data = head(sophia.client.key, "Transfer-Encoding: chunked", length=None)
    data += b"%x\r\n%b\r\n0\r\nX-Sophia-Max-Latency-Ms: wrong\r\n\r\n" % (len(BODY), BODY)
    assert (await sophia.client.raw(data)).status == 200


@NATIVE
async def test_many_requests_in_one_segment_are_no_long_head(sophia: Gateway) -> None:
    """Pipelined requests are counted one by one."""
    one = b"GET /health/live HTTP/1.1\r\nHost: sophia\r\nX: " + b"y" * 2000 + b"\r\n\r\n"
    async with opened(sophia) as (reader, writer):
        writer.write(one * 20 + one[:1000])
        for _ in range(20):
            await reader.readuntil(b'"live"}')
        writer.write(one[1000:])
        assert b" 200 " in await reader.readuntil(b"\r\n")


@NATIVE
@pytest.mark.parametrize(
    "upgrade",
    [
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
        ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: eA==", "Expect: none"),
    ],
)
@pytest.mark.parametrize("split", [0, 100, -len(BODY), -5])
async def test_an_upgrade_is_ignored(sophia: Gateway, upgrade: tuple[str, ...], split: int) -> None:
    """D15: Java's HttpClient offers HTTP/2 with every first request."""
    data = head(sophia.client.key, *upgrade) + BODY
    async with opened(sophia) as (reader, writer):
        writer.write(data[:split])
        await asyncio.sleep(0.02)
        writer.write(data[split:])
        assert b" 200 " in await reader.readuntil(b"\r\n")
        await reader.readuntil(b"}}")
        # The connection goes on in HTTP/1.1.
        writer.write(data)
        await reader.readuntil(b"HTTP/1.1 200")
    assert len(await sophia.settled(2)) == 2


@NATIVE
async def test_a_chunked_body_after_an_upgrade_is_read(sophia: Gateway) -> None:
    lines = ("Connection: upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked")
    data = head(sophia.client.key, *lines, length=None)
    assert (await sophia.client.raw(data + CHUNKED)).status == 200


async def test_no_tunnel_is_opened(sophia: Gateway) -> None:
    data = b"CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n"
    assert (await sophia.client.raw(data)).status == 400


@NATIVE
async def test_an_address_has_so_many_connections_only(start: Start) -> None:
    """One that closes makes room for the next."""
    async with start(server=ServerSettings(max_connections_per_address=2)) as gateway:
        async with opened(gateway), opened(gateway):
            answer = await gateway.client.get("/health/live")
            refused(answer, 429, "connections")
        await asyncio.sleep(0.02)
        assert (await gateway.client.get("/health/live")).status == 200


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
    ],
)
def test_the_addresses_of_one_subscriber_are_counted_together(address: str, network: str) -> None:
    assert find_network(address) == network


@NATIVE
async def test_a_page_of_an_allowed_origin_can_read_a_refusal(start: Start) -> None:
    """A browser shows its script nothing of an answer without the header."""
    async with start(server=ServerSettings(cors_origins=("https://app",))) as gateway:
        answer = await gateway.client.raw(head("sk-wrong", "Origin: https://app") + BODY)
        assert answer.status == 401
        assert answer.headers["access-control-allow-origin"] == "https://app"


@NATIVE
async def test_a_refusal_does_not_come_into_a_running_answer(sophia: Gateway) -> None:
    """The bytes of a stream are followed by its own, or by nothing."""
    sophia.up.script(MINI, ScriptStep(chunk_delay=0.01, text="word " * 300))
    async with opened(sophia) as (reader, writer):
        writer.write(sophia.client.request(chat(stream=True)))
        await reader.readuntil(b"data: ")
        writer.write(b"nonsense\r\n\r\n")
        assert b"HTTP/1.1" not in await reader.read(-1)


@NATIVE
async def test_pipelined_requests_are_checked_in_their_turn(sophia: Gateway) -> None:
    """The second is served over the slow path, with the same checks."""
    first = sophia.client.request(chat(NEMO))
    for second, status in (
        (sophia.client.request(chat()), b"200"),
        (head("sk-wrong") + BODY, b"401"),
        (head(sophia.client.key, host="a b") + BODY, b"400"),
        (head(sophia.client.key, length=10**12), b"413"),
    ):
        async with opened(sophia) as (reader, writer):
            writer.write(first + second)
            assert b" 200 " in await reader.readuntil(b"\r\n")
            await reader.readuntil(b"HTTP/1.1 " + status)
