"""The guard: heads that are refused, the key before the body, and upgrades that are ignored."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway import MINI, NEMO, Answer, Gateway, Start, chat
from sophia.config import ServerSettings
from sophia.http.connection import find_network
from sophia.sandbox import ScriptStep
from sophia.tenants.keys import generate_key

NATIVE = pytest.mark.parametrize("server", ["native"])
BODY = json.dumps(chat()).encode()
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def head(
    key: str | None,
    *lines: str,
    target: str = "/v1/chat/completions",
    host: str | None = "sophia",
    length: int | None = len(BODY),
    version: str = "1.1",
) -> bytes:
    """Return the head of a POST."""
    named = [] if host is None else [f"Host: {host}"]
    named += [] if key is None else [f"Authorization: Bearer {key}"]
    named += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([f"POST {target} HTTP/{version}", *named, *lines, "", ""]).encode("latin-1")


@asynccontextmanager
async def opened(
    gateway: Gateway,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Yield an open connection, and fail if what is done with it takes long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.client.port)
    try:
        async with asyncio.timeout(5):
            yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


def refused(answer: Answer, status: int, *words: str) -> None:
    assert answer.status == status, answer
    assert answer.error["metadata"]["fault"] == "caller"
    assert all(word in answer.error["message"] for word in words), answer.error["message"]


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


async def test_the_key_is_checked_before_the_body(sophia: Gateway) -> None:
    """D10: the answer comes while nothing of the body has been sent, and the connection closes."""
    mistyped = f"{sophia.client.key[:-1]}x"
    unknown = generate_key(bytes(range(42)), "inference")
    for key in (None, "", "sk-wrong", mistyped, unknown):
        async with opened(sophia) as (reader, writer):
            writer.write(head(key, length=9_000_000))
            seen = await reader.read(-1)
            assert seen.startswith(b"HTTP/1.1 401") and b"connection: close" in seen
    assert await sophia.untouched()


async def test_a_key_of_another_owner_is_checked_before_the_body_too(sophia: Gateway) -> None:
    admin = await sophia.new_key(scope="admin")
    other = await sophia.new_key()
    await sophia.catch_up()
    both = (sophia.client.key, f"x-api-key: {other}")
    for data, status in (
        (head(admin, length=9_000_000), b"403"),
        (head(*both, length=9_000_000), b"400"),
    ):
        async with opened(sophia) as (reader, writer):
            writer.write(data)
            assert (await reader.read(-1)).startswith(b"HTTP/1.1 " + status)


async def test_a_length_over_the_limit_is_refused_at_once(sophia: Gateway) -> None:
    """D10: a terabyte that is announced need not be sent."""
    for length in (11_000_000, 10**12, 10**30):
        async with opened(sophia) as (reader, writer):
            writer.write(head(sophia.client.key, length=length))
            seen = await reader.read(-1)
            # The parser refuses a length of more than 64 bits.
            assert seen.startswith(b"HTTP/1.1 413" if length < 2**64 else b"HTTP/1.1 4"), seen


@NATIVE
async def test_a_refusal_is_read_by_a_client_that_goes_on_sending(sophia: Gateway) -> None:
    """Closed at once, the connection would be reset under the answer."""
    async with opened(sophia) as (reader, writer):
        writer.write(head("sk-wrong", length=5_000_000))
        for _ in range(50):
            writer.write(b"x" * 100_000)
            await asyncio.sleep(0)
        seen = await reader.read(-1)
    assert seen.startswith(b"HTTP/1.1 401") and seen.endswith(b"}")


async def test_a_key_that_was_just_created_works_while_its_body_arrives(sophia: Gateway) -> None:
    """The body waits until the keys have been read again."""
    key = await sophia.new_key()
    async with opened(sophia) as (reader, writer):
        writer.write(head(key) + BODY[:20])
        await asyncio.sleep(0.1)
        writer.write(BODY[20:])
        assert b" 200 " in await reader.readuntil(b"\r\n")
    (row,) = await sophia.settled(1)
    assert row.state == "settled"


@pytest.mark.parametrize(
    ("target", "status"),
    [("/health/live", b"405"), ("/v1/nothing", b"404"), ("/v1/chat/completions", b"401")],
)
async def test_a_body_without_a_key_is_not_kept(
    sophia: Gateway, server: str, target: str, status: bytes
) -> None:
    """D10: 200 of them filled two gigabytes."""
    length = 8_000_000
    async with opened(sophia) as (reader, writer):
        tracemalloc.start()
        writer.write(head(None, target=target, length=length))
        # Through ASGI the refused connection is closed at once.
        while length > 1_000 and not (status == b"401" and server == "asgi"):
            writer.write(bytes(100_000))
            length -= 100_000
            await writer.drain()
            await asyncio.sleep(0)
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert kept < 2_000_000
        assert status in await reader.readuntil(b"\r\n")


async def test_a_client_that_expects_continue_gets_it_with_a_key_only(sophia: Gateway) -> None:
    """RFC 9110, section 10.1.1: the body is not sent in vain."""
    for key, first in ((sophia.client.key, b"100"), ("sk-wrong", b"401")):
        async with opened(sophia) as (reader, writer):
            writer.write(head(key, "Expect: 100-continue"))
            assert first in await reader.readuntil(b"\r\n\r\n")
            if first == b"100":
                writer.write(BODY)
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


def nested(depth: int) -> bytes:
    """Return a chat body of that depth; the brackets of its text do not count."""
    text = json.dumps(chat(text='[{"\\' * 200 + "word " * 10))[:-1]
    return f'{text}, "metadata": {"[" * (depth - 1)}1{"]" * (depth - 1)}}}'.encode()


@pytest.mark.parametrize("padding", [0, 3_000])
async def test_a_body_nests_a_hundred_levels_and_no_more(sophia: Gateway, padding: int) -> None:
    """What Sophia forwards must not break the stack of a server behind it."""
    for depth, status in ((100, 200), (101, 400), (900, 400), (100_000, 400)):
        body = nested(depth).replace(b"word", b"word" + b" " * padding)
        answer = await sophia.client.post("/v1/chat/completions", body)
        assert answer.status == status, depth
        if status == 400:
            refused(answer, 400, "100 levels")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", '"openai/gpt-4o"'),
        ("models", '["openai/gpt-4o"]'),
        ("max_tokens", "5"),
        ("max_completion_tokens", "5"),
        ("user", '"u"'),
        ("stream", "false"),
        ("n", "1"),
        ("provider", "{}"),
        ("sophia", "{}"),
    ],
)
async def test_a_field_that_decides_is_not_repeated(sophia: Gateway, name: str, value: str) -> None:
    """A proxy that takes the first of them decides about another request than the one served."""
    plain = json.dumps(chat())[:-1]
    escaped = f"\\u{ord(name[0]):04x}{name[1:]}"
    for twice in (name, escaped):
        body = f'{plain}, "{name}": {value}, "{twice}": {value}}}'
        answer = await sophia.client.post("/v1/chat/completions", body.encode())
        refused(answer, 400, f"`{name}`")
        assert answer.error["param"] == name
    assert await sophia.untouched()


async def test_other_fields_may_be_repeated(sophia: Gateway) -> None:
    """The last one counts, as it always did; text that looks like a field is none."""
    body = json.dumps(chat(text='"model": "model" "user": 1, "user": 2'))[:-1]
    body += ', "top_k": 1, "top_k": 2, "metadata": {"model": 1, "user": 2}}'
    assert (await sophia.client.post("/v1/chat/completions", body.encode())).status == 200
    assert sophia.up.requests[-1].json()["top_k"] == 2


async def test_a_body_has_a_thousand_fields_and_no_more(sophia: Gateway) -> None:
    """Each costs time, in which nothing else is served."""
    for count, status in ((900, 200), (1_000, 400), (500_000, 400)):
        more = ", ".join(f'"x{number}": 1' for number in range(count))
        body = f"{json.dumps(chat())[:-1]}, {more}}}".encode()
        answer = await sophia.client.post("/v1/chat/completions", body)
        assert answer.status == status
    refused(answer, 400, "1,000 fields")
