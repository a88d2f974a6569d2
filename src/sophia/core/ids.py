"""Ids that sort by time: a 63-bit integer for the ledger, a short text for people.

A request id is `milliseconds since 1970 << 18 | worker << 11 | counter << 4`; the low four bits
number its attempts. Increasing keys let the ledger append to the last page of its tree.
"""

import re
from collections.abc import Callable

_WORKER_BITS = 7
_COUNTER_BITS = 7
_ATTEMPT_BITS = 4
_TIME_SHIFT = _WORKER_BITS + _COUNTER_BITS + _ATTEMPT_BITS
WORKER_SHIFT = _COUNTER_BITS + _ATTEMPT_BITS
MAX_WORKERS = 1 << _WORKER_BITS
MAX_ATTEMPTS = (1 << _ATTEMPT_BITS) - 1
JUDGE_ATTEMPT = MAX_ATTEMPTS
"""Number of the attempt that judges a request's answer later; answers never have it."""


class IdGenerator:
    """Source of strictly increasing request ids; `now_ms` is the wall clock, in ms since 1970.

    `worker` numbers the process, from 0 to `MAX_WORKERS` - 1: no two that run have the same.
    All ids are greater than `after`, an earlier one of the same number.
    """

    def __init__(self, now_ms: Callable[[], int], worker: int = 0, after: int = 0) -> None:
        self._now_ms = now_ms
        self._worker = worker << WORKER_SHIFT
        count = (after >> _ATTEMPT_BITS) & ((1 << _COUNTER_BITS) - 1)
        self._last = (after >> _TIME_SHIFT) << _COUNTER_BITS | count
        """Milliseconds and counter, side by side."""

    def next(self) -> int:
        """Return the next request id; it grows even when the clock stands still or steps back."""
        fresh = self._now_ms() << _COUNTER_BITS
        self._last = last = fresh if fresh > self._last else self._last + 1
        count = last & ((1 << _COUNTER_BITS) - 1)
        return (last >> _COUNTER_BITS) << _TIME_SHIFT | self._worker | count << _ATTEMPT_BITS


def find_worker(id: int) -> int:
    """Return the number of the worker that made a request's or attempt's id."""
    return id >> WORKER_SHIFT & (MAX_WORKERS - 1)


def first_id_at(at_ms: int) -> int:
    """Return the lowest id of a request that arrives at `at_ms` (since 1970)."""
    return at_ms << _TIME_SHIFT


def encode_id(prefix: str, number: int) -> str:
    """Return `number` as `prefix-` and 16 hexadecimal digits."""
    return f"{prefix}-{number:016x}"


def decode_id(prefix: str, text: str) -> int | None:
    """Return the number in an id made by `encode_id`, or None when `text` is no such id."""
    match = re.fullmatch(prefix + "-([0-7][0-9a-f]{15})", text)
    return None if match is None else int(match[1], 16)


def extract_timestamp_ms(id: int) -> int:
    """Return the time of a request's or attempt's id, in milliseconds since 1970."""
    return id >> _TIME_SHIFT
