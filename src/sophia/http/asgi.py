"""The same handlers behind ASGI: for requests that the fast server leaves, and other servers."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from sophia.core.errors import SophiaError
from sophia.http.app import App, run_handler
from sophia.http.errors import send_error
from sophia.http.guard import build_body_error, check_framing, check_host, check_size, split_target
from sophia.http.routes import PROBES, Router
from sophia.http.wire import HttpRequest

AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]


class AsgiApp:
    """An ASGI application without a lifespan of its own: `app` is started and stopped outside.

    The deadlines of a connection are those of the server around it.
    """

    def __init__(self, app: App, router: Router) -> None:
        self._app = app
        self._router = router

    async def __call__(self, scope: AsgiMessage, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        reply = _AsgiResponseWriter(send, scope.get("http_version", "1.1"))
        try:
            incoming = self._read_head(scope)
        except SophiaError as error:
            with suppress(asyncio.CancelledError):
                await send_error(reply, error, self._app.new_request_id())
            return
        route = self._router.find(incoming.method, incoming.path)
        async with asyncio.TaskGroup() as group:
            watches = []

            async def receive_body() -> bytes:
                body = await self._read_body(receive, kept=route.needs_key)
                reply.is_received = True
                watches.append(group.create_task(_cancel_after_disconnect(task, receive)))
                return body

            task = group.create_task(run_handler(self._app, route, incoming, reply, receive_body))
            await asyncio.wait((task,))
            for watch in watches:
                watch.cancel()

    def _read_head(self, scope: AsgiMessage) -> HttpRequest:
        """Return the request without its body. Raises SophiaError."""
        server, version = self._app.server, scope.get("http_version", "1.1")
        headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        target = scope.get("raw_path") or scope["path"].encode()
        fields = dict(headers)
        check_size(target, headers)
        check_framing(headers, fields, version, server.max_body_bytes)
        _, path, _ = split_target(target, self._router.id_stems)
        allowed = () if path in PROBES else server.allowed_hosts
        check_host(fields.get(b"host"), version, allowed)
        return HttpRequest(
            method=scope["method"].encode(),
            path=path,
            query=scope["query_string"],
            headers=headers,
            fields=fields,
        )

    async def _read_body(self, receive: Receive, *, kept: bool) -> bytes:
        body, size, limit = bytearray(), 0, self._app.server.max_body_bytes
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                # The client is gone; half a body is treated as none.
                return b""
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise build_body_error(limit)
            if kept:
                body += part
            if not message.get("more_body"):
                return bytes(body)


async def _cancel_after_disconnect(task: asyncio.Task[None], receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()


class _AsgiResponseWriter:
    """Response writer that sends ASGI messages."""

    def __init__(self, send: Send, version: str) -> None:
        self._send_message = send
        self._version = version
        self.is_received = False

    async def send(self, status: int, headers: bytes, body: bytes) -> None:
        if not self.is_received and self._version.startswith("1"):
            # The rest of the request must not be taken for the next one.
            headers += b"connection: close\r\n"
        await self.begin(status, headers + b"content-length: %d\r\n" % len(body))
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, status: int, headers: bytes) -> None:
        pairs = [tuple(row.split(b": ", 1)) for row in headers.split(b"\r\n") if row]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def _send(self, message: AsgiMessage) -> None:
        try:
            await self._send_message(message)
        except RuntimeError as error:
            # uvloop's, between the loss of a connection and its report.
            if "closed" not in str(error):
                raise
            raise asyncio.CancelledError from error
