"""The HTTP/1.1 client with upstreams that misbehave and callers that disconnect."""

import asyncio
import random

from http1_server import LIMIT, OK, Script, pooled, read_request, serving

from sophia.adapters.upstreams.http1.origin import PoolLimits
from sophia.adapters.upstreams.http1.pool import ConnectionPool
from sophia.core.calls import Deadlines
from sophia.core.failures import UpstreamFailure

SLOTS = 8
BEHAVIOURS = [
    OK,
    OK,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut",
    b"HTTP/1.1 200 OK\r\n\r\nto the end",
    b"nonsense\r\n",
    OK + b"surplus",
    b"HTTP/1.1 2",
    b"",
]


def misbehaving(source: random.Random) -> Script:
    """Answer correctly, wrongly, partly, late or never, and close at random."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            await read_request(reader)
            answer = source.choice(BEHAVIOURS)
            half = source.randrange(len(answer) + 1)
            writer.write(answer[:half])
            await asyncio.sleep(source.choice([0, 0, 0.001]))
            writer.write(answer[half:])
            if answer is not OK and source.random() < 0.7:
                writer.close()

    return script


async def _call(pool: ConnectionPool, source: random.Random) -> bytes | None:
    body = bytes(source.choice([0, 10, 200_000]))
    deadlines = Deadlines(content=source.choice([0.01, 0.1]), total=0.1)
    answer = await pool.send(b"POST", b"/", body, deadlines)
    if source.random() < 0.2:
        answer.close()
        return None
    return await answer.body(LIMIT)


async def test_every_slot_is_free_after_chaos() -> None:
    """Whatever happens to answers and callers, no slot is lost and no answer is another's."""
    source = random.Random(11)
    async with (
        serving(misbehaving(source)) as server,
        pooled(server, PoolLimits(max_connections=SLOTS, max_idle=3)) as pool,
    ):
        for _ in range(25):
            calls = [asyncio.create_task(_call(pool, source)) for _ in range(SLOTS)]
            await asyncio.sleep(source.choice([0, 0.001, 0.003]))
            for call in source.sample(calls, 2):
                call.cancel()
            for result in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(result, BaseException):
                    assert isinstance(result, (UpstreamFailure, asyncio.CancelledError))
                    assert "busy" not in str(result)
                else:
                    assert result in {None, b"ok", b"to the end", b""}
