"""One battery for every store, and what only the durable one can promise."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from sophia.adapters.store.driver import sqlite
from sophia.adapters.store.sqlite import SqliteStore
from sophia.adapters.store.writer import GroupCommit
from sophia.core.errors import SophiaError, Unavailable
from sophia.core.ids import JUDGING, first_id
from sophia.core.ports import Store
from sophia.core.rows import (
    OWN,
    RUBRIC,
    AttemptState,
    Feedback,
    Intent,
    KeyRow,
    LessonRow,
    OpenHold,
    Outcome,
    Spend,
)
from sophia.testing.memory import MemoryStore

NOW = first_id(time.time_ns() // 1_000_000)
DAY = "2026-11-23"


@pytest.fixture
def folder(tmp_path: Path, migrated: Path) -> Path:
    (tmp_path / "sophia.db").write_bytes(migrated.read_bytes())
    return tmp_path


@pytest.fixture(params=["sqlite", "memory"])
async def store(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Store]:
    opened: Store = (
        SqliteStore(folder / "sophia.db") if request.param == "sqlite" else MemoryStore()
    )
    yield opened
    await opened.close()


def intent(id: int, key: str = "k", window: str = DAY, held: int = 100) -> Intent:
    return Intent(id, key, window, "acme/m", "up", held, 5, b"{}" if id % 16 == 0 else None)


def outcome(
    id: int,
    state: AttemptState = "settled",
    cost: int = 7,
    *,
    key: str = "k",
    window: str = DAY,
    generation: str | None = None,
) -> Outcome:
    return Outcome(
        id, key, window, "acme/m", state, cost, "upstream", 8, 1, 2, 0, 0, "stop", None,
        generation, "Acme", 1.5, 2.5, 6,
    )


def verdict(key: str = "a", decision: int = NOW, score: float | None = 0.5, at: int = 1) -> Feedback:
    return Feedback(key, decision, "k", score, "good", 3, "acme/n", "api", at)


async def test_an_intent_can_be_read_back(store: Store) -> None:
    await store.reserve(intent(NOW))
    assert await store.decision(NOW) == intent(NOW)
    assert await store.decision(NOW + 16) is None


async def test_outcomes_come_in_the_order_of_their_attempts(store: Store) -> None:
    for number in (2, 0, 1):
        await store.reserve(intent(NOW + number))
        store.settle(outcome(NOW + number, cost=number))
    store.settle(outcome(NOW + 16))
    store.settle(outcome(NOW - 1))
    assert await store.attempts(NOW) == [outcome(NOW + n, cost=n) for n in range(3)]
    assert await store.attempts(NOW + 32) == []


async def test_the_first_outcome_of_an_attempt_stands(store: Store) -> None:
    store.settle(outcome(NOW, cost=1))
    store.settle(outcome(NOW, cost=2))
    assert [row.cost_nano for row in await store.attempts(NOW)] == [1]


async def test_a_hold_is_open_until_its_bill_is_known(store: Store) -> None:
    for number, state in enumerate(("settled", "released", "unknown", None)):
        await store.reserve(intent(NOW + number, held=number))
        if state is not None:
            store.settle(outcome(NOW + number, state))  # type: ignore[arg-type]
    await store.attempts(NOW)
    assert sorted(await store.open_holds()) == [
        OpenHold(NOW + 2, "k", DAY, 2), OpenHold(NOW + 3, "k", DAY, 3)
    ]


async def test_spends_are_summed_by_key_in_one_window(store: Store) -> None:
    store.settle(outcome(NOW, cost=1))
    store.settle(outcome(NOW + 1, "released", 0))
    store.settle(outcome(NOW + 2, cost=2**60))
    store.settle(outcome(NOW + 3, "unknown", 50))
    store.settle(outcome(NOW + 16, cost=3, key="other"))
    store.settle(outcome(NOW + 32, cost=4, window="2026-11-24"))
    await store.attempts(NOW)
    assert sorted(await store.spends(DAY)) == [Spend("k", DAY, 2**60 + 1), Spend("other", DAY, 3)]
    assert await store.spends("2026-01-01") == []
    assert await store.spent("k", DAY) == 2**60 + 5 and await store.spent("k", "2026-11-24") == 4
    assert await store.spent("k", "") == 2**60 + 5 and await store.spent("nobody", "") == 0
    ((model, nano),) = await store.costs()
    assert model == "acme/m" and nano >= 2**60 + 8


async def test_a_generation_is_found_by_its_id(store: Store) -> None:
    second = NOW // first_id(1000)
    for number, id in enumerate((f"gen-{second}-abc", "chatcmpl-7", None)):
        store.settle(outcome(NOW + number, generation=id))
        if id is not None:
            assert await store.by_generation(id) == outcome(NOW + number, generation=id)
    assert await store.by_generation("gen-none") is None


async def test_keys_are_kept_and_revoked(store: Store) -> None:
    key = KeyRow("k1", b"\x00\xff", "first", "inference", None, 5, 1)
    other = KeyRow("k2", b"x", "second", "admin", 0, None, 2)
    await store.add_key(key)
    await store.add_key(other)
    assert sorted(await store.keys()) == [key, other]
    await store.revoke_key("k1", 9)
    await store.revoke_key("nobody", 9)
    assert sorted(await store.keys()) == [key._replace(revoked_ms=9), other]


async def test_feedback_is_kept_once_for_each_idempotency_key(store: Store) -> None:
    assert await store.add_feedback(verdict("b", at=2))
    assert await store.add_feedback(verdict("a", at=1))
    assert not await store.add_feedback(verdict("a", score=0.9))
    assert await store.add_feedback(verdict("c", decision=NOW + 16, score=None))
    assert await store.feedback(NOW) == [verdict("a", at=1), verdict("b", at=2)]
    assert await store.feedback(NOW + 32) == []


async def test_what_judging_costs_is_told_apart_from_answering(store: Store) -> None:
    """The judge's own purse must be found again after a restart, over all keys."""
    store.settle(outcome(NOW, cost=100))
    store.settle(outcome(NOW | JUDGING, cost=7))
    store.settle(outcome(NOW + 16 | JUDGING, cost=5, key="other"))
    store.settle(outcome(NOW + 32 | JUDGING, "unknown", cost=9))
    store.settle(outcome(NOW + 48 | JUDGING, cost=11, window="2026-11-22"))
    await store.attempts(NOW)
    assert await store.judging(DAY) == 12


