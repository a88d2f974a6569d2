"""Questions between the workers of a data folder, over a Unix socket in each one's folder."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

Answers = Mapping[str, Callable[[], Awaitable[bytes]]]

_SOCKET = "control"
_ANSWER_SECONDS = 2.0


class Siblings:
    """The workers below `folder`, of which this one has `number`."""

    def __init__(self, folder: Path, number: int, answers: Answers) -> None:
        self._folder = folder
        self._number = number
        self._answers = answers
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Answer the questions of others."""
        path = self._folder / str(self._number) / _SOCKET
        path.unlink(missing_ok=True)
        with _ShortPath(path) as short:
            self._server = await asyncio.start_unix_server(self._answer, short)
        path.chmod(0o600)

    async def ask(self, question: str) -> dict[int, bytes]:
        """Return the answers of all workers that live, by number."""
        numbers = [int(path.parent.name) for path in self._folder.glob(f"*/{_SOCKET}")]
        answers = await asyncio.gather(*(self._ask_one(number, question) for number in numbers))
        found = dict(zip(numbers, answers, strict=True))
        found[self._number] = await self._answers[question]()
        return {number: found[number] for number in sorted(found) if found[number]}

    async def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()
        (self._folder / str(self._number) / _SOCKET).unlink(missing_ok=True)

    async def _ask_one(self, number: int, question: str) -> bytes:
        """Return a worker's answer, empty from one that is dead or does not answer in time."""
        if number == self._number:
            return b""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                with _ShortPath(self._folder / str(number) / _SOCKET) as short:
                    reader, writer = await asyncio.open_unix_connection(short)
                try:
                    writer.write(question.encode() + b"\n")
                    return await reader.read(-1)
                finally:
                    writer.close()
        return b""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                question = (await reader.readline()).decode("ascii", "replace").strip()
                if question in self._answers:
                    writer.write(await self._answers[question]())
                    await writer.drain()
        writer.close()


class _ShortPath:
    """A path by the descriptor of its folder, since a socket's path has at most 107 bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) <= 100:
            return str(self._path)
        self._descriptor = os.open(self._path.parent, os.O_RDONLY)
        return f"/proc/self/fd/{self._descriptor}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
