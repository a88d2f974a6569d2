"""The embedded store: one SQLite file, one writer, durable before anything is dispatched."""

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sophia.adapters.store.migrate import migrate
from sophia.adapters.store.writer import GroupCommit, connect
from sophia.core.ids import JUDGING, first_id
from sophia.core.rows import (
    OWN,
    RUBRIC,
    Doubt,
    Feedback,
    Intent,
    KeyRow,
    LessonRow,
    OpenHold,
    Outcome,
    Spend,
)

_T = TypeVar("_T")
_GENERATION = re.compile(r"gen-(\d{10})-")
_SLACK = 900
"""Seconds by which an upstream's clock and the length of an answer may move its id."""


def _names(row: type[tuple[Any, ...]]) -> str:
    names: tuple[str, ...] = row._fields  # type: ignore[attr-defined] # a NamedTuple's
    return ", ".join(names)


def _insert(table: str, row: type[tuple[Any, ...]], *, conflict: str = "ABORT") -> str:
    names = _names(row)
    marks = ", ".join("?" * (names.count(",") + 1))
    # Names come from our own dataclasses, never from a request.
    return f"INSERT OR {conflict} INTO {table} ({names}) VALUES ({marks})"  # noqa: S608


_INTENT = _insert("intents", Intent)
_OUTCOME = (
    _insert("outcomes", Outcome)
    # The first word stands, unless it was a guess and this is what the upstream billed.
    + " ON CONFLICT (attempt_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in Outcome._fields)
    + " WHERE outcomes.cost_source = 'estimated' AND excluded.cost_source = 'upstream'"
)
_KEY = _insert("keys", KeyRow)
_FEEDBACK = _insert("feedback", Feedback, conflict="IGNORE")
_LESSON = _insert("lessons", LessonRow, conflict="IGNORE")
_COLUMNS = {row: _names(row) for row in (Intent, Outcome, KeyRow, Feedback, LessonRow)}


