"""One battery for every store."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from sophia.adapters.store.lease_statements import bump
from sophia.core.errors import Unavailable
from sophia.core.ids import JUDGE_ATTEMPT, WORKER_SHIFT, extract_timestamp_ms, first_id_at
from sophia.core.ports import Store
from sophia.core.rows import (
    INTERNAL_KEY_PREFIX,
    JUDGE_ACCOUNT,
    RUBRIC_FINISH,
    AccountRow,
    AttemptIntent,
    AttemptState,
    Feedback,
    KeyRow,
    LessonRow,
)
from store_rows import DAY, NOW, feedback, intent, outcome
from stores import open_test_database, open_test_store


@pytest.fixture
async def store(any_folder: Path) -> AsyncIterator[Store]:
    async with open_test_store(any_folder) as opened:
        yield opened


async def test_an_intent_can_be_read_back(store: Store) -> None:
    await store.reserve(intent(NOW))
    assert await store.decision(NOW) == intent(NOW)
    assert await store.decision(NOW + 16) is None


async def test_a_worker_finds_the_newest_attempt_of_its_number(store: Store) -> None:
    """Not those of others, nor those before the time that is asked for."""
    first = NOW + (store.worker << WORKER_SHIFT)
    for id in (first, first + 32, NOW + 1024 + (store.worker + 1 << WORKER_SHIFT)):
        await store.reserve(intent(id))
    assert await store.decision(first) is not None
    at_ms = extract_timestamp_ms(NOW)
    assert await store.newest_attempt(at_ms) == first + 32
    assert await store.newest_attempt(at_ms + 1) == 0


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


async def test_accounts_sum_up_what_is_spent_and_what_is_held(store: Store) -> None:
    for number, state in enumerate(("settled", "released", "unknown")):
        held = 40 if state == "unknown" else 0
        row = outcome(NOW + number, state, cost=0 if state == "released" else 40)  # type: ignore[arg-type]
        store.settle(replace(row, held_nano=held))
    store.settle(replace(outcome(NOW + 3, cost=5, key="other"), held_nano=6))
    assert await store.account("k", DAY) == AccountRow("k", DAY, 40, 40)
    assert await store.account("other", DAY) == AccountRow("other", DAY, 5, 6)
    assert await store.account("absent", DAY) == AccountRow("absent", DAY)
    assert {row.account for row in await store.accounts(DAY)} == {"k", "other"}
    assert await store.accounts("2026-01-01") == []


async def test_spends_are_summed_by_key_in_one_window(store: Store) -> None:
    store.settle(outcome(NOW, cost=1))
    store.settle(outcome(NOW + 1, "released", 0))
    store.settle(outcome(NOW + 2, cost=2**60))
    store.settle(outcome(NOW + 3, "unknown", 50))
    store.settle(outcome(NOW + 16, cost=3, key="other"))
    store.settle(outcome(NOW + 32, cost=4, window="2026-11-24"))
    await store.attempts(NOW)
    assert (
        await store.spend_since("k", DAY) == 2**60 + 5
        and await store.spend_since("k", "2026-11-24") == 4
    )
    assert (
        await store.spend_since("k", "") == 2**60 + 5 and await store.spend_since("absent", "") == 0
    )
    ((model, nano),) = await store.cost_by_model()
    assert model == "acme/m" and nano >= 2**60 + 8


async def test_a_generation_is_found_by_its_id(store: Store) -> None:
    second = NOW // first_id_at(1000)
    for number, id in enumerate((f"gen-{second}-abc", "chatcmpl-7", None)):
        store.settle(outcome(NOW + number, generation=id))
        if id is not None:
            assert await store.outcome_by_generation(id) == outcome(NOW + number, generation=id)
    assert await store.outcome_by_generation("gen-none") is None


async def test_keys_are_kept_and_revoked(store: Store) -> None:
    key = KeyRow(
        id="k1",
        digest=b"\x00\xff",
        name="first",
        scope="inference",
        daily_budget_nano=None,
        per_request_nano=5,
        created_ms=1,
    )
    other = KeyRow(
        id="k2",
        digest=b"x",
        name="second",
        scope="admin",
        daily_budget_nano=0,
        per_request_nano=None,
        created_ms=2,
    )
    await store.add_key(key)
    await store.add_key(other)
    assert sorted(await store.keys()) == [key, other]
    changed = replace(
        other, name="changed", daily_budget_nano=5, per_request_nano=6, explores=False
    )
    await store.update_key(replace(changed, digest=b"y", scope="inference", created_ms=3))
    await store.update_key(replace(changed, id="absent"))
    assert sorted(await store.keys()) == [key, changed]
    other = changed
    await store.revoke_key("k1", 9)
    await store.revoke_key("absent", 9)
    assert sorted(await store.keys()) == [replace(key, revoked_ms=9), other]


async def test_feedback_is_kept_once_for_each_idempotency_key(store: Store) -> None:
    assert await store.add_feedback(feedback("b", at=2))
    assert await store.add_feedback(feedback("a", at=1))
    assert not await store.add_feedback(feedback("a", score=0.9))
    assert await store.add_feedback(feedback("c", decision=NOW + 16, score=None))
    assert await store.feedback(NOW) == [feedback("a", at=1), feedback("b", at=2)]
    assert await store.feedback(NOW + 32) == []


async def test_the_cost_of_judging_is_known_separately(store: Store) -> None:
    """The judge's budget is restored after a restart, over all keys."""
    store.settle(outcome(NOW, cost=100))
    store.settle(outcome(NOW | JUDGE_ATTEMPT, cost=7))
    store.settle(outcome(NOW + 16 | JUDGE_ATTEMPT, cost=5, key="other"))
    store.settle(replace(outcome(NOW + 32 | JUDGE_ATTEMPT, "unknown", cost=9), held_nano=9))
    store.settle(outcome(NOW + 48 | JUDGE_ATTEMPT, cost=11, window="2026-11-22"))
    assert await store.account(JUDGE_ACCOUNT, DAY) == AccountRow(JUDGE_ACCOUNT, DAY, 12, 9)
    assert await store.account("k", DAY) == AccountRow("k", DAY, 107, 9)


