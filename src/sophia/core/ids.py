"""Ids that sort by time: one 63-bit integer for the ledger, one short text for people.

A request id is `milliseconds since 1970 << 18 | counter << 4`; the low four bits are left for its
attempts. Increasing keys let the ledger append to the last page of its tree, which is what makes a
durable intent cheap.
"""

from collections.abc import Callable

_DIGITS = frozenset("0123456789abcdef")
_COUNTER_BITS = 14
_ATTEMPT_BITS = 4
MAX_ATTEMPTS = (1 << _ATTEMPT_BITS) - 1


class Ids:
    """Source of strictly increasing request ids.

    Args:
        now_ms: returns the wall clock in milliseconds since 1970, as an integer.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._last = 0

    def next(self) -> int:
        """Return the next request id; it grows even when the clock stands still or steps back."""
        fresh = self._now_ms() << (_COUNTER_BITS + _ATTEMPT_BITS)
        step = self._last + (1 << _ATTEMPT_BITS)
        self._last = fresh if fresh > step else step
        return self._last


def aside(request_id: int) -> int:
    """Return an id that no server gives out: a command beside it may write to the same ledger."""
    return request_id | 1 << (_COUNTER_BITS + _ATTEMPT_BITS - 1)


def first_id(at_ms: int) -> int:
    """Return the least id that a request arriving at `at_ms` (since 1970) can have."""
    return at_ms << (_COUNTER_BITS + _ATTEMPT_BITS)


JUDGING = MAX_ATTEMPTS
"""The number of the attempt that judges a request's answer later; answers never have it."""


def attempt_id(request_id: int, number: int) -> int:
    """Return the id of attempt `number` (0 to 15) of a request."""
    return request_id | number


def encode(prefix: str, number: int) -> str:
    """Return `number` as `prefix-` and 16 hexadecimal digits."""
    return f"{prefix}-{number:016x}"


def decode(prefix: str, text: str) -> int | None:
    """Return the number inside an id made by `encode`, or None when `text` is no such id."""
    head, _, tail = text.partition("-")
    if head != prefix or len(tail) != 16 or not set(tail) <= _DIGITS:
        return None
    number = int(tail, 16)
    return number if number < 2**63 else None


def made_ms(id: int) -> int:
    """Return the millisecond since 1970 in which a request or attempt got its id."""
    return id >> (_COUNTER_BITS + _ATTEMPT_BITS)
