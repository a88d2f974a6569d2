"""The functions that read bytes of strangers, each with the promises that any input must leave true.

A target takes one input and raises if a promise is broken. `TARGETS` has them by name.
"""

import asyncio
import json
import random
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "property"))

from http1_stage import PlayedAnswer, play

from shapes import REASONS, check_chunk
from sophia.adapters.upstreams.dialects import encode_openrouter
from sophia.adapters.upstreams.errors import find_error, parse_error_body
from sophia.adapters.upstreams.http1.origin import PoolLimits
from sophia.adapters.upstreams.json_text import decode_object, encode_repaired
from sophia.adapters.upstreams.sse import EventReader
from sophia.adapters.upstreams.stream import ChunkReader
from sophia.adapters.upstreams.whole import parse_whole_answer, to_stream_chunk
from sophia.core.calls import Deadlines, Endpoint, Fields, UpstreamCall
from sophia.core.errors import SophiaError
from sophia.core.failures import UpstreamFailure
from sophia.http.v1.decode import parse_request
from sophia.http.wire import HttpRequest
from sophia.serving.attempts.targets.classifier import classify
from sophia.serving.attempts.targets.failure_table import FAILURE_TABLE
from sophia.serving.attempts.targets.failures import (
    FailedAttempt,
    build_attempts_error,
    build_caller_error,
)
from sophia.tenants.keys import Principal

ENDPOINTS: tuple[Endpoint, ...] = ("chat/completions", "completions", "embeddings")
PRINCIPAL = Principal(
    key_id="k", name="n", scope="inference", daily_budget_nano=None, per_request_nano=None
)
LIMITS = PoolLimits(max_header_bytes=600, read_high_water=64, read_low_water=16)
LOOP = asyncio.new_event_loop()
CUTS = 12
SLOWEST_SECONDS, SECONDS_PER_BYTE = 1.0, 20e-6


class BrokenPromise(AssertionError):
    """An input for which a reader did something that it promises never to do."""


def require(kept: object, promise: str) -> None:
    """Raise BrokenPromise unless `kept`."""
    if not kept:
        raise BrokenPromise(promise)


def call_of(endpoint: Endpoint, fields: Fields | None = None) -> UpstreamCall:
    return UpstreamCall(
        request_id="req-1",
        endpoint=endpoint,
        model="acme/model",
        fields=fields or {},
        stream=True,
        deadlines=Deadlines(),
    )


def pieces_of(data: bytes) -> list[list[bytes]]:
    """Return `data` whole, and cut at places that follow from it, as a network may cut it."""
    source = random.Random(zlib.crc32(data))
    places = sorted(source.sample(range(len(data)), min(CUTS, len(data))))
    return [[data], [data[at:to] for at, to in pairwise([0, *places, len(data)])]]


@dataclass
class ReadStream:
    """All that was read of one stream."""

    payloads: list[bytes] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    failure: str | None = None
    end: tuple[object, ...] = ()


def read_stream(pieces: list[bytes], endpoint: Endpoint) -> ReadStream:
    """Read a stream as `StreamExchange` does, to its end or its failure."""
    events, reader, seen = EventReader(), ChunkReader(call_of(endpoint), "Up", 1), ReadStream()

    def read(payloads: list[bytes]) -> None:
        seen.payloads += payloads
        if seen.failure is None:
            seen.chunks += reader.read(payloads).chunks
            if reader.failure is not None:
                raise reader.failure

    for feed in [*(lambda piece=piece: events.feed(piece) for piece in pieces), None]:
        try:
            read(feed() if feed else [rest] if (rest := events.flush()) else [])
        except UpstreamFailure as failure:
            seen.failure = seen.failure or str(failure)
    seen.end = (reader.finish_reason, reader.done, reader.complete)
    return seen


def check_json(data: bytes) -> Any:
    """Return a chunk, decoded; it is one line of valid JSON."""
    require(b"\n" not in data and b"\r" not in data, f"a chunk is one line: {data!r}")
    return json.loads(data)


def fuzz_stream(data: bytes) -> None:
    """The same bytes give the same events and chunks, however they are cut."""
    for endpoint in ENDPOINTS[:2]:
        whole, cut = (read_stream(pieces, endpoint) for pieces in pieces_of(data))
        require(whole.payloads == cut.payloads, "payloads depend on the pieces")
        require(whole.failure == cut.failure, f"{whole.failure} or, in pieces, {cut.failure}")
        # What came before a failure may be held back with it.
        fewer = min(len(whole.chunks), len(cut.chunks)) if whole.failure else None
        require(whole.chunks[:fewer] == cut.chunks[:fewer], "chunks depend on the pieces")
        require(whole.failure or whole.end == cut.end, "the end depends on the pieces")
        for chunk in cut.chunks:
            check_chunk(check_json(chunk), chat=endpoint == "chat/completions")


