"""Ids that sort by time: one 63-bit integer for the ledger, one short text for people.

A request id is `milliseconds since 1970 << 18 | counter << 4`; the low four bits are left for its
attempts. Increasing keys let the ledger append to the last page of its tree, which is what makes a
durable intent cheap.
"""

from collections.abc import Callable

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {char: value for value, char in enumerate(_ALPHABET)}
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


def attempt_id(request_id: int, number: int) -> int:
    """Return the id of attempt `number` (0 to 15) of a request."""
    return request_id | number


def encode(prefix: str, number: int) -> str:
    """Return `number` as `prefix-` and 13 characters of Crockford's base 32."""
    chars = []
    for _ in range(13):
        number, digit = divmod(number, 32)
        chars.append(_ALPHABET[digit])
    return f"{prefix}-{''.join(reversed(chars))}"


def decode(prefix: str, text: str) -> int | None:
    """Return the number inside an id made by `encode`, or None when `text` is no such id."""
    head, _, tail = text.partition("-")
    if head != prefix or len(tail) != 13:
        return None
    number = 0
    for char in tail:
        digit = _VALUES.get(char)
        if digit is None:
            return None
        number = number * 32 + digit
    return number if number < 2**63 else None
