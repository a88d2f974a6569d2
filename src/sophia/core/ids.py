"""Ids that sort by time: a 63-bit integer for the ledger, a short text for people.

A request id is `milliseconds since 1970 << 18 | counter << 4`; the low four bits number its
attempts. Increasing keys let the ledger append to the last page of its tree, which makes a durable
intent cheap.
"""

import re
from collections.abc import Callable

_COUNTER_BITS = 14
_ATTEMPT_BITS = 4
_COMMAND_BIT = 1 << (_COUNTER_BITS + _ATTEMPT_BITS - 1)
MAX_ATTEMPTS = (1 << _ATTEMPT_BITS) - 1
JUDGE_ATTEMPT = MAX_ATTEMPTS
"""Number of the attempt that judges a request's answer later; answers never have it."""


class IdGenerator:
    """Source of strictly increasing request ids; `now_ms` is the wall clock, in ms since 1970."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._last = 0

    def next(self) -> int:
        """Return the next request id; it grows even when the clock stands still or steps back."""
        fresh = self._now_ms() << (_COUNTER_BITS + _ATTEMPT_BITS)
        step = self._last + (1 << _ATTEMPT_BITS)
        self._last = fresh if fresh > step else step
        return self._last


def build_command_request_id(request_id: int) -> int:
    """Return an id that no server issues, for a command that writes to the same ledger."""
    return request_id | _COMMAND_BIT


def is_command_attempt(attempt_id: int) -> bool:
    """Return whether an attempt is of a request with an id from `build_command_request_id`."""
    return bool(attempt_id & _COMMAND_BIT)


def first_id_at(at_ms: int) -> int:
    """Return the lowest id of a request that arrives at `at_ms` (since 1970)."""
    return at_ms << (_COUNTER_BITS + _ATTEMPT_BITS)


def encode_id(prefix: str, number: int) -> str:
    """Return `number` as `prefix-` and 16 hexadecimal digits."""
    return f"{prefix}-{number:016x}"


def decode_id(prefix: str, text: str) -> int | None:
    """Return the number in an id made by `encode_id`, or None when `text` is no such id."""
    match = re.fullmatch(prefix + "-([0-7][0-9a-f]{15})", text)
    return None if match is None else int(match[1], 16)


def extract_timestamp_ms(id: int) -> int:
    """Return the time of a request's or attempt's id, in milliseconds since 1970."""
    return id >> (_COUNTER_BITS + _ATTEMPT_BITS)
