"""A connection that is fed a byte stream without sockets or a running loop."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from sophia.adapters.upstreams.http1.exchange import HttpConnection, HttpResponse
from sophia.adapters.upstreams.http1.origin import PoolLimits
from sophia.core.failures import FailureKind, UpstreamFailure


class SilentTransport(asyncio.Transport):
    """A transport that records everything and sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False
        self.paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class PlayedAnswer:
    """One answer as a caller of the client would have seen it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    complete: bool
    failure: FailureKind | None
    reusable: bool


def play(
    loop: asyncio.AbstractEventLoop,
    segments: Sequence[bytes],
    *,
    ended: bool = False,
    limits: PoolLimits | None = None,
) -> PlayedAnswer:
    """Answer one request with `segments`, then end the connection if `ended`."""
    limits = limits or PoolLimits()
    freed: list[HttpConnection] = []
    connection = HttpConnection(limits, freed.append, lambda _: None)
    connection.connection_made(SilentTransport())
    answer = HttpResponse(loop=loop, content_s=float("inf"), total_at=float("inf"))
    asking = connection.exchange(answer, b"POST / HTTP/1.1\r\n\r\n", None)
    head: asyncio.Future[None] = asking.send(None)
    for segment in segments:
        if connection.closed:
            break
        connection.data_received(segment)
    reusable = bool(freed) and not connection.closed
    if ended:
        connection.eof_received()
        connection.connection_lost(None)
    if not head.done():
        asking.close()
        return PlayedAnswer(
            status=0, headers=(), body=b"", complete=False, failure=None, reusable=reusable
        )
    return _seen(answer, asking, reusable)


def _seen(answer: HttpResponse, asking: Coroutine[Any, Any, None], reusable: bool) -> PlayedAnswer:
    body, complete, failure = b"", False, None
    try:
        _step(asking)
        while (data := _step(answer.read())) is not _PENDING and data is not None:
            body += data
        complete = data is None
    except UpstreamFailure as error:
        failure = error.kind
    headers = tuple(answer.headers) if answer.status else ()
    return PlayedAnswer(
        status=answer.status,
        headers=headers,
        body=body,
        complete=complete,
        failure=failure,
        reusable=reusable,
    )


_PENDING = object()


def _step(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run `coroutine` to its end, or to where it would wait for the network."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    return _PENDING
