"""How long arms answer: log(tokens / expected tokens) is a level plus a term for each task.

Some of it is common to all arms, some an arm's own. Both are learned by a Kalman filter that keeps
variances only, so that an answer costs one pass over the tasks: what is common and what is the
arm's own move by their shares of the doubt.
"""

import math

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.routing.policies.policy import Vector
from sophia.routing.timing import DRIFT, SCATTER, scattered, within_reach

Matrix = NDArray[np.float64]

_LEVEL_DOUBT, _TASK_DOUBT = 1.0, 0.5
_OWN_LEVEL_DOUBT, _OWN_TASK_DOUBT = 0.25, 0.15


class Scatter(Struct, frozen=True, array_like=True):
    """The variance of single answers' logarithms about what is expected, and of how many."""

    variance: float = SCATTER
    seen: int = 0

    def after(self, surprise: float, share: float) -> "Scatter":
        """Return it after one more answer; `share` of a surprise's variance is scatter."""
        seen = self.seen + 1
        return Scatter(scattered(self.variance, surprise, share, seen), seen)


class Lengths:
    """What is known of the lengths of arms, by row; row 0 has no terms of its own.

    Attributes:
        level: shape (R, 1 + T), what to expect of each row: common and own terms together.
        unsure: shape (R, 1 + T), the variance of each term.
        scatters: of each row's single answers.
    """

    def __init__(self, tasks: int) -> None:
        self._common = np.zeros(1 + tasks)
        self._common_doubt = _doubts(_LEVEL_DOUBT, _TASK_DOUBT, tasks)
        self._own = np.zeros((0, 1 + tasks))
        self._own_doubt = np.zeros((0, 1 + tasks))
        self.scatters: list[Scatter] = []
        self.add(1)

    def add(self, count: int) -> None:
        """Add `count` rows of which nothing is known."""
        terms = len(self._common)
        doubts = _doubts(_OWN_LEVEL_DOUBT, _OWN_TASK_DOUBT, terms - 1)
        self._own = np.concatenate([self._own, np.zeros((count, terms))])
        self._own_doubt = np.concatenate([self._own_doubt, np.tile(doubts, (count, 1))])
        self.scatters += [Scatter()] * count
        self._sum_up()

    def start(self, row: int, known: int) -> None:
        """Let a row begin as far from what is expected as the row `known` was."""
        self.scatters[row] = Scatter(self.scatters[known].variance)

    def learn(self, row: int, tasks: Vector | None, ratio: float, *, cut: bool = False) -> None:
        """Take in an answer.

        Args:
            row: who gave it.
            tasks: shape (T,), the request's posterior; None when nobody looked.
            ratio: its tokens over those expected of anybody, above 0.
            cut: it might have become longer, so that being shorter than expected says nothing.
        """
        design = np.zeros(len(self._common))
        design[0] = 1.0
        if tasks is not None and len(tasks) == len(design) - 1:
            design[1:] = tasks
        shared, own = self._common_doubt * design, self._own_doubt[row] * design
        scatter = self.scatters[row].variance
        total = float((shared + own) @ design) + scatter
        surprise = math.log(ratio) - float(self.level[row] @ design)
        if cut and surprise < 0.0:
            return
        surprise = within_reach(surprise, total)
        self._common += shared * (surprise / total)
        self._own[row] += own * (surprise / total)
        self._common_doubt += DRIFT * scatter - shared * shared / total
        self._own_doubt[row] += DRIFT * scatter - own * own / total
        for at in (0, row):
            self.scatters[at] = self.scatters[at].after(surprise, scatter / total)
        self._sum_up()

    def saved(self) -> tuple[Matrix, Matrix, Matrix]:
        """Return common terms (2, 1 + T), own terms (R, 1 + T) and their variances."""
        return np.stack([self._common, self._common_doubt]), self._own, self._own_doubt

    @classmethod
    def of(cls, saved: tuple[Matrix, Matrix, Matrix], scatters: list[Scatter]) -> "Lengths":
        """Return what was saved."""
        lengths = cls(saved[0].shape[1] - 1)
        lengths._common, lengths._common_doubt = saved[0].copy()
        lengths._own, lengths._own_doubt = saved[1].copy(), saved[2].copy()
        lengths.scatters = list(scatters)
        lengths._sum_up()
        return lengths

    def _sum_up(self) -> None:
        self.level = self._own + self._common
        self.unsure = self._own_doubt + self._common_doubt


def _doubts(level: float, task: float, tasks: int) -> Vector:
    doubts: Vector = np.full(1 + tasks, task)
    doubts[0] = level
    return doubts
