"""The guard: the key and the length before the body, and JSON that is bounded."""

import asyncio
import json
import tracemalloc

import pytest
from guard_requests import BODY, NATIVE, head, opened, refused

from gateway import Gateway, chat
from sophia.tenants.keys import generate_key


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