async def test_decisions_that_several_channels_scored_are_found(store: Store) -> None:
    """They show the reliability of each channel; feedback without a score, or alone, does not."""
    rows = [
        ("a", NOW, "score", 1),
        ("b", NOW, "thumb", 2),
        ("c", NOW + 16, "score", 3),
        ("d", NOW + 16, "score", 4),
        ("e", NOW + 32, "judge", 6),
        ("f", NOW + 32, "score", 5),
    ]
    for key, decision, channel, at in rows:
        await store.add_feedback(replace(feedback(key, decision, at=at), channel=channel))
    await store.add_feedback(replace(feedback("g", NOW + 16, None, at=7), channel="edit"))

    async def keys(since: int, limit: int) -> str:
        return "".join(
            row.idempotency_key for row in await store.multi_channel_feedback(since, limit)
        )

    assert await keys(0, 10) == "abfe"
    assert await keys(0, 1) == "fe"
    assert await keys(2, 10) == "fe"


async def test_lessons_are_read_back_in_the_order_of_their_numbers(store: Store) -> None:
    """A policy can be retrained: every lesson once, in its order."""
    rows = [
        LessonRow(
            number=n,
            decision_id=NOW,
            key_id="k",
            arm=f"arm-{n}",
            quality=0.25 * n,
            weight=1.0,
            policy="heuristic",
            at_ms=n,
        )
        for n in (1, 2, 3)
    ]
    for row in (rows[1], rows[0], rows[2], replace(rows[2], quality=0.0)):
        await store.add_lesson(row)
    assert await store.lessons(0, 10) == rows
    assert await store.lessons(1, 1) == [rows[1]]
    assert await store.lessons(3, 10) == []


