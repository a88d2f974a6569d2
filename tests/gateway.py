"""A whole Sophia with a scripted upstream, on real sockets, and a client that reads bytes."""

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import httptools
import uvicorn
from msgspec.structs import replace
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from sophia.adapters.store.driver import load_sqlite
from sophia.compose.keys import create_key
from sophia.compose.root import Sophia, compose
from sophia.config import CatalogueSettings, DeadlineSettings, PoolSettings, Settings
from sophia.core.calls import UpstreamCall, Usage
from sophia.core.money import nano_from_usd
from sophia.core.ports import Clock, DispatchedCall
from sophia.core.rows import AttemptOutcome
from sophia.http.asgi import AsgiApp
from sophia.http.connection import cut_late_connections
from sophia.http.native import build_protocol_class
from sophia.http.routes import Router
from sophia.sandbox import ScriptedUpstream

ServerKind = Literal["native", "asgi"]
RECONCILE_DELAYS = (0.01, 0.05, 0.1, 0.2)
Start = Callable[..., AbstractAsyncContextManager["Gateway"]]

MINI = "openai/gpt-4o-mini"
FLASH = "google/gemini-2.5-flash"
NEMO = "mistralai/mistral-nemo"
CODER = "qwen/qwen3-coder"
SONNET = "anthropic/claude-sonnet-4.5"
NO_TIMERS = CatalogueSettings(refresh_hours=0)
KNOWN_POOL = PoolSettings(follow_successors=False)
"""The pool that the tests name, whatever models the catalogue holds today."""
SHORT = DeadlineSettings(
    connect_s=1.0, content_s=0.4, whole_s=0.4, stall_s=0.3, total_s=5.0, request_s=5.0
)