async def test_decisions_that_several_channels_scored_are_found(store: Store) -> None:
    """They tell what each channel is worth; words without a score, or alone, do not."""
    said = [
        ("a", NOW, "score", 1), ("b", NOW, "thumb", 2), ("c", NOW + 16, "score", 3),
        ("d", NOW + 16, "score", 4), ("e", NOW + 32, "judge", 6), ("f", NOW + 32, "score", 5),
    ]
    for key, decision, channel, at in said:
        await store.add_feedback(verdict(key, decision, at=at)._replace(channel=channel))
    await store.add_feedback(verdict("g", NOW + 16, None, at=7)._replace(channel="edit"))

    async def found(since: int, limit: int) -> str:
        return "".join(one.idempotency_key for one in await store.compared(since, limit))

    assert await found(0, 10) == "abfe"
    assert await found(0, 1) == "fe"
    assert await found(2, 10) == "fe"


async def test_lessons_are_read_back_in_the_order_of_their_numbers(store: Store) -> None:
    """What was learned can be learned again: every lesson once, none before its turn."""
    rows = [LessonRow(n, NOW, "k", f"arm-{n}", 0.25 * n, 1.0, "heuristic", n) for n in (1, 2, 3)]
    for row in (rows[1], rows[0], rows[2], rows[2]._replace(quality=0.0)):
        await store.add_lesson(row)
    assert await store.lessons(0, 10) == rows
    assert await store.lessons(1, 1) == [rows[1]]
    assert await store.lessons(3, 10) == []


