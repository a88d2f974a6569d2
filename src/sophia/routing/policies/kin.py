"""Where arms are known, and which known one stands in for an arm in more particulars."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sophia.routing.arms import is_particular, relatives
from sophia.routing.policies.joint import EVERY
from sophia.routing.policies.policy import Vector


def nearest(rows: Mapping[str, int], arm: str) -> str | None:
    """Return the arm itself or its nearest relative, whichever is known first; None: neither is."""
    return next((one for one in (arm, *relatives(arm)) if one in rows), None)


def places(rows: Mapping[str, int], arms: Sequence[str], doubt: float) -> tuple[list[int], Vector]:
    """Return each arm's row, -1 for strangers, and the variance of standing in for it, (A,).

    A relative stands in for an arm give or take `doubt`, a standard deviation.
    """
    found = [rows.get(arm, -1) for arm in arms]
    added = np.zeros(len(arms))
    if -1 in found:
        for at, arm in enumerate(arms):
            near = nearest(rows, arm) if found[at] < 0 else None
            if near is not None:
                found[at], added[at] = rows[near], doubt * doubt
    return found, added


def particulars(arms: Iterable[str]) -> int:
    """Return how many arms were split off a relative."""
    return sum(map(is_particular, arms))


def split_doubt(terms: int, doubt: float) -> Vector:
    """Return the variances, (P,), by which an arm may depart from the one it is split off."""
    return np.full(terms, doubt * doubt / 2)


def together(rows: list[int]) -> slice:
    """Return the slice that `rows` are in their order, or all rows when they are none."""
    if rows and rows[0] >= 0 and rows == list(range(rows[0], rows[0] + len(rows))):
        return slice(rows[0], rows[0] + len(rows))
    return EVERY
