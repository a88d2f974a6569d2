"""A raw HTTP client that shows an answer as it came, broken or not, and a few models."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httptools

from sophia.sandbox import ScriptedUpstream

PLAIN = "acme/plain"
THINKER = "acme/thinker"
SMALL = "acme/small"


def model(model_id: str, *, prompt: str, completion: str, **more: Any) -> dict[str, Any]:
    """Return a model object with prices in US dollars per token."""
    return {
        "id": model_id,
        "name": model_id,
        "context_length": 8192,
        "pricing": {"prompt": prompt, "completion": completion, "request": "0"},
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "top_provider": {"max_completion_tokens": None},
        "supported_parameters": ["max_tokens", "tools"],
        **more,
    }


MODELS = [
    model(PLAIN, prompt="0.00000015", completion="0.0000006"),
    model(THINKER, prompt="0.000003", completion="0.000015", supported_parameters=["reasoning"]),
    model(SMALL, prompt="0.00000000833333333333", completion="0.00000001", context_length=64),
]


def chat(model_id: str = PLAIN, text: str = "Why is the sky blue?", **more: Any) -> dict[str, Any]:
    """Return the body of a chat request."""
    return {"model": model_id, "messages": [{"role": "user", "content": text}], **more}


@dataclass
class Answer:
    """A received answer: `end` is complete, eof, reset or timeout; `broken` means invalid HTTP."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    end: str = "eof"
    broken: bool = False
    reads: list[bytes] = field(default_factory=list)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.end = "complete"

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[str]:
        return [line for line in self.body.decode().split("\n\n") if line]

    @property
    def data(self) -> list[str]:
        return [line.removeprefix("data: ") for line in self.lines if line.startswith("data: ")]

    @property
    def chunks(self) -> list[Any]:
        return [json.loads(data) for data in self.data if data != "[DONE]"]

    @property
    def text(self) -> str:
        choices = [choice for chunk in self.chunks for choice in chunk["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


class Client:
    """Sends requests to one sandbox, with a connection for each."""

    def __init__(self, up: ScriptedUpstream, tls: ssl.SSLContext | None = None) -> None:
        self.up = up
        self._tls = tls

    async def post(self, body: Any, path: str = "/api/v1/chat/completions", **how: Any) -> Answer:
        return await self.send("POST", path, json.dumps(body).encode(), **how)

    async def get(self, path: str, **how: Any) -> Answer:
        return await self.send("GET", path, b"", **how)

    async def send(
        self, method: str, path: str, body: bytes, key: str | None = "any", patience: float = 5.0
    ) -> Answer:
        """Send one request and read until the answer is complete or the connection ends."""
        answer = Answer()
        async with self.connection(method, path, body, key) as reader:
            parser = httptools.HttpResponseParser(answer)
            try:
                async with asyncio.timeout(patience):
                    await self._read(reader, parser, answer)
            except TimeoutError:
                answer.end = "timeout"
            except ConnectionResetError:
                answer.end = "reset"
            except httptools.HttpParserError:
                answer.broken = True
        return answer

    @asynccontextmanager
    async def connection(
        self, method: str, path: str, body: bytes, key: str | None = "any"
    ) -> AsyncIterator[asyncio.StreamReader]:
        """Send one request; yield the reader, and close the connection afterwards."""
        up = self.up
        reader, writer = await asyncio.open_connection(up.host, up.port, ssl=self._tls)
        head = f"{method} {path} HTTP/1.1\r\nHost: sandbox\r\nContent-Length: {len(body)}\r\n"
        head += f"Authorization: Bearer {key}\r\n" if key is not None else ""
        writer.write(head.encode() + b"\r\n" + body)
        try:
            yield reader
        finally:
            writer.close()

    @staticmethod
    async def _read(
        reader: asyncio.StreamReader, parser: httptools.HttpResponseParser, answer: Answer
    ) -> None:
        while answer.end != "complete" and (data := await reader.read(65536)):
            answer.reads.append(data)
            parser.feed_data(data)
            answer.status = parser.get_status_code()
