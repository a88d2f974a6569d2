"""Row lookup by arm; an unknown variant is looked up under its closest known relative."""

from collections.abc import Mapping, Sequence

import numpy as np

from sophia.routing.bandit.arms import list_less_specific_arms
from sophia.routing.bandit.policy import Vector
from sophia.routing.bandit.quality.posterior import ALL_ROWS, VARIANT_SD


def nearest_known_arm(rows: Mapping[str, int], arm: str) -> str | None:
    """Return the arm itself or its closest relative, whichever is known first, or None."""
    return next((name for name in (arm, *list_less_specific_arms(arm)) if name in rows), None)


def lookup_rows(rows: Mapping[str, int], arms: Sequence[str]) -> tuple[list[int], Vector]:
    """Return each arm's row, -1 if unknown, and the variance of a relative standing in, (A,)."""
    found = [rows.get(arm, -1) for arm in arms]
    added = np.zeros(len(arms))
    if -1 in found:
        for at, arm in enumerate(arms):
            relative = nearest_known_arm(rows, arm) if found[at] < 0 else None
            if relative is not None:
                found[at], added[at] = rows[relative], VARIANT_SD * VARIANT_SD
    return found, added


def build_row_slice(rows: list[int]) -> slice:
    """Return `rows` as a slice if they are known, consecutive and ascending, else all rows."""
    if rows and rows[0] >= 0 and rows == list(range(rows[0], rows[0] + len(rows))):
        return slice(rows[0], rows[0] + len(rows))
    return ALL_ROWS
