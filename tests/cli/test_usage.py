"""`sophia usage` over a ledger that a running Sophia wrote, and over one that is made up."""

import asyncio
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace
from terminal import Run, Served

from sophia.adapters.store.databases.address import StoreAddress
from sophia.adapters.store.report import GroupBy, UsageTotals, read_usage
from sophia.core.rows import AttemptIntent, AttemptOutcome, KeyRow
from sophia.tenants.budget import day_window
from stores import write_rows

TODAY = day_window(time.time())


def _intent(attempt: int, model: str, held: int, key: str = "k1") -> AttemptIntent:
    return AttemptIntent(
        attempt_id=attempt,
        key_id=key,
        window=TODAY,
        model=model,
        upstream="openrouter",
        held_nano=held,
        at_ms=0,
    )


def _outcome(
    attempt: int, model: str, cost: int, state: str = "settled", failure: str | None = None
) -> AttemptOutcome:
    tokens = (10, 20, 0, 0)
    return AttemptOutcome(
        attempt, "k1", TODAY, model, state, cost, "priced", cost, *tokens,  # type: ignore[arg-type]
        None, failure, None, None, None, 1.0, 0,
    )  # fmt: skip


@pytest.fixture
async def ledger(tmp_path: Path) -> Path:
    """Three requests: one that moved on from `a` to `b`, one unknown, one without any outcome."""
    attempts = ((16, "a"), (17, "b"), (32, "b"), (48, "c"))
    rows: list[object] = [_intent(attempt, model, 1000) for attempt, model in attempts]
    rows.append(_outcome(16, "a", 0, "released", "status:500"))
    rows.append(_outcome(17, "b", 700))
    rows.append(replace(_outcome(32, "b", 300, "unknown", "client_gone"), held_nano=300))
    write_rows(tmp_path / "sophia.db", rows)
    return tmp_path / "sophia.db"


def totals(path: Path, group_by: GroupBy, since: str = TODAY) -> Sequence[UsageTotals]:
    report = read_usage(StoreAddress(path), group_by, since)
    assert report is not None
    return report.rows


async def test_the_report_adds_up_by_model(ledger: Path) -> None:
    """Failures leave out callers who left; what is not settled is held, not spent."""
    rows = {row.name: row for row in totals(ledger, "model")}
    assert (rows["a"].requests, rows["a"].failures, rows["a"].cost_nano) == (1, 1, 0)
    assert (rows["b"].requests, rows["b"].failures, rows["b"].cost_nano) == (2, 0, 700)
    assert (rows["b"].open_holds, rows["b"].held_nano) == (1, 300)
    assert (rows["c"].requests, rows["c"].open_holds) == (0, 1)


async def test_only_the_answers_that_callers_got_are_compared(tmp_path: Path) -> None:
    """Not the first answer of a cascade, nor a judge's, nor what failed before."""
    path, rows = tmp_path / "sophia.db", []
    for attempt, failure in ((16, "check:schema"), (17, None), (31, None), (32, "status:500")):
        rows += [_intent(attempt, "a", 1000), _outcome(attempt, "a", 100, failure=failure)]
    write_rows(path, rows)
    report = read_usage(StoreAddress(path), "model", TODAY)
    assert report is not None
    assert report.served_tokens == (10, 20)
    assert report.rows[0].prompt_tokens == 40


async def test_a_request_counts_once_for_its_key(ledger: Path) -> None:
    """Two attempts of one request are one request of the key, and of the day."""
    (by_key,), (by_day,) = totals(ledger, "key"), totals(ledger, "day")
    assert by_key.requests == by_day.requests == 2
    assert by_key.attempts == 3
    assert by_key.open_holds == 2


async def test_days_before_the_first_are_left_out(ledger: Path) -> None:
    """`since` is the first day that counts."""
    assert totals(ledger, "model", "9999-01-01") == []


def test_usage_tells_of_holds_within_80_columns(ledger: Path, run_process: Run) -> None:
    """What is held is explained where it appears."""
    ran = run_process("usage", "--data-dir", str(ledger.parent), COLUMNS="80")
    assert ran.code == 0
    assert "bill is not known yet" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_every_day_has_a_bar_in_proportion_to_its_cost(ledger: Path, run: Run) -> None:
    """The most expensive day fills the width; days without cost stay empty, and are listed."""
    ran = run("usage", "--days", "3", "--data-dir", str(ledger.parent), COLUMNS="80")
    *empty, today = [line for line in ran.out.splitlines() if re.match(r"\d{4}-\d\d-\d\d ", line)]
    assert len(empty) == 2
    assert TODAY in today and today.count("█") == 40
    assert all("-" in line and "█" not in line for line in empty)


async def test_names_are_shown_as_they_are(run: Run, tmp_path: Path) -> None:
    """What looks like markup or an emoji is part of a name."""
    strange = "maker/[bold]m:smile:[/x]:free"
    key = KeyRow(
        id="k1",
        digest=b"",
        name="[red]:cat:",
        scope="inference",
        daily_budget_nano=None,
        per_request_nano=None,
        created_ms=0,
    )
    rows = [_intent(16, strange, 1000), _outcome(16, strange, 700), key]
    write_rows(tmp_path / "sophia.db", rows)
    for by, name in (("model", strange), ("key", "[red]:cat: (k1)")):
        ran = await asyncio.to_thread(run, "usage", "--by", by, "--data-dir", str(tmp_path))
        assert name in ran.out
    ran = await asyncio.to_thread(run, "keys", "list", "--data-dir", str(tmp_path))
    assert "[red]:cat:" in ran.out


def test_usage_shows_what_was_asked(served: Served, run: Run) -> None:
    """A request shows up under its model, its key's name and its day."""
    asked = run("chat", "hi", "--base-url", served.base_url, "--key", served.key)
    assert asked.code == 0
    # An outcome is in the ledger soon after the answer, not with it.
    time.sleep(0.5)
    for by, name in (("model", "/"), ("key", "first ("), ("day", TODAY[:8])):
        ran = run("usage", "--by", by, "--data-dir", str(served.data))
        assert ran.code == 0, ran.err
        assert name in ran.out
        assert "day (UTC)" in ran.out
    end = time.monotonic() + 10
    told = json.loads(run("usage", "--json", "--data-dir", str(served.data)).out)
    # An outcome becomes durable soon after the answer, not with it.
    while not any(row["requests"] for row in told["rows"]) and time.monotonic() < end:
        told = json.loads(run("usage", "--json", "--data-dir", str(served.data)).out)
    assert sum(row["requests"] for row in told["rows"]) >= 1
    assert sum(row["cost_usd"] for row in told["rows"]) == pytest.approx(
        sum(row["cost_usd"] for row in told["days"])
    )


def test_usage_refuses_a_grouping_that_is_none(run: Run) -> None:
    """The three groupings are named."""
    ran = run("usage", "--by", "week")
    assert ran.code == 2
    assert "'model', 'key', 'day'" in " ".join(ran.err.replace("│", " ").split())


def test_usage_without_a_ledger_says_so_and_makes_none(run: Run, tmp_path: Path) -> None:
    """Reading never begins a ledger."""
    ran = run("usage")
    assert ran.code == 1
    assert "No ledger at" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_ledger_is_reported(run: Run, tmp_path: Path) -> None:
    """No traceback for a file that is no database."""
    (tmp_path / "sophia.db").write_bytes(b"not a database" * 100)
    ran = run("usage", "--data-dir", str(tmp_path))
    assert ran.code == 1
    assert "sophia doctor" in ran.err
    assert "Traceback" not in ran.err
