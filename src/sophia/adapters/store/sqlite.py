"""The embedded store: one SQLite file, one writer, durable before any request is dispatched."""

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import astuple, replace

from sophia.adapters.store.driver import load_sqlite
from sophia.adapters.store.migrate import migrate
from sophia.adapters.store.writer import GroupCommit, open_ledger_connection
from sophia.core.errors import Unavailable
from sophia.core.ids import JUDGE_ATTEMPT, MAX_ATTEMPTS, first_id_at
from sophia.core.rows import (
    INTERNAL_KEY_PREFIX,
    RUBRIC_FINISH,
    AttemptIntent,
    AttemptOutcome,
    Feedback,
    GenerationNote,
    KeyRow,
    KeySpend,
    LessonRow,
    OpenAttempt,
    OpenHold,
    UnsettledAttempt,
)

_Row = TypeVar("_Row", bound=Struct)
_GENERATION_ID = re.compile(r"gen-(\d{10})-")
_GENERATION_SLACK_S = 900
"""Seconds by which an upstream's clock and the length of an answer may move its id."""

_TABLES: Mapping[Any, str] = {
    AttemptIntent: "intents",
    GenerationNote: "generations",
    AttemptOutcome: "outcomes",
    KeyRow: "keys",
    Feedback: "feedback",
    LessonRow: "lessons",
}
_COLUMNS = {
    kind: ", ".join(f"{table}.{name}" for name in kind.__struct_fields__)
    for kind, table in _TABLES.items()
}


# Names come from our own row types, never from a request.
def _insert_sql(kind: Any, *, conflict: str = "ABORT") -> str:
    names = ", ".join(kind.__struct_fields__)
    marks = ", ".join("?" for _ in kind.__struct_fields__)
    return f"INSERT OR {conflict} INTO {_TABLES[kind]} ({names}) VALUES ({marks})"  # noqa: S608


_NOTE_SECONDS = 0.02
_INSERT_INTENT = _insert_sql(AttemptIntent)
_INSERT_NOTE = _insert_sql(GenerationNote, conflict="IGNORE")
_INSERT_OUTCOME = (
    _insert_sql(AttemptOutcome)
    # The first outcome stands, unless this is the upstream's bill, or time passed without one.
    + " ON CONFLICT (attempt_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in AttemptOutcome.__struct_fields__)
    + " WHERE CASE excluded.cost_source"
    " WHEN 'upstream' THEN outcomes.cost_source IN ('estimated', 'assumed')"
    " WHEN 'assumed' THEN outcomes.state = 'unknown' END"
)


