"""The store: all durable rows, in a database, with a journal before the urgent ones."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import astuple, replace

from sophia.adapters.store.databases.database import Connection, Database, Rows, run_transaction
from sophia.adapters.store.journaling.numbers import WorkerNumbers
from sophia.adapters.store.journaling.retirement import WorkerRetirement
from sophia.adapters.store.journaling.worker import WorkerJournal
from sophia.adapters.store.lease_statements import CALLS_SQL, bump, change_leases, return_lease
from sophia.adapters.store.statements import COLUMNS, TABLES, insert_sql
from sophia.core.batches import Batches
from sophia.core.errors import Unavailable
from sophia.core.ids import (
    MAX_ATTEMPTS,
    MAX_WORKERS,
    WORKER_SHIFT,
    extract_timestamp_ms,
    find_worker,
    first_id_at,
)
from sophia.core.ports import CloseAttempt
from sophia.core.rows import (
    INTERNAL_KEY_PREFIX,
    MODEL_ACCOUNT_PREFIX,
    RUBRIC_FINISH,
    AccountRow,
    AttemptIntent,
    AttemptOutcome,
    Feedback,
    KeyRow,
    Lease,
    LeaseRequest,
    LessonRow,
    UnsettledAttempt,
)

log = logging.getLogger("sophia.ledger")

Change = Callable[[Connection], Any]
_Row = TypeVar("_Row", bound=Struct)
_Result = TypeVar("_Result")
_GENERATION_ID = re.compile(r"gen-(\d{10})-")
_GENERATION_SLACK_S = 900
"""Seconds by which an upstream's clock and the length of an answer may move its id."""
_MOST_LEASES = 100
"""Leases of one transaction, in which their accounts are locked for other workers."""
_SETTLE_MS = 1500
"""Age up to which a request of another worker may still be in its journal only."""
_SETTLE_POLL_S = 0.05
_TAKEN_FOR_DEAD = (
    "This worker was out of touch with the store for so long that other machines took it for dead; "
    "it has to be started again."
)


