"""Numbers of the processes that serve from a data folder, each with a journal of its own."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sophia.adapters.store.folder_lock import is_locked, lock_file
from sophia.adapters.store.journaling.files import list_segments
from sophia.core.errors import ConfigError
from sophia.core.ids import MAX_WORKERS

JOURNALS_FOLDER = "journal"
_LOCK = "lock"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(slots=True)
class WorkerSlot:
    """A worker's number, the folder of its journal, and the lock by which others know it lives.

    `survived_boot` is whether the machine has not been started again since the slot was taken
    before: the records of a killed process are still there then.
    """

    number: int
    folder: Path
    survived_boot: bool
    _lock: IO[bytes]

    def begin(self) -> None:
        """Note that a worker of this start of the machine uses the slot."""
        self._lock.truncate(0)
        self._lock.write(_read_boot_id())
        self._lock.flush()
        os.fsync(self._lock.fileno())
        self.survived_boot = True

    def release(self) -> None:
        """Free the number."""
        self._lock.close()


def claim_slot(data: Path) -> WorkerSlot:
    """Take the lowest free number. Raises ConfigError when there is none."""
    for number in range(MAX_WORKERS):
        slot = lock_slot(data, number)
        if slot is not None:
            return slot
    raise ConfigError(f"more than {MAX_WORKERS} processes use {data}")


def list_left_slots(data: Path) -> Iterator[WorkerSlot]:
    """Yield the slots, locked, that a dead worker has left with a journal."""
    for folder in sorted((data / JOURNALS_FOLDER).glob("*")):
        if folder.name.isdigit() and list_segments(folder):
            slot = lock_slot(data, int(folder.name))
            if slot is not None:
                yield slot


def lock_slot(data: Path, number: int) -> WorkerSlot | None:
    """Lock a number's folder; return None when another process has it."""
    folder = data / JOURNALS_FOLDER / str(number)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (folder / _LOCK).open("a+b")
    try:
        lock_file(lock, wait=False)
    except OSError:
        lock.close()
        return None
    lock.seek(0)
    return WorkerSlot(number, folder, lock.read() == _read_boot_id(), lock)


def is_slot_used(folder: Path) -> bool:
    """Return whether a running process has the number of a folder; nothing is created."""
    return is_locked(folder / _LOCK)


def _read_boot_id() -> bytes:
    return _BOOT_ID.read_bytes() if _BOOT_ID.exists() else b""
