"""False refusals: found after a run in the times of all attempts of all processes.

Each process writes down each attempt: when it asked for its reservation and got the answer, when it
was settled, the limit, the reservation and the cost. An attempt counts at its reservation from the
moment it asks until it is settled, and at its cost from then on. That is never less than what the
budget has to cover. A refusal is

- justified, if at one moment of its wait all other attempts and its own reservation were above its
  limit together;
- unclear, if not, but an attempt with a higher limit was asking meanwhile or up to a second before:
  what that one leased was within its own limit, so this one's limit was not in force everywhere;
- false otherwise: the budget covered it from its question to its answer.

Attempts that were refused count for nothing, so two that refuse each other are both false. One that
got no answer in time counts while it waits. The clock is the same for all processes of a machine.
"""

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RESERVED, REFUSED, UNAVAILABLE = range(3)
_COLUMNS = ("account", "began", "answered", "settled", "limit", "held", "cost", "result")
_AFTER_NS = 1_000_000_000
"""Time after an answer in which a lease may still be renewed under the limit of its attempt."""
_LONGEST_NS = 6_000_000_000
"""Longest time that an attempt waits for its answer; the store gets 5 s."""


class AttemptLog:
    """Attempts of one process, with times of the monotonic clock in nanoseconds."""

    def __init__(self) -> None:
        self._values = array("q")

    def add(  # noqa: PLR0913 - a row
        self, account: int, times: tuple[int, int, int], limit: int, held: int, cost: int,
        result: int,
    ) -> None:  # fmt: skip
        """Note an attempt; `times` are those of its question, its answer and its end."""
        self._values.extend((account, *times, limit, held, cost, result))

    def write(self, path: Path) -> None:
        """Write all attempts to a file."""
        with path.open("wb") as file:
            self._values.tofile(file)


def read_attempts(folder: Path) -> Any:
    """Return the attempts of all logs in a folder, as a table with named columns."""
    logs = [np.fromfile(path, dtype=np.int64) for path in sorted(folder.glob("*.attempts"))]
    return build_attempts(np.concatenate(logs))


def build_attempts(values: Any) -> Any:
    """Return rows of eight numbers as a table with named columns."""
    kind = np.dtype([(name, np.int64) for name in _COLUMNS])
    return np.ascontiguousarray(values, dtype=np.int64).reshape(-1).view(kind)


@dataclass(frozen=True, slots=True)
class Refusals:
    """Number of refusals of each kind."""

    justified: int = 0
    unclear: int = 0
    false: int = 0


def judge_refusals(attempts: Any) -> Refusals:
    """Count the refusals of each kind."""
    counts = np.zeros(3, dtype=np.int64)
    for account in np.unique(attempts["account"][attempts["result"] == REFUSED]):
        counts += _judge_account(attempts[attempts["account"] == account])
    return Refusals(*map(int, counts))


def _judge_account(attempts: Any) -> tuple[int, int, int]:
    refused = attempts[attempts["result"] == REFUSED]
    others = attempts[attempts["result"] != REFUSED]
    fits = refused[_highest_total(others, refused) + refused["held"] <= refused["limit"]]
    by_time = attempts[np.argsort(attempts["began"])]
    unclear = sum(_was_limit_higher(by_time, each) for each in fits)
    return len(refused) - len(fits), unclear, len(fits) - unclear


def _highest_total(others: Any, refused: Any) -> Any:
    """Return the most that other attempts amount to at one moment of each refused one's wait."""
    times = np.concatenate((others["began"], others["settled"]))
    changes = np.concatenate((others["held"], others["cost"] - others["held"]))
    order = np.argsort(times, kind="stable")
    times = times[order]
    # The last value is never looked at: `reduceat` takes no end beyond the array.
    totals = np.concatenate(([0], np.cumsum(changes[order]), [0]))
    first = np.searchsorted(times, refused["began"], "left")
    after_last = np.searchsorted(times, refused["answered"], "right") + 1
    return np.maximum.reduceat(totals, np.stack((first, after_last), axis=1).reshape(-1))[::2]


def _was_limit_higher(by_time: Any, refused: Any) -> bool:
    """Return whether an attempt with a higher limit was asking meanwhile, or shortly before."""
    since = refused["began"] - _AFTER_NS
    first, end = np.searchsorted(
        by_time["began"], (since - _LONGEST_NS, refused["answered"] + 1), "left"
    )
    some = by_time[first:end]
    return bool(np.any((some["answered"] >= since) & (some["limit"] > refused["limit"])))