class SqlStore:
    """Keeps everything in `database`; records of attempts come by the journal of their worker.

    `start_worker` begins a journal, which `reserve` and `settle` need.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._numbers = WorkerNumbers(database)
        self._retirement = WorkerRetirement(database, self._numbers)
        self._journal: WorkerJournal | None = None
        self._data: Path | None = None
        self._close_attempt: CloseAttempt | None = None
        self._heard: dict[str, int] = {}
        self._may_have_changed = True
        self._changes = Batches[Change, Any](self._make_changes)
        self._lease_requests = Batches[LeaseRequest, Lease](self._grant_leases, _MOST_LEASES)

    @property
    def worker(self) -> int:
        """The number of this process among those that write to the store."""
        return self._own_journal.slot.number

    @property
    def _own_journal(self) -> WorkerJournal:
        if self._journal is None:
            raise RuntimeError("this store was opened without a journal")
        return self._journal

    async def start_worker(
        self, data: Path, close: CloseAttempt, sync_seconds: float
    ) -> Sequence[AttemptOutcome]:
        """Begin a journal in `data`, after what dead workers left; see `retire_left_workers`."""
        self._data, self._close_attempt = data, close
        slot, closed = await asyncio.to_thread(self._retirement.claim, data, close)
        apply = partial(self._retirement.apply, slot)
        self._journal = WorkerJournal(slot, apply, sync_seconds)
        return closed

    async def retire_left_workers(self, close: CloseAttempt) -> Sequence[AttemptOutcome]:
        """Apply the journals of dead workers and return their leases.

        Attempts that they left open end with the outcome that `close` gives them; it is returned.
        """
        assert self._data is not None, "a worker was started"
        return await asyncio.to_thread(self._retirement.retire_left, self._data, close)

    async def beat(self) -> bool:
        """Show that this worker lives. Raises Unavailable.

        Return False once other machines have taken it for dead: then it takes no more attempts.
        """
        is_alive = await asyncio.to_thread(self._numbers.beat, self._own_journal.slot)
        if not is_alive:
            self._own_journal.stop(_TAKEN_FOR_DEAD)
        return is_alive

    async def newest_attempt(self, since_ms: int) -> int:
        """Return the greatest id since `since_ms` of an attempt with this worker's number, or 0."""
        rows = await self._read(
            "SELECT COALESCE(MAX(attempt_id), 0) FROM intents"
            " WHERE attempt_id >= ? AND (attempt_id >> ?) & ? = ?",
            (first_id_at(since_ms), WORKER_SHIFT, MAX_WORKERS - 1, self.worker),
        )
        return int(rows[0][0])

    def reserve(self, intent: AttemptIntent) -> Awaitable[None]:
        """Write `intent` down. Raises Unavailable when the journal cannot be written."""
        return self._own_journal.reserve(intent)

    def note_generation(self, attempt_id: int, generation_id: str) -> None:
        """Write an upstream's id of an attempt that still runs in 20 ms; the first one stands."""
        self._own_journal.note_generation(attempt_id, generation_id)

    def settle(self, outcome: AttemptOutcome, leased: tuple[str, ...] = ()) -> None:
        """Write an outcome, and the accounts that paid it from a lease; it is never dropped."""
        self._own_journal.settle(outcome, leased)

    async def lease(self, request: LeaseRequest) -> Lease:
        """Return a part of a budget for this worker. Raises Unavailable."""
        return await self._lease_requests.add(request)

    async def _grant_leases(self, requests: Sequence[LeaseRequest]) -> list[Lease | Exception]:
        """Return leases that are granted together, or one by one if a request is impossible."""
        slot = self._own_journal.slot

        def change(connection: Connection) -> Sequence[Lease]:
            if not self._numbers.owns(connection, slot):
                raise Unavailable(_TAKEN_FOR_DEAD)
            return change_leases(connection, slot.number, requests)

        try:
            return list(await self._change(change))
        except Unavailable as error:
            return [error] * len(requests)
        except Exception as error:  # noqa: BLE001 - goes to whoever waits for the lease
            if len(requests) == 1:
                return [error]
        return [result for each in requests for result in await self._grant_leases([each])]

    async def return_lease(self, account: str, window: str, amount: int, heard: int) -> None:
        """Give back a part of this worker's lease; it has answered the call numbered `heard`."""
        slot = self._own_journal.slot

        def change(connection: Connection) -> None:
            if self._numbers.owns(connection, slot):
                return_lease(connection, slot.number, account, window, amount, heard)

        await self._change(change)

    async def lease_calls(self) -> Sequence[tuple[str, str, int]]:
        """Return account, window and number of the calls that this worker has not answered."""
        rows = await self._read(CALLS_SQL, (self.worker,))
        return [(str(account), str(window), int(call)) for account, window, call in rows]

    async def account(self, account: str, window: str) -> AccountRow:
        """Return an account, with what this worker has settled so far."""
        await self._flush()
        rows = await self._select(
            AccountRow, "WHERE account = ? AND accounts.window = ?", (account, window)
        )
        return rows[0] if rows else AccountRow(account, window)

    async def accounts(self, window: str) -> Sequence[AccountRow]:
        """Return all accounts of a window."""
        return await self._select(
            AccountRow, "WHERE accounts.window = ? ORDER BY account", (window,)
        )

    async def changed_topics(self) -> Sequence[str]:
        """Return what has changed since the last call: keys, lessons, leases."""
        self._may_have_changed |= self._database.has_changed()
        if not self._may_have_changed:
            return ()
        rows = await self._read("SELECT topic, sequence FROM changes")
        self._may_have_changed = False
        before, self._heard = self._heard, {str(topic): int(number) for topic, number in rows}
        return [topic for topic, number in self._heard.items() if before.get(topic) != number]

    async def keys(self) -> Sequence[KeyRow]:
        """Return every key, revoked ones included."""
        return await self._select(KeyRow)

    async def add_key(self, key: KeyRow) -> None:
        """Make a new key durable."""
        await self._change_keys(insert_sql(KeyRow), astuple(key))

    async def update_key(self, key: KeyRow) -> None:
        """Make a key's name, limits and right to explore durable."""
        await self._change_keys(
            "UPDATE keys SET name = ?, daily_budget_nano = ?, per_request_nano = ?, explores = ?"
            " WHERE id = ?",
            (key.name, key.daily_budget_nano, key.per_request_nano, key.explores, key.id),
        )

    async def revoke_key(self, id: str, at_ms: int) -> None:
        """Make a revocation durable."""
        await self._change_keys("UPDATE keys SET revoked_ms = ? WHERE id = ?", (at_ms, id))

    async def spend_since(self, key_id: str, since: str) -> int:
        """Return the spending of a key since day `since` ("" is ever), in nano-dollars."""
        await self._flush()
        return await self._sum_cost("key_id = ? AND outcomes.window >= ?", (key_id, since))

    async def cost_by_model(self) -> Sequence[tuple[str, int]]:
        """Return the cost of each model since the ledger began, in nano-dollars."""
        await self._flush()
        prefix = MODEL_ACCOUNT_PREFIX
        return [
            (row.account.removeprefix(prefix), row.spent_nano)
            for row in await self.accounts("")
            if row.account.startswith(prefix)
        ]

    async def mean_scores(self) -> Sequence[tuple[str, float, int]]:
        """Return each model's mean score from feedback, 0 to 1, and the number of scores."""
        rows = await self._read(
            "SELECT o.model, AVG(f.score), COUNT(*) FROM feedback f JOIN outcomes o"
            " ON o.attempt_id BETWEEN f.decision_id AND f.decision_id | ?"
            " WHERE f.score IS NOT NULL AND o.failure IS NULL"
            " AND o.finish_reason IS DISTINCT FROM ? AND f.idempotency_key NOT LIKE ?"
            " GROUP BY o.model",
            (MAX_ATTEMPTS, RUBRIC_FINISH, f"{INTERNAL_KEY_PREFIX}%"),
        )
        return [(str(model), float(mean), int(count)) for model, mean, count in rows]

    async def held_attempts(self) -> Sequence[UnsettledAttempt]:
        """Return outcomes for which money is held until their cost is known, oldest first."""
        await self._flush()
        return await self._select_unsettled(
            "(outcomes.held_nano > 0 OR outcomes.state = 'unknown') ORDER BY outcomes.attempt_id"
        )

    async def decision(self, request_id: int) -> AttemptIntent | None:
        """Return the first intent of a request, which carries its plan."""
        await self._wait_for_others(request_id)
        rows = await self._select(AttemptIntent, "WHERE attempt_id = ?", (request_id,))
        return rows[0] if rows else None

    async def attempts(self, request_id: int) -> Sequence[AttemptOutcome]:
        """Return the outcomes of a request's attempts, in their order."""
        await self._wait_for_others(request_id)
        ids = (request_id, request_id | MAX_ATTEMPTS)
        return await self._select(
            AttemptOutcome, "WHERE attempt_id BETWEEN ? AND ? ORDER BY 1", ids
        )

    async def unsettled_attempts(self, since_ms: int) -> Sequence[UnsettledAttempt]:
        """Return costs without a bill since `since_ms` that have a generation id, newest first."""
        await self._flush()
        return await self._select_unsettled(
            "outcomes.attempt_id >= ? AND cost_source IN ('estimated', 'assumed')"
            " AND generation_id IS NOT NULL ORDER BY outcomes.attempt_id DESC LIMIT 1000",
            (first_id_at(since_ms),),
        )

    async def outcome_by_generation(self, generation_id: str) -> AttemptOutcome | None:
        """Return the outcome with an upstream's generation id.

        There is no index, since updating one would cost every request: OpenRouter's ids contain
        their second, and others are searched among the last day's.
        """
        await self._flush()
        first, last = _attempt_id_range(generation_id, time.time())
        rows = await self._select(
            AttemptOutcome,
            "WHERE attempt_id BETWEEN ? AND ? AND generation_id = ?",
            (first, last, generation_id),
        )
        return rows[0] if rows else None

    async def add_feedback(self, feedback: Feedback) -> bool:
        """Make feedback durable; return False if its idempotency key was used before."""

        def add(connection: Connection) -> bool:
            known = "SELECT 1 FROM feedback WHERE idempotency_key = ?"
            if connection.execute(known, (feedback.idempotency_key,)).fetchall():
                return False
            sql = insert_sql(Feedback) + " ON CONFLICT DO NOTHING"
            return bool(connection.execute(sql, astuple(feedback)).rowcount)

        return await self._change(add)

    async def feedback(self, decision_id: int) -> Sequence[Feedback]:
        """Return all feedback on a decision, oldest first."""
        return await self._select(
            Feedback, "WHERE decision_id = ? ORDER BY at_ms, idempotency_key", (decision_id,)
        )

    async def decisions(self, since_ms: int, limit: int) -> Sequence[AttemptIntent]:
        """Return the first `limit` decisions since `since_ms`, oldest first."""
        await self._flush()
        return await self._select(
            AttemptIntent,
            "WHERE attempt_id >= ? AND plan IS NOT NULL ORDER BY attempt_id LIMIT ?",
            (first_id_at(since_ms), limit),
        )

    async def add_lesson(self, lesson: LessonRow) -> None:
        """Make a lesson durable; the first one of a number stands."""

        def add(connection: Connection) -> None:
            connection.execute(insert_sql(LessonRow) + " ON CONFLICT DO NOTHING", astuple(lesson))
            bump(connection, "lessons")

        await self._change(add)

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
            " ORDER BY decision_id, at_ms, idempotency_key",
            (since_ms, since_ms, limit),
        )

    async def feedback_without_lesson(self, since_ms: int) -> Sequence[Feedback]:
        """Return scores since `since_ms` that have no lesson, oldest first."""
        return await self._select(
            Feedback,
            "WHERE at_ms >= ? AND score IS NOT NULL AND NOT EXISTS (SELECT 1 FROM lessons l"
            " WHERE l.decision_id = feedback.decision_id AND l.channel = feedback.channel)"
            " ORDER BY at_ms, idempotency_key",
            (since_ms,),
        )

    @property
    def problem(self) -> str:
        """The reason why no attempt can be written down now, or ""."""
        return "" if self._journal is None else self._journal.problem

    @property
    def depth(self) -> int:
        """The number of records that are in the journal only."""
        return 0 if self._journal is None else self._journal.behind

    @property
    def round_trips(self) -> int:
        """The number of questions to the database since it was opened."""
        return self._database.round_trips

    async def close(self) -> None:
        """Apply the journal, return the leases and close the database."""
        await self._lease_requests.close()
        await self._changes.close()
        if self._journal is not None:
            slot, running = self._journal.slot, self._journal.running
            if await self._journal.close():
                with suppress(Unavailable):
                    close = self._close_attempt if running else None
                    await asyncio.to_thread(self._retirement.retire, slot, close, running)
            slot.release()
        self._database.close()

    async def _wait_for_others(self, request_id: int) -> None:
        """Wait for this worker's journal, or until another one's has brought a recent request."""
        await self._flush()
        if self._journal is None or find_worker(request_id) == self.worker:
            return
        # A clock that was set back must not make this wait longer.
        made_ms = min(extract_timestamp_ms(request_id), time.time_ns() // 1_000_000)
        until_ms = made_ms + _SETTLE_MS
        sql = "SELECT 1 FROM outcomes WHERE attempt_id = ?"
        while time.time_ns() // 1_000_000 < until_ms and not await self._read(sql, (request_id,)):
            await asyncio.sleep(_SETTLE_POLL_S)

    async def _flush(self) -> None:
        if self._journal is not None:
            await self._journal.flush()

    async def _change(self, work: Callable[[Connection], _Result]) -> _Result:
        """Return the result of `work`, durable, in one transaction with others. Raises Unavailable.

        It may be called twice, if another change of the same transaction cannot be made.
        """
        result: _Result = await self._changes.add(work)
        return result

    async def _make_changes(self, works: Sequence[Change]) -> list[Any]:
        return await asyncio.to_thread(self._try_changes, works)

    def _try_changes(self, works: Sequence[Change]) -> list[Any]:
        """Return the results of changes that are made together, or else one by one."""
        # Rows of a server are locked one by one: two batches could wait for each other.
        if len(works) == 1 or not self._database.is_shared:
            try:
                return run_transaction(
                    self._database, lambda connection: [work(connection) for work in works]
                )
            except Exception as error:  # noqa: BLE001 - goes to whoever waits for the change
                if len(works) == 1:
                    return [error]
        results: list[Any] = []
        for work in works:
            is_away = self._database.is_shared and results and type(results[-1]) is Unavailable
            results += results[-1:] if is_away else self._try_changes([work])
        return results

    async def _change_keys(self, sql: str, values: Sequence[object]) -> None:
        def change(connection: Connection) -> None:
            connection.execute(sql, values)
            bump(connection, "keys")

        await self._change(change)

    async def _select(
        self, kind: type[_Row], rest: str = "", values: Sequence[object] = ()
    ) -> list[_Row]:
        """Return rows of `kind`; `rest` is the statement after the name of its table."""
        sql = f"SELECT {COLUMNS[kind]} FROM {TABLES[kind]} {rest}"  # noqa: S608
        return [kind(*row) for row in await self._read(sql, values)]

    async def _select_unsettled(
        self, condition: str, values: Sequence[object] = ()
    ) -> list[UnsettledAttempt]:
        rows = await self._read(
            f"SELECT {COLUMNS[AttemptOutcome]}, intents.upstream FROM outcomes"  # noqa: S608
            f" JOIN intents ON intents.attempt_id = outcomes.attempt_id WHERE {condition}",
            values,
        )
        return [UnsettledAttempt(AttemptOutcome(*row[:-1]), row[-1]) for row in rows]

    async def _sum_cost(self, condition: str, values: Sequence[object]) -> int:
        """Return the known costs of outcomes, in nano-dollars."""
        sql = "SELECT COALESCE(SUM(cost_nano), 0) FROM outcomes WHERE state != 'unknown' AND "
        rows = await self._read(sql + condition, values)
        return int(rows[0][0])

    async def _read(self, sql: str, values: Sequence[object] = ()) -> Rows:
        """Return the rows of a query. Raises Unavailable when the store cannot be read."""
        return await asyncio.to_thread(self._database.read, sql, values)


def _attempt_id_range(generation_id: str, now: float) -> tuple[int, int]:
    match = _GENERATION_ID.match(generation_id)
    start, end = (now - 86_400, now) if match is None else (int(match[1]), int(match[1]))
    seconds = (int(start - _GENERATION_SLACK_S), int(end + _GENERATION_SLACK_S))
    return first_id_at(seconds[0] * 1000), first_id_at(seconds[1] * 1000)