class SqliteStore:
    """Keeps everything in `path`; creates and migrates it when opened.

    Must be made inside a running event loop. Reads go through a second, read-only connection.
    """

    def __init__(self, path: Path) -> None:
        migrate(path)
        # Before the writer's thread: two connections that both turn a new file to WAL can lock out.
        self._reader = connect(path)
        self._reader.execute("PRAGMA query_only=ON")
        self._writer = GroupCommit(path)
        self._reading = threading.Lock()
        self._judging = asyncio.Lock()

    def reserve(self, intent: Intent) -> Awaitable[None]:
        """Make `intent` durable. Raises Unavailable when the ledger cannot take it."""
        return self._writer.write(_INTENT, intent)

    def settle(self, outcome: Outcome) -> None:
        """Hand an outcome over; it becomes durable with the next batch and is never dropped."""
        self._writer.defer(_OUTCOME, outcome)

    async def keys(self) -> Sequence[KeyRow]:
        """Return every key, revoked ones included."""
        rows = await self._read(f"SELECT {_COLUMNS[KeyRow]} FROM keys")  # noqa: S608
        return [KeyRow(*row) for row in rows]

    async def add_key(self, key: KeyRow) -> None:
        """Make a new key durable."""
        await self._writer.write(_KEY, key)

    async def revoke_key(self, id: str, at_ms: int) -> None:
        """Make a revocation durable."""
        await self._writer.write("UPDATE keys SET revoked_ms = ? WHERE id = ?", (at_ms, id))

    async def spends(self, window: str) -> Sequence[Spend]:
        """Return what each key has spent in `window`, in nano-dollars."""
        rows = await self._read(
            "SELECT key_id, window, SUM(cost_nano) FROM outcomes"
            " WHERE window = ? AND state != 'unknown' GROUP BY key_id",
            (window,),
        )
        return [Spend(*row) for row in rows]

    async def spent(self, key_id: str, since: str) -> int:
        """Return what a key has spent since day `since` ("" is ever), in nano-dollars."""
        await self._writer.flush()
        rows = await self._read(
            "SELECT COALESCE(SUM(cost_nano), 0) FROM outcomes"
            " WHERE key_id = ? AND window >= ? AND state != 'unknown'",
            (key_id, since),
        )
        return int(rows[0][0])

    async def costs(self) -> Sequence[tuple[str, int]]:
        """Return what each model has cost since the ledger began, in nano-dollars."""
        rows = await self._read("SELECT model, SUM(cost_nano) FROM outcomes GROUP BY model")
        return [(str(model), int(nano)) for model, nano in rows]

    async def judging(self, window: str) -> int:
        """Return what judging answers later cost all keys in `window`, in nano-dollars."""
        rows = await self._read(
            "SELECT COALESCE(SUM(cost_nano), 0) FROM outcomes"
            " WHERE window = ? AND state != 'unknown' AND attempt_id & 15 = ?",
            (window, JUDGING),
        )
        return int(rows[0][0])

    async def scores(self) -> Sequence[tuple[str, float, int]]:
        """Return each model's mean score from feedback, 0 to 1, and how many scores it has."""
        rows = await self._read(
            "SELECT o.model, AVG(f.score), COUNT(*) FROM feedback f JOIN outcomes o"
            " ON o.attempt_id BETWEEN f.decision_id AND f.decision_id | 15"
            " WHERE f.score IS NOT NULL AND o.failure IS NULL"
            " AND o.finish_reason IS NOT ? AND f.idempotency_key NOT LIKE ? GROUP BY o.model",
            (RUBRIC, f"{OWN}%"),
        )
        return [(str(model), float(mean), int(count)) for model, mean, count in rows]

    async def open_holds(self) -> Sequence[OpenHold]:
        """Return attempts that may have been dispatched and whose bill is not known yet."""
        rows = await self._read(
            "SELECT i.attempt_id, i.key_id, i.window, i.held_nano FROM intents i"
            " LEFT JOIN outcomes o USING (attempt_id)"
            " WHERE o.attempt_id IS NULL OR o.state = 'unknown'"
        )
        return [OpenHold(*row) for row in rows]

    async def decision(self, request_id: int) -> Intent | None:
        """Return the first intent of a request, which carries its plan."""
        rows = await self._read(
            f"SELECT {_COLUMNS[Intent]} FROM intents WHERE attempt_id = ?",  # noqa: S608
            (request_id,),
        )
        return Intent(*rows[0]) if rows else None

    async def attempts(self, request_id: int) -> Sequence[Outcome]:
        """Return the outcomes of a request's attempts, in the order they were tried."""
        await self._writer.flush()
        rows = await self._read(
            f"SELECT {_COLUMNS[Outcome]} FROM outcomes"  # noqa: S608
            " WHERE attempt_id BETWEEN ? AND ? ORDER BY attempt_id",
            (request_id, request_id | 15),
        )
        return [Outcome(*row) for row in rows]

    async def unresolved(self, since_ms: int) -> Sequence[Doubt]:
        """Return guesses since `since_ms` that have a generation id, newest first."""
        await self._writer.flush()
        names = ", ".join(f"o.{name}" for name in Outcome._fields)
        rows = await self._read(
            f"SELECT {names}, i.upstream, i.held_nano FROM outcomes o"  # noqa: S608
            " JOIN intents i USING (attempt_id) WHERE o.attempt_id >= ?"
            " AND o.cost_source = 'estimated' AND o.generation_id IS NOT NULL"
            " ORDER BY o.attempt_id DESC LIMIT 1000",
            (first_id(since_ms),),
        )
        return [Doubt(Outcome(*row[:-2]), row[-2], row[-1]) for row in rows]

    async def by_generation(self, generation_id: str) -> Outcome | None:
        """Return the outcome that carries an upstream's generation id.

        There is no index for it, since keeping one would cost every request: OpenRouter's ids tell
        their second, and others are looked for among the last day's.
        """
        await self._writer.flush()
        first, last = _attempts_near(generation_id, time.time())
        rows = await self._read(
            f"SELECT {_COLUMNS[Outcome]} FROM outcomes"  # noqa: S608
            " WHERE attempt_id BETWEEN ? AND ? AND generation_id = ?",
            (first, last, generation_id),
        )
        return Outcome(*rows[0]) if rows else None

    async def add_feedback(self, feedback: Feedback) -> bool:
        """Keep a verdict; return False when its idempotency key was used before."""
        # One at a time: of two that come at once only one is the first.
        async with self._judging:
            known = await self._read(
                "SELECT 1 FROM feedback WHERE idempotency_key = ?", (feedback.idempotency_key,)
            )
            await self._writer.write(_FEEDBACK, feedback)
        return not known

    async def feedback(self, decision_id: int) -> Sequence[Feedback]:
        """Return every verdict on a decision, in the order in which they came."""
        rows = await self._read(
            f"SELECT {_COLUMNS[Feedback]} FROM feedback WHERE decision_id = ?"  # noqa: S608
            " ORDER BY at_ms, rowid",
            (decision_id,),
        )
        return [Feedback(*row) for row in rows]

    async def decisions(self, since_ms: int, limit: int) -> Sequence[Intent]:
        """Return the first `limit` decisions since `since_ms`, oldest first."""
        rows = await self._read(
            f"SELECT {_COLUMNS[Intent]} FROM intents"  # noqa: S608
            " WHERE attempt_id >= ? AND plan IS NOT NULL ORDER BY attempt_id LIMIT ?",
            (first_id(since_ms), limit),
        )
        return [Intent(*row) for row in rows]

    async def add_lesson(self, lesson: LessonRow) -> None:
        """Make a lesson durable; the first one of a number stands."""
        await self._writer.write(_LESSON, lesson)

    async def lessons(self, after: int, limit: int) -> Sequence[LessonRow]:
        """Return the first `limit` lessons behind number `after`, in their order."""
        rows = await self._read(
            f"SELECT {_COLUMNS[LessonRow]} FROM lessons"  # noqa: S608
            " WHERE number > ? ORDER BY number LIMIT ?",
            (after, limit),
        )
        found = [LessonRow(*row) for row in rows]
        return [row._replace(first=bool(row.first)) for row in found]

    async def compared(self, since_ms: int, limit: int) -> Sequence[Feedback]:
        """Return scores since `since_ms` of the latest `limit` decisions with several channels.

        They come by decision, the oldest first.
        """
        scored = "FROM feedback WHERE score IS NOT NULL AND at_ms >= ?"
        rows = await self._read(
            f"SELECT {_COLUMNS[Feedback]} {scored} AND decision_id IN"
            f" (SELECT decision_id {scored} GROUP BY decision_id"
            " HAVING COUNT(DISTINCT channel) > 1 ORDER BY decision_id DESC LIMIT ?)"
            " ORDER BY decision_id, at_ms, rowid",
            (since_ms, since_ms, limit),
        )
        return [Feedback(*row) for row in rows]

    async def unlearned(self, since_ms: int) -> Sequence[Feedback]:
        """Return scores since `since_ms` that no lesson stands for, oldest first."""
        names = ", ".join(f"f.{name}" for name in Feedback._fields)
        rows = await self._read(
            f"SELECT {names} FROM feedback f LEFT JOIN lessons l"  # noqa: S608
            " ON l.decision_id = f.decision_id AND l.channel = f.channel"
            " WHERE f.at_ms >= ? AND f.score IS NOT NULL AND l.number IS NULL"
            " ORDER BY f.at_ms, f.rowid",
            (since_ms,),
        )
        return [Feedback(*row) for row in rows]

    @property
    def problem(self) -> str:
        """Why nothing can be written now, or nothing."""
        return self._writer.problem

    @property
    def depth(self) -> int:
        """Rows that wait to become durable."""
        return self._writer.depth

    async def close(self) -> None:
        """Write what waits, then close both connections."""
        await self._writer.close()
        self._reader.close()

    async def _read(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        def query() -> list[tuple[Any, ...]]:
            with self._reading:
                rows: list[tuple[Any, ...]] = self._reader.execute(sql, values).fetchall()
                return rows

        return await _in_thread(query)


async def _in_thread(work: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(None, work)


def _attempts_near(generation_id: str, now: float) -> tuple[int, int]:
    told = _GENERATION.match(generation_id)
    start, end = (now - 86_400, now) if told is None else (int(told[1]), int(told[1]))
    return first_id(int(start - _SLACK) * 1000), first_id(int(end + _SLACK) * 1000)