async def test_scores_without_a_lesson_are_returned_in_their_order(store: Store) -> None:
    """One lesson for each decision and channel; feedback without a score has none."""
    for name, at, decision, channel in (
        ("late", 9, 0, "edit"),
        ("taught", 3, 0, "score"),
        ("again", 4, 0, "score"),
        ("other", 5, 16, "score"),
        ("old", 1, 32, "score"),
    ):
        row = feedback(name, decision=NOW + decision, at=at)
        await store.add_feedback(replace(row, channel=channel))
    await store.add_feedback(feedback("mute", decision=NOW + 48, score=None, at=6))
    await store.add_lesson(
        LessonRow(
            number=1,
            decision_id=NOW,
            key_id="k",
            arm="arm",
            quality=0.5,
            weight=1.0,
            policy="heuristic",
            at_ms=3,
        )
    )
    rows = await store.feedback_without_lesson(2)
    assert [row.idempotency_key for row in rows] == ["other", "late"]
    assert rows[0] == replace(feedback("other", decision=NOW + 16, at=5), channel="score")


async def test_decisions_are_the_intents_with_a_plan_since_a_moment(store: Store) -> None:
    """Replays read decisions, not the further attempts of a request."""
    first, second = first_id_at(1_000), first_id_at(2_000)
    for id, plan in ((first, b"1"), (first | 1, None), (second, b"2")):
        await store.reserve(
            AttemptIntent(
                attempt_id=id,
                key_id="k",
                window="2026-01-01",
                model="m",
                upstream="u",
                held_nano=1,
                at_ms=1,
                plan=plan,
            )
        )
    assert [row.attempt_id for row in await store.decisions(0, 10)] == [first, second]
    assert [row.plan for row in await store.decisions(1_500, 10)] == [b"2"]
    assert [row.plan for row in await store.decisions(0, 1)] == [b"1"]


async def test_feedback_that_comes_twice_at_once_is_kept_once(store: Store) -> None:
    results = await asyncio.gather(*(store.add_feedback(feedback("same")) for _ in range(5)))
    assert sorted(results) == [False] * 4 + [True]


async def test_many_reserves_at_once_are_all_kept(store: Store) -> None:
    ids = [NOW + 16 * n for n in range(300)]
    await asyncio.gather(*(store.reserve(intent(id)) for id in ids))
    assert [(await store.decision(id)) for id in ids] == [intent(id) for id in ids]


async def test_scores_are_averaged_for_the_model_that_answered(store: Store) -> None:
    """Mean scores survive a restart."""
    await store.reserve(
        AttemptIntent(
            attempt_id=NOW,
            key_id="k",
            window=DAY,
            model="acme/m",
            upstream="up",
            held_nano=1,
            at_ms=1,
        )
    )
    store.settle(outcome(NOW, cost=1))
    for number, score in enumerate((1.0, 0.5)):
        await store.add_feedback(
            Feedback(
                idempotency_key=f"k:{number}",
                decision_id=NOW,
                key_id="k",
                score=score,
                label=None,
                comment_chars=0,
                preferred_model=None,
                channel="api",
                at_ms=number,
            )
        )
    own = Feedback(
        idempotency_key=f"{INTERNAL_KEY_PREFIX}{NOW}:validator",
        decision_id=NOW,
        key_id="k",
        score=0.0,
        label=None,
        comment_chars=0,
        preferred_model=None,
        channel="validator",
        at_ms=2,
    )
    await store.add_feedback(own)
    mark = replace(outcome(NOW | 1, cost=1), model="acme/judge", finish_reason=RUBRIC_FINISH)
    await store.reserve(
        AttemptIntent(
            attempt_id=NOW | 1,
            key_id="k",
            window=DAY,
            model="acme/judge",
            upstream="up",
            held_nano=1,
            at_ms=1,
        )
    )
    store.settle(mark)
    await store.attempts(NOW)
    assert list(await store.mean_scores()) == [("acme/m", 0.75, 2)]


async def test_attempts_of_unknown_cost_are_found(store: Store) -> None:
    rows = [outcome(NOW + 16 * n, state) for n, state in enumerate(("unknown", "settled") * 2)]  # type: ignore[arg-type]
    for row in rows:
        await store.reserve(intent(row.attempt_id))
        store.settle(row)
    await store.attempts(NOW)
    unknown = await store.held_attempts()
    assert [(each.outcome, each.upstream) for each in unknown] == [(rows[0], "up"), (rows[2], "up")]