async def test_scores_without_a_lesson_are_told_in_their_order(store: Store) -> None:
    """One lesson for each decision and channel; a word without a score teaches nothing."""
    for name, at, decision, channel in (
        ("late", 9, 0, "edit"),
        ("taught", 3, 0, "score"),
        ("again", 4, 0, "score"),
        ("other", 5, 16, "score"),
        ("old", 1, 32, "score"),
    ):
        row = verdict(name, decision=NOW + decision, at=at)
        await store.add_feedback(row._replace(channel=channel))
    await store.add_feedback(verdict("mute", decision=NOW + 48, score=None, at=6))
    await store.add_lesson(LessonRow(1, NOW, "k", "arm", 0.5, 1.0, "heuristic", 3))
    found = await store.unlearned(2)
    assert [one.idempotency_key for one in found] == ["other", "late"]
    assert found[0] == verdict("other", decision=NOW + 16, at=5)._replace(channel="score")


async def test_decisions_are_the_intents_with_a_plan_since_a_moment(store: Store) -> None:
    """Replays read decisions, not the further attempts of a request."""
    first, second = first_id(1_000), first_id(2_000)
    for id, plan in ((first, b"1"), (first | 1, None), (second, b"2")):
        await store.reserve(Intent(id, "k", "2026-01-01", "m", "u", 1, 1, plan))
    assert [row.attempt_id for row in await store.decisions(0, 10)] == [first, second]
    assert [row.plan for row in await store.decisions(1_500, 10)] == [b"2"]
    assert [row.plan for row in await store.decisions(0, 1)] == [b"1"]


async def test_feedback_that_comes_twice_at_once_is_kept_once(store: Store) -> None:
    kept = await asyncio.gather(*(store.add_feedback(verdict("same")) for _ in range(5)))
    assert sorted(kept) == [False] * 4 + [True]


async def test_many_reserves_at_once_are_all_kept(store: Store) -> None:
    ids = [NOW + 16 * n for n in range(300)]
    await asyncio.gather(*(store.reserve(intent(id)) for id in ids))
    assert [hold.attempt_id for hold in sorted(await store.open_holds())] == ids


async def test_what_was_handed_over_is_there_after_a_restart(folder: Path) -> None:
    store = SqliteStore(folder / "sophia.db")
    await store.reserve(intent(NOW))
    store.settle(outcome(NOW))
    await store.close()
    again = SqliteStore(folder / "sophia.db")
    assert await again.attempts(NOW) == [outcome(NOW)]
    assert await again.open_holds() == []
    await again.close()


async def test_a_row_that_cannot_be_kept_does_not_stop_the_ledger(folder: Path) -> None:
    """A clock that stepped back over a restart can make an id a second time."""
    store = SqliteStore(folder / "sophia.db")
    await store.reserve(intent(NOW))
    async with asyncio.timeout(3):
        with pytest.raises(SophiaError):
            await store.reserve(intent(NOW, held=999))
        store.settle(outcome(NOW + 1))
        await store.reserve(intent(NOW + 16))
        assert await store.attempts(NOW) == [outcome(NOW + 1)]
        first = await store.decision(NOW)
        assert first is not None and first.held_nano == 100
    await store.close()


async def test_a_locked_ledger_refuses_but_loses_nothing(
    folder: Path,
) -> None:
    store = SqliteStore(folder / "sophia.db")
    lock = sqlite().connect(str(folder / "sophia.db"), isolation_level=None)
    store.settle(outcome(NOW))
    lock.execute("BEGIN IMMEDIATE")
    waiting = asyncio.ensure_future(store.reserve(intent(NOW + 16)))
    store.settle(outcome(NOW + 1))
    with pytest.raises(Unavailable):
        await asyncio.wait_for(waiting, 8)
    lock.execute("ROLLBACK")
    lock.close()
    assert await store.attempts(NOW) == [outcome(NOW), outcome(NOW + 1)]
    await store.reserve(intent(NOW + 32))
    await store.close()