class SqliteStore:
    """Keeps everything in `path`, which is created or migrated when the store is opened.

    Create it inside a running event loop. Reads go through a second, read-only connection.
    """

    def __init__(self, path: Path) -> None:
        migrate(path)
        self._path = path
        # Before the writer's thread: two connections that both turn a new file to WAL can lock out.
        self._reader: Any = self._open_reader()
        self._read_problem = ""
        self._writer = GroupCommit(path)
        self._notes: dict[int, str] = {}
        self._notes_scheduled = False
        self._read_lock = threading.Lock()
        self._feedback_lock = asyncio.Lock()

    def reserve(self, intent: AttemptIntent) -> Awaitable[None]:
        """Make `intent` durable. Raises Unavailable when the ledger cannot be written."""
        return self._writer.write(_INSERT_INTENT, astuple(intent))

    def note_generation(self, attempt_id: int, generation_id: str) -> None:
        """Write an upstream's id of an attempt that still runs in 20 ms; the first one stands."""
        if not self._notes_scheduled:
            self._notes_scheduled = True
            asyncio.get_running_loop().call_later(_NOTE_SECONDS, self._write_notes)
        self._notes.setdefault(attempt_id, generation_id)

    def _write_notes(self) -> None:
        self._notes_scheduled = False
        notes, self._notes = self._notes, {}
        for note in notes.items():
            self._writer.defer(_INSERT_NOTE, note)

    def settle(self, outcome: AttemptOutcome) -> None:
        """Queue an outcome; it becomes durable with the next batch and is never dropped."""
        if self._notes:
            # The outcome holds the id as well.
            self._notes.pop(outcome.attempt_id, None)
        self._writer.defer(_INSERT_OUTCOME, astuple(outcome))

    async def keys(self) -> Sequence[KeyRow]:
        """Return every key, revoked ones included."""
        return await self._select(KeyRow)

    async def add_key(self, key: KeyRow) -> None:
        """Make a new key durable."""
        await self._writer.write(_insert_sql(KeyRow), astuple(key))

    async def update_key(self, key: KeyRow) -> None:
        """Make a key's name, limits and right to explore durable."""
        await self._writer.write(
            "UPDATE keys SET name = ?, daily_budget_nano = ?, per_request_nano = ?, explores = ?"
            " WHERE id = ?",
            (key.name, key.daily_budget_nano, key.per_request_nano, key.explores, key.id),
        )

    async def revoke_key(self, id: str, at_ms: int) -> None:
        """Make a revocation durable."""
        await self._writer.write("UPDATE keys SET revoked_ms = ? WHERE id = ?", (at_ms, id))

    async def spend_by_key(self, window: str) -> Sequence[KeySpend]:
        """Return the spending of each key in `window`, in nano-dollars."""
        rows = await self._read(
            "SELECT key_id, window, SUM(cost_nano) FROM outcomes"
            " WHERE window = ? AND state != 'unknown' GROUP BY key_id",
            (window,),
        )
        return [KeySpend(*row) for row in rows]

    async def spend_since(self, key_id: str, since: str) -> int:
        """Return the spending of a key since day `since` ("" is ever), in nano-dollars."""
        self._write_notes()
        await self._writer.flush()
        return await self._sum_cost("key_id = ? AND window >= ?", (key_id, since))

    async def cost_by_model(self) -> Sequence[tuple[str, int]]:
        """Return the cost of each model since the ledger began, in nano-dollars."""
        rows = await self._read("SELECT model, SUM(cost_nano) FROM outcomes GROUP BY model")
        return [(str(model), int(nano)) for model, nano in rows]

    async def judging_cost(self, window: str) -> int:
        """Return the cost of judging answers afterwards in `window`, in nano-dollars."""
        condition = "window = ? AND attempt_id & ? = ?"
        return await self._sum_cost(condition, (window, MAX_ATTEMPTS, JUDGE_ATTEMPT))

    async def mean_scores(self) -> Sequence[tuple[str, float, int]]:
        """Return each model's mean score from feedback, 0 to 1, and the number of scores."""
        rows = await self._read(
            "SELECT o.model, AVG(f.score), COUNT(*) FROM feedback f JOIN outcomes o"
            " ON o.attempt_id BETWEEN f.decision_id AND f.decision_id | ?"
            " WHERE f.score IS NOT NULL AND o.failure IS NULL"
            " AND o.finish_reason IS NOT ? AND f.idempotency_key NOT LIKE ? GROUP BY o.model",
            (MAX_ATTEMPTS, RUBRIC_FINISH, f"{INTERNAL_KEY_PREFIX}%"),
        )
        return [(str(model), float(mean), int(count)) for model, mean, count in rows]

    async def open_attempts(self) -> Sequence[OpenAttempt]:
        """Return intents without an outcome, oldest first, with the upstream's id if noted."""
        rows = await self._read(
            f"SELECT {_COLUMNS[AttemptIntent]}, generations.generation_id FROM intents"  # noqa: S608
            " LEFT JOIN generations USING (attempt_id)"
            " WHERE NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.attempt_id = intents.attempt_id)"
            " ORDER BY intents.attempt_id"
        )
        return [OpenAttempt(AttemptIntent(*row[:-1]), row[-1]) for row in rows]

    async def unknown_attempts(self) -> Sequence[UnsettledAttempt]:
        """Return outcomes of unknown cost, oldest first."""
        return await self._select_unsettled("state = 'unknown' ORDER BY attempt_id")

    async def open_holds(self) -> Sequence[OpenHold]:
        """Return attempts that may have been dispatched and have no bill, with what is held."""
        rows = await self._read(
            "SELECT i.attempt_id, i.key_id, i.window, IFNULL(o.cost_nano, i.held_nano)"
            " FROM intents i LEFT JOIN outcomes o USING (attempt_id)"
            " WHERE o.attempt_id IS NULL OR o.state = 'unknown'"
        )
        return [OpenHold(*row) for row in rows]

    async def decision(self, request_id: int) -> AttemptIntent | None:
        """Return the first intent of a request, which carries its plan."""
        rows = await self._select(AttemptIntent, "WHERE attempt_id = ?", (request_id,))
        return rows[0] if rows else None

    async def attempts(self, request_id: int) -> Sequence[AttemptOutcome]:
        """Return the outcomes of a request's attempts, in their order."""
        self._write_notes()
        await self._writer.flush()
        ids = (request_id, request_id | MAX_ATTEMPTS)
        return await self._select(
            AttemptOutcome, "WHERE attempt_id BETWEEN ? AND ? ORDER BY 1", ids
        )

    async def unsettled_attempts(self, since_ms: int) -> Sequence[UnsettledAttempt]:
        """Return costs without a bill since `since_ms` that have a generation id, newest first."""
        self._write_notes()
        await self._writer.flush()
        return await self._select_unsettled(
            "attempt_id >= ? AND cost_source IN ('estimated', 'assumed')"
            " AND generation_id IS NOT NULL ORDER BY attempt_id DESC LIMIT 1000",
            (first_id_at(since_ms),),
        )

    async def outcome_by_generation(self, generation_id: str) -> AttemptOutcome | None:
        """Return the outcome with an upstream's generation id.

        There is no index, since updating one would cost every request: OpenRouter's ids contain
        their second, and others are searched among the last day's.
        """
        self._write_notes()
        await self._writer.flush()
        first, last = _attempt_id_range(generation_id, time.time())
        rows = await self._select(
            AttemptOutcome,
            "WHERE attempt_id BETWEEN ? AND ? AND generation_id = ?",
            (first, last, generation_id),
        )
        return rows[0] if rows else None

    async def add_feedback(self, feedback: Feedback) -> bool:
        """Make feedback durable; return False if its idempotency key was used before."""
        # One at a time: of two at once only one is the first.
        async with self._feedback_lock:
            existing = await self._read(
                "SELECT 1 FROM feedback WHERE idempotency_key = ?", (feedback.idempotency_key,)
            )
            await self._writer.write(_insert_sql(Feedback, conflict="IGNORE"), astuple(feedback))
        return not existing

    async def feedback(self, decision_id: int) -> Sequence[Feedback]:
        """Return all feedback on a decision, oldest first."""
        return await self._select(
            Feedback, "WHERE decision_id = ? ORDER BY at_ms, rowid", (decision_id,)
        )

    async def decisions(self, since_ms: int, limit: int) -> Sequence[AttemptIntent]:
        """Return the first `limit` decisions since `since_ms`, oldest first."""
        return await self._select(
            AttemptIntent,
            "WHERE attempt_id >= ? AND plan IS NOT NULL ORDER BY attempt_id LIMIT ?",
            (first_id_at(since_ms), limit),
        )

    async def add_lesson(self, lesson: LessonRow) -> None:
        """Make a lesson durable; the first one of a number stands."""
        await self._writer.write(_insert_sql(LessonRow, conflict="IGNORE"), astuple(lesson))

    async def lessons(self, after: int, limit: int) -> Sequence[LessonRow]:
        """Return the first `limit` lessons after number `after`, in their order."""
        rows = await self._select(
            LessonRow, "WHERE number > ? ORDER BY number LIMIT ?", (after, limit)
        )
        return [replace(row, first=bool(row.first)) for row in rows]

    async def multi_channel_feedback(self, since_ms: int, limit: int) -> Sequence[Feedback]:
        """Return scores since `since_ms` of the latest `limit` decisions with several channels.

        They are ordered by decision, the oldest first.
        """
        scored = "WHERE score IS NOT NULL AND at_ms >= ?"
        return await self._select(
            Feedback,
            f"{scored} AND decision_id IN"  # noqa: S608
            f" (SELECT decision_id FROM feedback {scored} GROUP BY decision_id"
            " HAVING COUNT(DISTINCT channel) > 1 ORDER BY decision_id DESC LIMIT ?)"
            " ORDER BY decision_id, at_ms, rowid",
            (since_ms, since_ms, limit),
        )

    async def feedback_without_lesson(self, since_ms: int) -> Sequence[Feedback]:
        """Return scores since `since_ms` that have no lesson, oldest first."""
        return await self._select(
            Feedback,
            "WHERE at_ms >= ? AND score IS NOT NULL AND NOT EXISTS (SELECT 1 FROM lessons l"
            " WHERE l.decision_id = feedback.decision_id AND l.channel = feedback.channel)"
            " ORDER BY at_ms, rowid",
            (since_ms,),
        )

    @property
    def problem(self) -> str:
        """The reason why nothing can be written or read now, or ""."""
        return self._writer.problem or self._read_problem

    @property
    def depth(self) -> int:
        """The number of rows that are not durable yet."""
        return self._writer.depth

    async def close(self) -> None:
        """Write the rows in the queue, then close both connections."""
        self._write_notes()
        await self._writer.close()
        if self._reader is not None:
            self._reader.close()

    async def _select(
        self, kind: type[_Row], rest: str = "", values: Sequence[object] = ()
    ) -> list[_Row]:
        """Return rows of `kind`; `rest` is the statement after the name of its table."""
        sql = f"SELECT {_COLUMNS[kind]} FROM {_TABLES[kind]} {rest}"  # noqa: S608
        return [kind(*row) for row in await self._read(sql, values)]

    async def _select_unsettled(
        self, condition: str, values: Sequence[object] = ()
    ) -> list[UnsettledAttempt]:
        rows = await self._read(
            f"SELECT {_COLUMNS[AttemptOutcome]}, intents.upstream FROM outcomes"  # noqa: S608
            f" JOIN intents USING (attempt_id) WHERE {condition}",
            values,
        )
        return [UnsettledAttempt(AttemptOutcome(*row[:-1]), row[-1]) for row in rows]

    async def _sum_cost(self, condition: str, values: Sequence[object]) -> int:
        """Return the known costs of outcomes, in nano-dollars."""
        sql = "SELECT COALESCE(SUM(cost_nano), 0) FROM outcomes WHERE state != 'unknown' AND "
        rows = await self._read(sql + condition, values)
        return int(rows[0][0])

    async def _read(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query. Raises Unavailable when the ledger cannot be read."""
        try:
            rows = await asyncio.to_thread(self._query, sql, values)
        except load_sqlite().Error as error:
            self._read_problem = f"The ledger cannot be read: {error}"
            raise Unavailable(self._read_problem, retry_after=1) from error
        self._read_problem = ""
        return rows

    def _open_reader(self) -> Any:
        connection = open_ledger_connection(self._path)
        connection.execute("PRAGMA query_only=ON")
        return connection

    def _query(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._read_lock:
            if self._reader is None:
                self._reader = self._open_reader()
            try:
                rows: list[tuple[Any, ...]] = self._reader.execute(sql, values).fetchall()
            except load_sqlite().Error:
                # The next one reads the file again, which may have been repaired meanwhile.
                self._reader.close()
                self._reader = None
                raise
            return rows


def _attempt_id_range(generation_id: str, now: float) -> tuple[int, int]:
    match = _GENERATION_ID.match(generation_id)
    start, end = (now - 86_400, now) if match is None else (int(match[1]), int(match[1]))
    seconds = (int(start - _GENERATION_SLACK_S), int(end + _GENERATION_SLACK_S))
    return first_id_at(seconds[0] * 1000), first_id_at(seconds[1] * 1000)