async def test_an_assumed_cost_ends_a_doubt_and_only_a_bill_replaces_it(store: Store) -> None:
    """Time turns what is in doubt into what is spent, once, and never touches a known cost."""
    guess = replace(
        outcome(NOW, "unknown", 50, generation="g"), cost_source="estimated", held_nano=50
    )
    assumed = replace(guess, state="settled", cost_source="assumed", held_nano=0)
    await store.reserve(intent(NOW))
    for row in (guess, assumed, replace(assumed, cost_nano=60), guess):
        store.settle(row)
    assert await store.attempts(NOW) == [assumed]
    assert await store.held_attempts() == []
    assert await store.account("k", DAY) == AccountRow("k", DAY, 50)
    assert [each.outcome for each in await store.unsettled_attempts(0)] == [assumed]
    bill = outcome(NOW, "settled", 7)
    store.settle(bill)
    store.settle(assumed)
    assert await store.attempts(NOW) == [bill]
    known = replace(outcome(NOW + 16, cost=9), cost_source="estimated")
    store.settle(known)
    store.settle(replace(known, cost_nano=10, cost_source="assumed"))
    assert await store.attempts(NOW + 16) == [known]


@pytest.mark.parametrize("state", ["unknown", "settled"])
async def test_an_upstreams_bill_replaces_a_guess(store: Store, state: AttemptState) -> None:
    guess = replace(outcome(NOW, state, 50), cost_source="estimated", held_nano=50)
    bill = outcome(NOW, "settled", 7)
    await store.reserve(intent(NOW))
    for row in (guess, bill, replace(guess, cost_nano=60), replace(bill, cost_nano=9)):
        store.settle(row)
    assert await store.attempts(NOW) == [bill]
    assert await store.held_attempts() == []
    assert await store.account("k", DAY) == AccountRow("k", DAY, 7)


async def test_another_guess_does_not_replace_the_first(store: Store) -> None:
    guess = replace(outcome(NOW, cost=50), cost_source="estimated")
    store.settle(guess)
    for source in ("estimated", "priced", "none"):
        store.settle(replace(outcome(NOW, cost=60), cost_source=source))  # type: ignore[arg-type]
    assert await store.attempts(NOW) == [guess]


async def test_open_guesses_are_found_newest_first(store: Store) -> None:
    for number in range(5):
        await store.reserve(intent(NOW + 16 * number, held=number))
    guesses = [
        replace(outcome(NOW + 16 * n, "unknown", n, generation=f"g{n}"), cost_source="estimated")
        for n in range(4)
    ]
    guesses[1] = replace(guesses[1], generation_id=None)
    for row in guesses:
        store.settle(row)
    store.settle(outcome(NOW + 64, generation="g4"))
    rows = await store.unsettled_attempts(NOW // first_id_at(1))
    assert [(row.outcome, row.upstream) for row in rows] == [(guesses[n], "up") for n in (3, 2, 0)]
    assert await store.unsettled_attempts(NOW // first_id_at(1) + 60_000) == []


def test_closing_waits_for_what_other_threads_do(any_folder: Path) -> None:
    """A cancelled task leaves its thread behind, which still uses the connection."""
    database = open_test_database(any_folder, wait_seconds=1.0)
    running, finished = threading.Barrier(3), list[str]()

    def write() -> None:
        with database.transaction() as connection:
            running.wait(5)
            time.sleep(0.2)
            bump(connection, "a")
            finished.append("written")

    def read() -> None:
        with database.snapshot() as connection:
            running.wait(5)
            time.sleep(0.2)
            connection.execute("SELECT topic FROM changes").fetchall()
            finished.append("read")

    with ThreadPoolExecutor(2) as pool:
        works = [pool.submit(write), pool.submit(read)]
        running.wait(5)
        database.close()
        assert sorted(finished) == ["read", "written"]
        for work in works:
            work.result()
    with pytest.raises(Unavailable, match="closed"):
        database.read("SELECT 1")
    with pytest.raises(Unavailable, match="closed"), database.transaction():
        pass