async def test_a_full_queue_refuses_and_recovers(folder: Path) -> None:
    writer = GroupCommit(folder / "sophia.db", limit=3)
    sql = "INSERT INTO keys (id, digest, name, scope, created_ms) VALUES (?, 'd', 'n', 's', 1)"
    lock = sqlite().connect(str(folder / "sophia.db"), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    taken = [writer.write(sql, (str(n),)) for n in range(3)]
    with pytest.raises(Unavailable, match="keep up"):
        writer.write(sql, ("x",))
    writer.defer(sql, ("deferred",))
    lock.execute("ROLLBACK")
    await asyncio.gather(*taken)
    await writer.flush()
    assert writer.depth == 0
    await writer.write(sql, ("y",))
    names = [row[0] for row in lock.execute("SELECT id FROM keys ORDER BY id")]
    lock.close()
    assert names == ["0", "1", "2", "deferred", "y"]
    await writer.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from sophia.adapters.store.driver import sqlite
from sophia.adapters.store.sqlite import SqliteStore
from sophia.core.rows import Intent

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    async def one(lane):
        for number in range(100_000):
            id = (lane * 1_000_000 + number) * 16
            await store.reserve(Intent(id, "k", "d", "m", "u", 1, 1))
            sys.stdout.write(f"{id}\\n")
            sys.stdout.flush()
    await asyncio.gather(*map(one, range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("acked", [1, 300])
def test_what_was_acknowledged_survives_a_kill(folder: Path, acked: int) -> None:
    path = folder / "sophia.db"
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    seen = [child.stdout.readline() for _ in range(acked)]
    child.kill()
    seen += child.stdout.read().splitlines(keepends=True)
    child.stdout.close()
    child.wait()
    promised = {int(line) for line in seen if line.endswith(b"\n")}
    database = sqlite().connect(str(path))
    kept = {row[0] for row in database.execute("SELECT attempt_id FROM intents")}
    intact = database.execute("PRAGMA integrity_check").fetchone()
    database.close()
    assert len(promised) >= acked and promised <= kept and intact == ("ok",)


async def test_scores_are_averaged_for_the_model_that_answered(store: Store) -> None:
    """What feedback said is not forgotten with the process."""
    await store.reserve(Intent(NOW, "k", DAY, "acme/m", "up", 1, 1))
    store.settle(outcome(NOW, cost=1))
    for number, score in enumerate((1.0, 0.5)):
        await store.add_feedback(
            Feedback(f"k:{number}", NOW, "k", score, None, 0, None, "api", number)
        )
    own = Feedback(f"{OWN}{NOW}:validator", NOW, "k", 0.0, None, 0, None, "validator", 2)
    await store.add_feedback(own)
    mark = outcome(NOW | 1, cost=1)._replace(model="acme/judge", finish_reason=RUBRIC)
    await store.reserve(Intent(NOW | 1, "k", DAY, "acme/judge", "up", 1, 1))
    store.settle(mark)
    await store.attempts(NOW)
    assert list(await store.scores()) == [("acme/m", 0.75, 2)]


@pytest.mark.parametrize("state", ["unknown", "settled"])
async def test_an_upstreams_bill_replaces_a_guess(store: Store, state: AttemptState) -> None:
    guess = outcome(NOW, state, 50)._replace(cost_source="estimated")
    bill = outcome(NOW, "settled", 7)
    await store.reserve(intent(NOW))
    for row in (guess, bill, guess._replace(cost_nano=60), bill._replace(cost_nano=9)):
        store.settle(row)
    assert await store.attempts(NOW) == [bill]
    assert await store.open_holds() == []
    assert await store.spends(DAY) == [Spend("k", DAY, 7)]


async def test_another_guess_does_not_replace_the_first(store: Store) -> None:
    guess = outcome(NOW, cost=50)._replace(cost_source="estimated")
    store.settle(guess)
    for source in ("estimated", "priced", "none"):
        store.settle(outcome(NOW, cost=60)._replace(cost_source=source))  # type: ignore[arg-type]
    assert await store.attempts(NOW) == [guess]


async def test_open_guesses_are_found_newest_first(store: Store) -> None:
    for number in range(5):
        await store.reserve(intent(NOW + 16 * number, held=number))
    guesses = [
        outcome(NOW + 16 * n, "unknown", n, generation=f"g{n}")._replace(cost_source="estimated")
        for n in range(4)
    ]
    guesses[1] = guesses[1]._replace(generation_id=None)
    for row in guesses:
        store.settle(row)
    store.settle(outcome(NOW + 64, generation="g4"))
    found = await store.unresolved(NOW // first_id(1))
    assert [(row.outcome, row.upstream, row.held_nano) for row in found] == [
        (guesses[n], "up", n) for n in (3, 2, 0)
    ]
    assert await store.unresolved(NOW // first_id(1) + 60_000) == []


async def test_a_number_that_no_ledger_holds_costs_only_its_own_row(folder: Path) -> None:
    store = SqliteStore(folder / "sophia.db")
    store.settle(outcome(NOW, cost=1))
    store.settle(outcome(NOW + 1, cost=2**63))
    store.settle(outcome(NOW + 2, cost=3))
    async with asyncio.timeout(3):
        # Who waits for the same batch may be refused once; the rows are kept all the same.
        with suppress(Unavailable):
            await store.attempts(NOW)
        assert [row.cost_nano for row in await store.attempts(NOW)] == [1, 3]
        with pytest.raises(SophiaError):
            await store.reserve(intent(NOW + 16, held=2**63))
        await store.reserve(intent(NOW + 32))
        assert await store.decision(NOW + 32) == intent(NOW + 32)
    await store.close()


async def test_a_ledger_that_cannot_be_written_refuses_at_once_and_recovers(tmp_path: Path) -> None:
    """Nobody hangs on a broken ledger: who waits is told, and so is who comes later."""
    path = tmp_path / "ledger.db"
    store = SqliteStore(path)
    other = sqlite().connect(str(path), isolation_level=None)
    other.execute("ALTER TABLE intents RENAME TO away")
    for number in range(3):
        with pytest.raises(Unavailable, match="cannot be written"):
            await asyncio.wait_for(
                store.reserve(Intent(NOW + 16 * number, "k", DAY, "m", "up", 1, 1)), 2.0
            )
    assert "intents" in store.problem
    other.execute("ALTER TABLE away RENAME TO intents")
    other.close()
    while store.problem:
        await asyncio.sleep(0.02)
    await store.reserve(Intent(NOW + 160, "k", DAY, "m", "up", 1, 1))
    assert NOW + 160 in {hold.attempt_id for hold in await store.open_holds()}
    await store.close()


async def test_a_broken_ledger_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    """What is not kept then counts as a hold at the next start."""
    path = tmp_path / "ledger.db"
    store = SqliteStore(path)
    await store.reserve(Intent(NOW, "k", DAY, "m", "up", 5, 1))
    other = sqlite().connect(str(path), isolation_level=None)
    other.execute("ALTER TABLE outcomes RENAME TO away")
    store.settle(outcome(NOW, cost=1))
    await asyncio.wait_for(store.close(), 20.0)
    other.execute("ALTER TABLE away RENAME TO outcomes")
    other.close()
    again = SqliteStore(path)
    assert [hold.held_nano for hold in await again.open_holds()] == [5]
    await again.close()
