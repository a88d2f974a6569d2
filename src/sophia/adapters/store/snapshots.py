"""Snapshots as files in a folder: written whole or not at all, never changed."""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sophia.adapters.store.folder_lock import lock_file

_ID = re.compile(r"[0-9a-f]{64}")
_SUFFIX = ".snapshot"
_HISTORY = "history"
_PROMPTS = "prompts"


class SnapshotFolder:
    """Snapshots by id below `path`, and the history of those in service.

    Blobs are opaque here: an id is the blob's digest, checked when it is decoded. Every write is on
    disk when the call returns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def save(self, id: str, blob: bytes) -> None:
        """Write a snapshot; an existing one stays as it is.

        Raises ValueError when `id` is not 64 hexadecimal digits.
        """
        target = self._snapshot_path(id)
        if _read(target) != blob:
            self._write_durably(target, blob)

    def load(self, id: str) -> bytes | None:
        """Return a snapshot's bytes, or None when there is none of that id."""
        return _read(self._snapshot_path(id))

    def ids(self) -> Sequence[str]:
        """Return the ids of all snapshots, sorted."""
        names = (file.name.removesuffix(_SUFFIX) for file in self.path.glob(f"*{_SUFFIX}"))
        return sorted(name for name in names if _ID.fullmatch(name))

    def load_history(self) -> bytes | None:
        """Return the last saved history, or None before the first."""
        return _read(self.path / _HISTORY)

    def save_history(self, history: bytes) -> None:
        """Replace the history of snapshots in service; readers see the old or the new, whole."""
        self._write_durably(self.path / _HISTORY, history)

    def load_prompt_histories(self) -> bytes | None:
        """Return the last saved prompt histories, or None before the first."""
        return _read(self.path / _PROMPTS)

    def save_prompt_histories(self, blob: bytes) -> None:
        """Replace the histories of system prompts, readable by this user alone."""
        self._write_durably(self.path / _PROMPTS, blob)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to change the history, across threads and processes."""
        with (self.path / ".changing").open("ab") as lock:
            lock_file(lock, wait=True)
            yield

    def remove(self, id: str) -> None:
        """Delete a snapshot, if it exists."""
        self._snapshot_path(id).unlink(missing_ok=True)

    def _snapshot_path(self, id: str) -> Path:
        # Ids come from command lines; none may lead out of the folder.
        if not _ID.fullmatch(id):
            raise ValueError(f"{id!r} is not a snapshot's id: 64 hexadecimal digits")
        return self.path / f"{id}{_SUFFIX}"

    def _write_durably(self, target: Path, blob: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=self.path, prefix=".writing-")
        written = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(blob)
                file.flush()
                os.fsync(file.fileno())
            written.replace(target)
        except BaseException:
            # Whatever interrupts it: half a file must not stay.
            written.unlink(missing_ok=True)
            raise
        # The new file name must be durable too, not only its content.
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