def chat(model: str = MINI, text: str = "Why is the sky blue?", **more: Any) -> dict[str, Any]:
    """Return the body of a chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


@dataclass
class Answer:
    """A received answer: `complete` means that HTTP ended properly, `reset` that the socket broke."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    reset: bool = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, checked against the shape that every client can read."""
        error = self.json["error"]
        assert type(error["code"]) is int and error["code"] == self.status
        assert isinstance(error["message"], str) and error["message"]
        assert isinstance(error["type"], str) and "param" in error
        assert isinstance(error["metadata"]["error_type"], str)
        assert error["metadata"]["fault"] in ("caller", "policy", "upstream", "sophia")
        assert error["metadata"]["request_id"].startswith("req-")
        return dict(error)

    @property
    def data(self) -> list[str]:
        events = self.body.decode().split("\n\n")
        assert events[-1] == "", "the last event lacks its blank line"
        assert all(event.startswith("data: ") for event in events[:-1])
        return [event.removeprefix("data: ") for event in events[:-1]]

    @property
    def done(self) -> bool:
        return bool(self.data) and self.data[-1] == "[DONE]"

    @property
    def chunks(self) -> list[Any]:
        return [json.loads(data) for data in self.data if data != "[DONE]"]

    @property
    def text(self) -> str:
        if self.headers["content-type"] == "application/json":
            return str(self.json["choices"][0]["message"]["content"])
        choices = [choice for chunk in self.chunks for choice in chunk["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


class Client:
    """Sends requests, with a connection for each."""

    def __init__(self, port: int, key: str) -> None:
        self.port = port
        self.key = key

    async def chat(self, model: str = MINI, *, key: str | None = None, **fields: Any) -> Answer:
        """Ask for a chat completion."""
        return await self.post("/v1/chat/completions", chat(model, **fields), key=key)

    async def post(
        self,
        path: str,
        body: object,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Answer:
        """Post JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.send("POST", path, data, headers, key)

    async def get(
        self, path: str, headers: Mapping[str, str] | None = None, key: str | None = None
    ) -> Answer:
        return await self.send("GET", path, b"", headers, key)

    async def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Answer:
        """Send one request; `headers` replace the key unless they are None."""
        fields = {"Authorization": f"Bearer {key or self.key}"} if headers is None else headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        head = f"{method} {path} HTTP/1.1\r\nHost: sophia\r\n{lines}"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        return await self.raw(head.encode("latin-1") + body)

    async def raw(self, data: bytes, answer: Answer | None = None) -> Answer:
        """Send bytes and read one answer to its end, into `answer` as it comes."""
        answer = answer or Answer()
        async with self.connection(data) as reader:
            parser = httptools.HttpResponseParser(answer)
            try:
                while not answer.complete and (some := await reader.read(65536)):
                    parser.feed_data(some)
                    answer.status = parser.get_status_code()
            except ConnectionResetError:
                answer.reset = True
        return answer

    @asynccontextmanager
    async def connection(self, data: bytes) -> AsyncIterator[asyncio.StreamReader]:
        """Send bytes; leaving the context closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        writer.write(data)
        try:
            yield reader
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)

    def request(self, body: object, path: str = "/v1/chat/completions") -> bytes:
        """Return the bytes of a POST."""
        data = json.dumps(body).encode()
        return (
            f"POST {path} HTTP/1.1\r\nHost: sophia\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        ).encode() + data


class BrokenUpstream:
    """An upstream that fails at every call in a way that no caller foresees."""

    name = "broken"
    can_fetch_usage = False
    is_drained = False

    async def open(self, call: UpstreamCall) -> DispatchedCall:
        raise RuntimeError(f"no way to call {call.model}")

    async def get(self, path: str) -> bytes:
        raise RuntimeError(f"no way to get {path}")

    async def fetch_usage(self, generation_id: str) -> Usage | None:
        raise RuntimeError(f"no way to ask for {generation_id}")

    async def close(self) -> None:
        """Do nothing: there is no connection."""


@dataclass
class Gateway:
    """A running Sophia, its scripted upstream and a client for it."""

    sophia: Sophia
    up: ScriptedUpstream
    client: Client
    folder: Path

    async def rows(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of a ledger table once all of them are durable."""
        await self.sophia.store.attempts(0)
        connection = load_sqlite().connect(str(self.folder / "sophia.db"))
        try:
            cursor = connection.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]
        finally:
            connection.close()

    async def outcomes(self) -> list[AttemptOutcome]:
        """Return every outcome, oldest attempt first."""
        rows = [AttemptOutcome(**row) for row in await self.rows("outcomes")]
        return sorted(rows, key=lambda row: row.attempt_id)

    async def settled(self, count: int, seconds: float = 3.0) -> list[AttemptOutcome]:
        """Return the outcomes once there are `count` of them."""
        async with asyncio.timeout(seconds):
            while len(outcomes := await self.outcomes()) < count:
                await asyncio.sleep(0.01)
        return outcomes

    async def standing(self) -> tuple[float, float]:
        """Return (spent, held) of the first key in US dollars, from the API."""
        data = (await self.client.get("/v1/key")).json["data"]
        return data["usage"], data["held"]

    async def untouched(self) -> bool:
        """Return whether nothing was booked and nothing was sent upstream."""
        return not (self.up.requests or await self.rows("intents") or await self.rows("outcomes"))

    async def new_key(
        self,
        name: str = "other",
        scope: Literal["inference", "admin"] = "inference",
        *,
        daily: float | None = None,
        each: float | None = None,
        explores: bool = True,
    ) -> str:
        """Create another key, as the command line does; limits in US dollars."""
        token, row = create_key(
            self.folder,
            name,
            scope,
            daily_budget_nano=None if daily is None else nano_from_usd(daily),
            per_request_nano=None if each is None else nano_from_usd(each),
        )
        await self.sophia.store.add_key(replace(row, explores=explores))
        return token

    async def catch_up(self) -> None:
        """Reload the keys at once instead of when the timer does."""
        self.sophia.app.key_ring.replace(await self.sophia.store.keys())


@asynccontextmanager
async def serving(sophia: Sophia, kind: ServerKind) -> AsyncIterator[int]:
    """Serve on a free port of loopback with the fast server or through plain ASGI."""
    router = Router()
    native = build_protocol_class(sophia.app, router)
    config = uvicorn.Config(
        AsgiApp(sophia.app, router),
        http=native if kind == "native" else HttpToolsProtocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
    )
    config.load()
    state = ServerState()
    make = partial(config.http_protocol_class, config=config, server_state=state, app_state={})
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    sweep = asyncio.create_task(_sweep(state))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        sweep.cancel()
        server.close()
        for connection in tuple(state.connections):
            connection.transport.abort()
        await asyncio.gather(*state.tasks, return_exceptions=True)


async def _sweep(state: ServerState) -> None:
    """Check the deadlines of connections, more often than the server does."""
    for tick in itertools.count():
        await asyncio.sleep(0.005)
        cut_late_connections(state.connections, asyncio.get_running_loop().time(), tick)


@asynccontextmanager
async def running(
    folder: Path,
    kind: ServerKind,
    settings: Settings,
    up: ScriptedUpstream,
    clock: Clock | None = None,
    reconcile_delays: Sequence[float] = RECONCILE_DELAYS,
) -> AsyncIterator[Gateway]:
    """Compose and serve; a first key is created unless the folder has one already."""
    fresh = not (folder / "first.key").exists()
    environ = {"OPENROUTER_API_KEY": "sk-or-test", "OPENROUTER_BASE_URL": up.base_url}
    sophia = await compose(settings, environ, clock, reconcile_delays)
    try:
        if fresh:
            token, row = create_key(folder, "first")
            await sophia.store.add_key(row)
            (folder / "first.key").write_text(token)
            sophia.app.key_ring.replace(await sophia.store.keys())
        async with serving(sophia, kind) as port:
            client = Client(port, (folder / "first.key").read_text())
            yield Gateway(sophia, up, client, folder)
    finally:
        await sophia.close()


def prepare(folder: Path, template: Path) -> None:
    """Copy a migrated database, since migrating takes longer than most tests."""
    folder.mkdir(exist_ok=True)
    shutil.copy(template, folder / "sophia.db")
