"""Benchmark cells that were hidden, and how far they are from what the others foretell of them."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.learning.factor import Cells, fit, log_odds, share


class Held(Struct, frozen=True):
    """A cell that was foretold without it: what was said, how sure, and what was true."""

    task: str
    arm: str
    known: bool
    score: float
    foretold: float
    baseline: float
    z: float


def held_out(cells: Cells, *, parts: int = 30, whole: bool = True, seed: int = 0) -> list[Held]:
    """Return every cell as the others foretell it.

    With `whole` an arm's cells of one source are hidden together, as when traffic is a source that
    no table has; else each cell is hidden alone.
    """
    seen = np.isfinite(cells.score)
    blocks: dict[tuple[str, int], list[int]] = {}
    for task, arm in zip(*np.nonzero(seen), strict=True):
        key = cells.sources[task] if whole else str(task)
        blocks.setdefault((key, int(arm)), []).append(int(task))
    names = sorted(blocks)
    order = np.random.default_rng(seed).permutation(len(names))
    told: list[Held] = []
    for part in range(parts):
        hidden = np.zeros_like(seen)
        for at in order[part::parts]:
            key, arm = names[at]
            hidden[blocks[key, arm], arm] = True
        told += _foretold(cells, hidden)
    return told


def spread_of(told: Sequence[Held]) -> float:
    """Return by how much variances must be widened for held-out cells to be as far off as said."""
    return max(1.0, float(np.mean([one.z**2 for one in told]))) if told else 1.0


def _foretold(cells: Cells, hidden: NDArray[np.bool_]) -> list[Held]:
    factors = fit(cells.without(hidden))
    score, error = np.where(hidden, cells.score, 0.5), np.where(hidden, cells.error, 1.0)
    odds, sampling = log_odds(score, error)
    left = np.isfinite(cells.score) & ~hidden
    told = []
    for task, arm in zip(*np.nonzero(hidden), strict=True):
        at = np.array([1.0, factors.local[task, arm]])
        loading = factors.loading[task]
        middle = factors.intercept[task] + loading * at[1]
        variance = loading**2 * factors.local_unsure[task, arm] + factors.noise
        variance += float(at @ factors.doubt[task] @ at) + sampling[task, arm]
        others = cells.score[task][left[task]]
        told.append(
            Held(
                cells.tasks[task],
                cells.arms[arm],
                bool(left[:, arm].any()),
                float(cells.score[task, arm]),
                float(share(np.array([middle]))[0]),
                float(others.mean()) if len(others) else 0.5,
                float((odds[task, arm] - middle) / np.sqrt(variance)),
            )
        )
    return told
