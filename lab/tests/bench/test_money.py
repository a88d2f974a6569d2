"""The bench of budgets: what it says of a refusal follows from the times of all attempts."""

from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from bench.money.refusals import (
    REFUSED,
    RESERVED,
    UNAVAILABLE,
    AttemptLog,
    Refusals,
    build_attempts,
    judge_refusals,
    read_attempts,
)

SECOND = 1_000_000_000
LIMIT = 100


def attempt(  # noqa: PLR0913 - a row
    began: float, answered: float, settled: float, held: int, cost: int = 0, *,
    result: int = RESERVED, limit: int = LIMIT, account: int = 0,
) -> list[int]:  # fmt: skip
    times = [int((1000 + at) * SECOND) for at in (began, answered, settled)]
    return [account, *times, limit, held, cost, result]


def refusal(began: float, answered: float, held: int, **more: int) -> list[int]:
    return attempt(began, answered, answered, held, result=REFUSED, **more)


def judge(*rows: list[int]) -> Refusals:
    return judge_refusals(build_attempts([value for row in rows for value in row]))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([refusal(1, 2, 101)], Refusals(justified=1)),
        ([refusal(1, 2, 100)], Refusals(false=1)),
        # Settled before the question, during the wait, after it.
        ([attempt(0, 0.1, 0.9, 60, 10), refusal(1, 2, 90)], Refusals(false=1)),
        ([attempt(0, 0.1, 0.9, 60, 11), refusal(1, 2, 90)], Refusals(justified=1)),
        ([attempt(0, 0.1, 1.5, 60, 10), refusal(1, 2, 90)], Refusals(justified=1)),
        ([attempt(1.9, 2.1, 3, 60, 10), refusal(1, 2, 90)], Refusals(justified=1)),
        ([attempt(2.1, 2.2, 3, 60, 10), refusal(1, 2, 90)], Refusals(false=1)),
        # The highest moment counts, not the sum of all.
        (
            [attempt(1.1, 1.2, 1.3, 60, 0), attempt(1.4, 1.5, 1.6, 60, 0), refusal(1, 2, 40)],
            Refusals(false=1),
        ),
        ([refusal(1, 2, 60), refusal(1, 2, 60)], Refusals(false=2)),
        ([attempt(1, 1.5, 1.5, 60, result=UNAVAILABLE), refusal(1, 2, 60)], Refusals(justified=1)),
        ([attempt(0, 0.2, 0.3, 1, limit=200), refusal(1, 2, 60)], Refusals(unclear=1)),
        ([attempt(-2, -1, 9, 1, limit=200), refusal(1, 2, 60)], Refusals(false=1)),
        ([attempt(0, 0.2, 0.3, 1, limit=90), refusal(1, 2, 60)], Refusals(false=1)),
        ([attempt(0, 0.2, 9, 60, account=1), refusal(1, 2, 60)], Refusals(false=1)),
    ],
)
def test_a_refusal_is_false_when_the_budget_covered_it_all_the_time(
    rows: list[list[int]], expected: Refusals
) -> None:
    assert judge(*rows) == expected


def test_attempts_without_a_refusal_need_no_judgement() -> None:
    assert judge(attempt(0, 1, 2, 60)) == Refusals()


def test_logs_of_all_processes_are_read_together(tmp_path: Path) -> None:
    for name, held, result in (("a", 70, RESERVED), ("b", 40, REFUSED)):
        log = AttemptLog()
        log.add(0, (1, 2, 3), LIMIT, held, 0, result)
        log.write(tmp_path / f"{name}.attempts")
    assert judge_refusals(read_attempts(tmp_path)) == Refusals(justified=1)


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_a_budget_is_used_up_and_not_overspent(store: str) -> None:
    """A short run; each store starts by itself."""
    from bench.money.__main__ import measure

    options: Any = type("Options", (), {"store": store, "reservations": 400, "processes": 2})
    options.clients = 8
    with Progress(disable=True) as progress:
        result = measure(options, 20, progress)
    assert result.is_right and result.reservations == 400
    assert result.refusals > 0 and result.store == store
