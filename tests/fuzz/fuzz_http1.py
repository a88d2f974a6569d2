"""Fuzz the HTTP/1.1 client with mutated responses: anything but a promised outcome is a crash.

python tests/fuzz/fuzz_http1.py --seconds 60 --seed 1
"""

import argparse
import asyncio
import random
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "property"))

from http1_stage import PlayedAnswer, play

from sophia.adapters.upstreams.http1.origin import PoolLimits

CORPUS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\nHTTP/1.1 429 Slow\r\nRetry-After: 1\r\n\r\nno",
    b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {}\n\ndata: [DONE]\n\n",
    b"HTTP/1.1 204 None\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n",
    b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
]
WORDS = [
    b"\r\n", b"\n", b"\r", b"\0", b"\r\n\r\n", b":", b" ", b"\t", b";", b",", b"0\r\n\r\n",
    b"HTTP/1.1 ", b"HTTP/2.0 200\r\n", b"Content-Length: 3\r\n", b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\n",
    b"ffffffffffffffff\r\n", b"-1\r\n", b"\xff\xfe", b"a" * 700,
]  # fmt: skip
LIMITS = PoolLimits(max_header_bytes=600, read_high_water=64, read_low_water=16)


def mutated(source: random.Random) -> bytes:
    """Return a response of the corpus with bytes changed, words inserted, parts cut or repeated."""
    data = bytearray(source.choice(CORPUS))
    for _ in range(source.randrange(6)):
        at = source.randrange(len(data) + 1)
        until = min(len(data), at + source.randrange(1, 20))
        match source.randrange(5):
            case 0:
                data[at:at] = source.choice(WORDS)
            case 1:
                del data[at:until]
            case 2:
                data[at:at] = data[at:until]
            case 3:
                data[at : at + 1] = bytes([source.randrange(256)])
            case _:
                data += source.choice(CORPUS)
    return bytes(data)


def segments(source: random.Random, stream: bytes) -> list[bytes]:
    """Return `stream` in pieces, as the network may deliver it."""
    size = source.choice([1, 2, 7, 50, 10_000])
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def find_problem(answer: PlayedAnswer, ended: bool) -> str | None:
    """Return the broken promise of a played answer, or None."""
    if answer.complete and answer.failure is not None:
        return "both complete and failed"
    if ended and not answer.complete and answer.failure is None:
        return "the connection ended and the caller still waits"
    if answer.reusable and not answer.complete:
        return "an unfinished connection went back to the pool"
    if answer.complete and not answer.status:
        return "complete without a status"
    return None


def execute(loop: asyncio.AbstractEventLoop, source: random.Random) -> str | None:
    """Run one mutated stream; return a report if it broke a promise."""
    stream, ended = mutated(source), source.random() < 0.7
    parts = segments(source, stream)
    try:
        answer = play(loop, parts, ended=ended, limits=LIMITS)
        problem = find_problem(answer, ended)
    except Exception:  # every exception that escapes is a finding
        problem = traceback.format_exc()
    return None if problem is None else f"{problem}\n  {ended=} {parts!r}"


def run(seconds: float, seed: int) -> int:
    """Fuzz for `seconds`, print progress, return the number of crashes."""
    source, loop = random.Random(seed), asyncio.new_event_loop()
    executions = crashes = 0
    end = time.monotonic() + seconds
    report_at = time.monotonic() + 10
    while (now := time.monotonic()) < end:
        for _ in range(100):
            executions += 1
            if (problem := execute(loop, source)) is not None:
                crashes += 1
                print(problem)
        if now > report_at:
            report_at = now + 10
            print(f"{executions} executions so far, {crashes} crashes", flush=True)
    loop.close()
    print(f"{executions} executions, {crashes} crashes")
    return crashes


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    sys.exit(1 if run(chosen.seconds, chosen.seed) else 0)
