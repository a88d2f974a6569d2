"""Requests as bytes, for the tests of the guard."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway import Answer, Gateway, chat

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
