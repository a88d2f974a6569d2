"""Snapshots as files in a folder: written whole or not at all, never changed."""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_ID = re.compile(r"[0-9a-f]{64}")
_SUFFIX = ".snapshot"
_HISTORY = "history"
_PROMPTS = "prompts"


class SnapshotFolder:
    """Keeps blobs by id below `path`, and which of them are in service.

    Nothing in here looks into a blob: its id says what it must hash to, and whoever decodes it
    checks that. Every write is on disk when the call returns.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)

    def save(self, id: str, blob: bytes) -> None:
        """Write a snapshot; one that is there already stays as it is.

        Raises ValueError when `id` is not 64 hexadecimal digits.
        """
        target = self._file(id)
        if not target.exists() or target.read_bytes() != blob:
            self._write(target, blob)

    def load(self, id: str) -> bytes | None:
        """Return a snapshot's bytes, or None when there is none of that id."""
        try:
            return self._file(id).read_bytes()
        except FileNotFoundError:
            return None

    def ids(self) -> Sequence[str]:
        """Return the ids of all snapshots, in the order of the alphabet."""
        names = (file.name.removesuffix(_SUFFIX) for file in self._path.glob(f"*{_SUFFIX}"))
        return sorted(name for name in names if _ID.fullmatch(name))

    def history(self) -> bytes | None:
        """Return what `record` wrote last, or None before that."""
        try:
            return (self._path / _HISTORY).read_bytes()
        except FileNotFoundError:
            return None

    def record(self, history: bytes) -> None:
        """Replace the history of what was in service: readers see the old or the new, whole."""
        self._write(self._path / _HISTORY, history)

    def prompts(self) -> bytes | None:
        """Return what `keep_prompts` wrote last, or None before that."""
        try:
            return (self._path / _PROMPTS).read_bytes()
        except FileNotFoundError:
            return None

    def keep_prompts(self, blob: bytes) -> None:
        """Replace what is known of system prompts, readable by this user alone."""
        self._write(self._path / _PROMPTS, blob)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Change what is in service while nobody else does, in this process or another."""
        with (self._path / ".changing").open("ab") as lock:
            try:
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
            except ImportError:
                pass  # Windows has no such lock; there, nobody waits.
            yield

    def remove(self, id: str) -> None:
        """Delete a snapshot, if it is there."""
        self._file(id).unlink(missing_ok=True)

    def _file(self, id: str) -> Path:
        # An id comes from a command line; it must not lead out of the folder.
        if not _ID.fullmatch(id):
            raise ValueError(f"{id!r} is not a snapshot's id: 64 hexadecimal digits")
        return self._path / f"{id}{_SUFFIX}"

    def _write(self, target: Path, blob: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=self._path, prefix=".writing-")
        written = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(blob)
                file.flush()
                os.fsync(file.fileno())
            written.replace(target)
        except BaseException:
            written.unlink(missing_ok=True)
            raise
        self._sync()

    def _sync(self) -> None:
        """Make the new name itself durable, not only what it stands for."""
        folder = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