def fuzz_whole(data: bytes) -> None:
    """A whole answer is brought into shape, also as a chunk, or fails."""
    for endpoint in ENDPOINTS:
        try:
            batch = parse_whole_answer(data, call_of(endpoint), "Up", 1)
            body = json.loads(batch.chunks[0])
            if endpoint == "embeddings":
                continue
            require(body["choices"] and isinstance(body["provider"], str), "choices, provider")
            for choice in body["choices"]:
                require(choice["finish_reason"] in REASONS | {"function_call"}, "finish_reason")
                require(type(choice["index"]) is int, "index")
            check_json(encode_repaired(to_stream_chunk(decode_object(batch.chunks[0]))))
        except UpstreamFailure:
            continue


def fuzz_error(data: bytes) -> None:
    """Any body of an error is a failure, and any failure an error that the caller can read."""
    status = (400, 401, 402, 403, 404, 413, 429, 500, 503, 529)[zlib.crc32(data) % 10]
    failure = parse_error_body(data, status)
    require(400 <= (failure.status or 0) < 600, f"status {failure.status}")
    require(failure.message.isprintable(), f"message {failure.message!r}")
    require(failure.retry_after is None or failure.retry_after >= 0, "retry_after")
    assert classify(failure) in FAILURE_TABLE
    for build in (build_attempts_error, build_caller_error):
        error = build([FailedAttempt("acme/model", "up", failure)])
        require(400 <= error.status < 600 and error.message, f"status {error.status}")
        check_json(encode_repaired({"message": error.message, "details": error.details}))
    try:
        find_error(decode_object(data))
    except UpstreamFailure:
        return


def fuzz_request(data: bytes) -> None:
    """A body is parsed, and can be sent on, or refused; lines of `x-sophia-` are its headers."""
    head, blank, body = data.partition(b"\n\n")
    if not (blank and head.startswith(b"x-sophia-")):
        head, body = b"", data
    lines = [line.partition(b":") for line in head.split(b"\n")]
    headers = [(name.strip().lower(), value.strip()) for name, _, value in lines]
    for endpoint in ENDPOINTS:
        incoming = HttpRequest(
            method=b"POST", path="/", query=b"", headers=headers, fields=dict(headers), body=body
        )
        try:
            request = parse_request(endpoint, incoming, 1, PRINCIPAL, 0.0, lambda name: name)
        except SophiaError as error:
            require(400 <= error.status < 500 and error.message, f"status {error.status}")
            continue
        except UnicodeDecodeError:
            # Open: `{"\xff":1, ...}`, the name of a field that is not UTF-8.
            continue
        require(request.model and request.prompt.utf8_bytes >= 0, "model and length")
        encode_openrouter(call_of(endpoint, request.fields), frozenset())


def find_problem(answer: PlayedAnswer, ended: bool) -> str | None:
    """Return the broken promise of a played HTTP answer, or None."""
    if answer.complete and answer.failure is not None:
        return "both complete and failed"
    if ended and not answer.complete and answer.failure is None:
        return "the connection ended and the caller still waits"
    if answer.reusable and not answer.complete:
        return "an unfinished connection went back to the pool"
    if answer.complete and not answer.status:
        return "complete without a status"
    return None


def fuzz_http1(data: bytes) -> None:
    """No bytes get anything but a promised outcome out of the HTTP/1.1 client."""
    for pieces in pieces_of(data):
        for ended in (False, True):
            answer = play(LOOP, pieces, ended=ended, limits=LIMITS)
            problem = find_problem(answer, ended)
            require(problem is None, f"{problem}, {ended=}")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "stream": fuzz_stream,
    "whole": fuzz_whole,
    "error": fuzz_error,
    "request": fuzz_request,
    "http1": fuzz_http1,
}
"""Each target by the name of its folder of seeds."""


def run_target(name: str, data: bytes) -> None:
    """Run a target on one input; raise if it breaks a promise or takes too long."""
    began = time.process_time()
    TARGETS[name](data)
    spent = time.process_time() - began
    bound = SLOWEST_SECONDS + SECONDS_PER_BYTE * len(data)
    require(spent < bound, f"{len(data)} bytes took {spent:.1f} s")
