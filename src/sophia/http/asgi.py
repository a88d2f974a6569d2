"""The same handlers behind ASGI: for requests that the fast server leaves, and other servers."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from sophia.core.errors import BodyTooLarge
from sophia.http.app import App, run_handler
from sophia.http.errors import send_error
from sophia.http.routes import Router
from sophia.http.wire import HttpRequest

AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]


class AsgiApp:
    """An ASGI application without a lifespan of its own: `app` is started and stopped outside."""

    def __init__(self, app: App, router: Router) -> None:
        self._app = app
        self._router = router

    async def __call__(self, scope: AsgiMessage, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        reply = _AsgiResponseWriter(send)
        try:
            body = await self._read_body(receive)
        except BodyTooLarge as error:
            await send_error(reply, error, self._app.new_request_id())
            return
        incoming = HttpRequest(
            method=scope["method"].encode(),
            path=scope.get("raw_path", scope["path"].encode()).decode("ascii", "replace"),
            query=scope["query_string"],
            headers=list(scope["headers"]),
            body=body,
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run_handler(self._app, self._router.find, incoming, reply))
            watch = group.create_task(_cancel_after_disconnect(task, receive))
            await asyncio.wait((task,))
            watch.cancel()

    async def _read_body(self, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                # The client is gone; half a body is treated as none.
                return b""
            body += message.get("body", b"")
            if len(body) > self._app.max_body_bytes:
                raise self._app.body_too_large()
            if not message.get("more_body"):
                return bytes(body)


async def _cancel_after_disconnect(task: asyncio.Task[None], receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()


class _AsgiResponseWriter:
    """Response writer that sends ASGI messages."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def send(self, status: int, headers: bytes, body: bytes) -> None:
        await self.begin(status, headers + b"content-length: %d\r\n" % len(body))
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, status: int, headers: bytes) -> None:
        pairs = [tuple(row.split(b": ", 1)) for row in headers.split(b"\r\n") if row]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})
