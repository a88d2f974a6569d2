"""Numbers of workers over several machines: rows of the store, and folders with their tokens."""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from sophia.adapters.store.databases.database import Connection, Database
from sophia.adapters.store.journaling.files import list_segments
from sophia.adapters.store.journaling.slots import WorkerSlot, claim_slot, lock_slot
from sophia.core.errors import ConfigError
from sophia.core.ids import MAX_WORKERS

LATE_SECONDS = 10.0
"""Time between two beats after which this worker was out of touch: they are 5 s apart."""
LOST_SECONDS = 60.0
"""Time without a beat after which a worker is lost."""
_TOKEN = "token"  # noqa: S105 - a file's name


class WorkerNumbers:
    """The numbers of the workers that use `database`.

    In SQLite's file a number is the lock of its folder. Several machines have folders of their own,
    so there a number is a row as well, with a random token that the folder keeps, and the worker
    renews the row. A lost worker's row stays, without its token: that worker may still serve, out
    of touch, and no other may make the same ids. All methods raise Unavailable.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_shared = database.is_shared
        self._in_touch_since = self._beaten = time.monotonic()

    def claim(self, data: Path) -> WorkerSlot:
        """Take the lowest free number. Raises ConfigError when there is none."""
        if not self._is_shared:
            return claim_slot(data)
        rows = self._database.read("SELECT number, token FROM workers ORDER BY seen_ms")
        used = {number for number, _ in rows}
        # The longest lost ones last.
        lost = [number for number, token in rows if not token]
        for number in [*(one for one in range(MAX_WORKERS) if one not in used), *lost]:
            slot = lock_slot(data, number)
            if slot is None:
                continue
            if not list_segments(slot.folder) and self._take(slot):
                return slot
            slot.release()
        raise ConfigError(f"more than {MAX_WORKERS} processes use the store")

    def _take(self, slot: WorkerSlot) -> bool:
        """Write a number's row; return whether it was free."""
        token = secrets.token_hex(16)
        # First here: a number without its token would have to wait until it is lost.
        (slot.folder / _TOKEN).write_text(token)
        sql = (
            f"INSERT INTO workers (number, token, seen_ms) VALUES (?, ?, {self._database.now_ms})"  # noqa: S608
            " ON CONFLICT (number) DO UPDATE SET token = excluded.token,"
            " seen_ms = excluded.seen_ms WHERE workers.token = ''"
        )
        with self._database.transaction() as connection:
            return bool(connection.execute(sql, (slot.number, token)).rowcount)

    def owns(self, connection: Connection, slot: WorkerSlot) -> bool:
        """Return whether the number is still this slot's, until the transaction has ended."""
        if not self._is_shared:
            return True
        sql = "SELECT number FROM workers WHERE number = ? AND token = ?"
        values = slot.number, read_token(slot.folder)
        return bool(connection.execute(sql + connection.row_lock, values).fetchall())

    def give_up(self, connection: Connection, slot: WorkerSlot) -> bool:
        """Free the number; return whether it was still this slot's."""
        if not self._is_shared:
            return True
        sql = "DELETE FROM workers WHERE number = ? AND token = ?"
        return bool(connection.execute(sql, (slot.number, read_token(slot.folder))).rowcount)

    def beat(self, slot: WorkerSlot) -> bool:
        """Show that this worker lives; return whether the number is still its own."""
        if not self._is_shared:
            return True
        now = time.monotonic()
        if now - self._beaten > LATE_SECONDS:
            # Others may have been out of touch for as long.
            self._in_touch_since = now
        sql = f"UPDATE workers SET seen_ms = {self._database.now_ms} WHERE number = ? AND token = ?"  # noqa: S608
        with self._database.transaction() as connection:
            done = connection.execute(sql, (slot.number, read_token(slot.folder)))
        self._beaten = now
        return bool(done.rowcount)

    def find_lost(self) -> Iterator[tuple[int, str]]:
        """Yield number and token of the workers that no longer beat.

        There are none until this worker has been in touch with the store for as long: when the
        store was away, all of them were unseen.
        """
        if self._is_shared and time.monotonic() - self._in_touch_since >= LOST_SECONDS:
            yield from self._database.read(f"SELECT number, token FROM workers WHERE {self._lost}")  # noqa: S608

    def give_up_lost(self, connection: Connection, number: int, token: str) -> bool:
        """Take a lost worker's token away; return whether it still was lost."""
        sql = f"UPDATE workers SET token = '' WHERE number = ? AND token = ? AND {self._lost}"  # noqa: S608
        return bool(connection.execute(sql, (number, token)).rowcount)

    @property
    def _lost(self) -> str:
        return f"token != '' AND seen_ms < {self._database.now_ms} - {int(LOST_SECONDS * 1000)}"


def read_token(folder: Path) -> str:
    """Return the token of a number's folder, which no row has where there is none."""
    path = folder / _TOKEN
    return (path.read_text() if path.exists() else "") or "none"
