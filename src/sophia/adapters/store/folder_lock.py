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
    return is_locked(data / _SERVING_LOCK)


def find_server(data: Path) -> int | None:
    """Return the process that serves from a data folder, if the system shows it."""
    path, locks = data / _SERVING_LOCK, Path("/proc/locks")
    if not (path.exists() and locks.exists()):
        return None
    # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF
    rows = (line.split() for line in locks.read_text().splitlines())
    inode = f":{path.stat().st_ino}"
    return next((int(row[4]) for row in rows if row[1] == "FLOCK" and row[5].endswith(inode)), None)


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


def is_locked(path: Path) -> bool:
    """Return whether another process has locked a file."""
    try:
        file = path.open("rb")
    except OSError:
        return False
    with file:
        try:
            lock_file(file, wait=False)
        except OSError:
            return True
    return False


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
