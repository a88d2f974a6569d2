"""HTTP features of the client: HTTP/1.0, and several requests at a time."""

import asyncio
import socket
import struct
import time

import pytest

from gateway import MINI, NEMO, Gateway, chat
from sophia.sandbox import ScriptStep


@pytest.mark.parametrize("server", ["native"])
async def test_an_http_1_0_client_gets_its_stream_without_chunks(sophia: Gateway) -> None:
    """It knows no chunked framing: the end of the connection is the end of the answer."""
    request = sophia.client.request(chat(stream=True)).replace(
        b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1
    )
    async with sophia.client.connection(request) as reader:
        async with asyncio.timeout(3):
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0] and b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert body.startswith(b"data: {") and body.endswith(b"\n\ndata: [DONE]\n\n")


async def test_a_request_in_line_does_not_keep_the_first_one_alive(sophia: Gateway) -> None:
    """The client leaves while its first answer streams and its second request waits."""
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    sophia.up.script(MINI, ScriptStep(chunk_delay=0.01, text="word " * 300))
    first, second = (sophia.client.request(chat(model, stream=True)) for model in (MINI, NEMO))
    async with sophia.client.connection(first + second) as reader:
        await reader.readuntil(b"data: ")
        await asyncio.sleep(0.02)
    async with asyncio.timeout(1):
        while not sophia.up.requests[0].aborted:
            await asyncio.sleep(0.005)
    (row,) = await sophia.settled(1)
    assert row.failure == "client_gone"
    models = [seen.json()["model"] for seen in sophia.up.requests if seen.method == "POST"]
    assert models == [MINI] and not errors


async def test_clients_who_reset_requests_in_line_leave_no_traceback(
    sophia: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    data = sophia.client.request(chat("nope")) * 3
    linger = struct.pack("ii", 1, 0)

    def leave(number: int) -> None:
        with socket.create_connection(("127.0.0.1", sophia.client.port)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            sock.sendall(data)
            time.sleep(number % 4 / 1000)

    loop = asyncio.get_running_loop()
    for _ in range(80):
        await asyncio.gather(*[loop.run_in_executor(None, leave, n) for n in range(10)])
    assert "Traceback" not in caplog.text, caplog.text[:2000]
