"""The same handlers behind ASGI, for what the fast server leaves and for other servers."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

from sophia.core.errors import BodyTooLarge
from sophia.http.front import Front, answer
from sophia.http.routes import Router
from sophia.http.wire import Incoming, Reply

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class App:
    """An ASGI application; the lifespan belongs to whoever composed `front`."""

    def __init__(self, front: Front, router: Router) -> None:
        self._front = front
        self._router = router

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        reply = _Reply(send)
        incoming = Incoming(
            scope["method"].encode(),
            scope.get("raw_path", scope["path"].encode()).decode("ascii", "replace"),
            scope["query_string"],
            list(scope["headers"]),
            b"",
        )
        body = await self._body(receive)
        if body is None:
            await answer(self._front, lambda *_: _too_large, incoming, reply)
            return
        incoming.body = body
        await _while_connected(answer(self._front, self._router.find, incoming, reply), receive)

    async def _body(self, receive: Receive) -> bytes | None:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                # Nobody is left to be answered, and half a body is none.
                return b""
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
            if size > self._front.max_body_bytes:
                return None
            if not message.get("more_body"):
                return b"".join(parts)


async def _while_connected(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Run `work` to its end; a client that leaves cancels it."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
    if not task.cancelled():
        task.result()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _too_large(front: Front, incoming: Incoming, reply: Reply) -> None:
    raise BodyTooLarge(f"The request body is over {front.max_body_bytes:,} bytes.")


class _Reply:
    """Writes an answer as ASGI messages."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = False

    async def whole(self, status: int, headers: bytes, body: bytes) -> None:
        length = b"content-length: %d\r\n" % len(body)
        await self.begin(status, headers + length)
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, status: int, headers: bytes) -> None:
        if self._begun:
            raise RuntimeError("the answer has begun already")
        self._begun = True
        pairs = [tuple(row.split(b": ", 1)) for row in headers.split(b"\r\n") if row]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})
