"""The lock of a data folder: one server at a time owns its budgets and lessons."""

from contextlib import suppress
from pathlib import Path
from typing import IO

from sophia.core.errors import ConfigError

_SERVING_LOCK = ".serving"
_LEADING_LOCK = ".leading"


class FolderInUse(ConfigError):
    """Another process serves from this folder."""


def lock_for_serving(data: Path) -> IO[bytes]:
    """Return a lock on a data folder, held until it is closed. Raises FolderInUse."""
    lock = (data / _SERVING_LOCK).open("ab")
    try:
        lock_file(lock, wait=False)
    except OSError as error:
        lock.close()
        raise FolderInUse(
            f"another Sophia serves from {data}, and two would mix up budgets and lessons: choose "
            "another `data_dir`, or stop that one."
        ) from error
    return lock


def is_served(data: Path) -> bool:
    """Return whether a running Sophia serves from a data folder."""
    if not (data / _SERVING_LOCK).exists():
        return False
    try:
        lock_for_serving(data).close()
    except FolderInUse:
        return True
    return False


class Leadership:
    """The lock of the one process of a data folder that runs the jobs for all."""

    def __init__(self, data: Path) -> None:
        self._lock = (data / _LEADING_LOCK).open("ab")
        self.is_leader = False

    async def try_to_lead(self) -> None:
        """Lead from now on, if no other process does."""
        if not self.is_leader:
            with suppress(OSError):
                lock_file(self._lock, wait=False)
                self.is_leader = True

    def close(self) -> None:
        """Lead no more."""
        self.is_leader = False
        self._lock.close()


def lock_file(file: IO[bytes], *, wait: bool) -> None:
    """Lock an open file; without `wait`, raises OSError when another process holds it."""
    try:
        import fcntl
    except ImportError:
        return  # Windows has no such lock; the folder is not protected there.
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock_file(file: IO[bytes]) -> None:
    """Unlock a file that `lock_file` has locked."""
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(file, fcntl.LOCK_UN)
