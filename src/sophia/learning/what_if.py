"""What the last days would have cost and scored, had another policy decided.

Told from the ledger alone: costs as they were expected of each model then, scores by doubly robust
estimates on the decisions whose chances were logged. Nothing is judged by what it learned from.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.core.money import usd
from sophia.learning.ledger_report import NothingLogged
from sophia.learning.logged import Found, Logged, span
from sophia.learning.off_policy import (
    Assessment,
    Comparison,
    Refused,
    assess,
    compare,
    foretell,
)
from sophia.learning.outcome_model import Matrix
from sophia.learning.targets import costs_of, log_of, spread
from sophia.routing.policies.policy import Lesson, Policy, Ratings, Vector

AS_IT_WAS = "as it was"
FOLDS = 5

Rows = NDArray[np.bool_]


class Would(Struct, frozen=True):
    """What a policy would have done.

    Attributes:
        policy: its name.
        chances: of each decision's arms, (A,).
        judged: (N,), the decisions that it may be judged by; None for all.
        note: why not by all.
    """

    policy: str
    chances: Sequence[Vector]
    judged: Rows | None = None
    note: str = ""


class Part(Struct, frozen=True):
    """Some of the decisions: all that are judged, those of a day, or of a task.

    Attributes:
        name: of the day (UTC) or the task.
        decisions: how many.
        scored: how many of them somebody said a word on.
        cost_usd: what the policy was to be expected to cost on them.
        done_usd: the same of what was done.
        verdict: the score, doubly robust by `dr`; or why the log cannot tell.
    """

    name: str
    decisions: int
    scored: int
    cost_usd: float
    done_usd: float
    verdict: Assessment | Refused


class Replayed(Struct, frozen=True):
    """One policy on these decisions.

    Attributes:
        whole: all decisions that it was judged by.
        gain: by how much its score beats what was done, on the same decisions; None for that.
        agrees: the chance that it would have taken the model that was taken.
        days, tasks: its parts.
        note: what was left out.
    """

    policy: str
    whole: Part
    gain: Comparison | Refused | None
    agrees: float
    days: tuple[Part, ...]
    tasks: tuple[Part, ...]
    note: str = ""


class WhatIf(Struct, frozen=True):
    """The last days as they were and as they would have been; money in US dollars.

    Attributes:
        judged: decisions of learned policies, whose chances were logged.
        scored: how many of them somebody said a word on.
        mean_score: the plain mean of these words; None without any.
        billed_usd: what all attempts for them cost; judging answers later is not among them.
        others: decisions whose model was certain, so that they tell of no other.
        others_billed_usd: what they cost.
        since_ms, until_ms: of the judged ones.
        policies: the first one is what was done.
    """

    judged: int
    scored: int
    mean_score: float | None
    billed_usd: float
    others: int
    others_billed_usd: float
    since_ms: int
    until_ms: int
    policies: tuple[Replayed, ...]


def what_if(
    found: Found,
    policies: Sequence[Would],
    bills: Mapping[int, int],
    task_names: Sequence[str],
    seed: int = 0,
) -> WhatIf:
    """Return what the decisions in `found` came to, and would have come to.

    Args:
        found: the decisions.
        policies: what others would have done on them.
        bills: nano-dollars that each decision cost, by its id.
        task_names: of the classes of the decisions' tasks.
        seed: of the folds of the outcome model.

    Raises:
        NothingLogged: no decision tells of other policies, or nobody said a word on any.
    """
    decisions = found.decisions
    words = [one.word.score for one in decisions if one.word is not None]
    if not words:
        raise NothingLogged(
            f"{len(decisions):,} decisions of these days were drawn by chances that were logged, "
            f"none of them with a score; {found.others:,} were taken by the table, a rule or by "
            "name: of what another model would have scored there, nothing can be known."
        )
    judge = _Judge(decisions, task_names, seed)
    done = Would(AS_IT_WAS, [one.chances for one in decisions])
    return WhatIf(
        len(decisions),
        len(words),
        float(np.mean(words)),
        _billed([one.id for one in decisions], bills),
        found.others,
        _billed(found.other_ids, bills),
        *span(decisions),
        tuple(judge.replayed(one) for one in (done, *policies)),
    )


class _Judge:
    """Judges policies by the same decisions."""

    def __init__(
        self, decisions: Sequence[Logged], task_names: Sequence[str], seed: int
    ) -> None:
        self._decisions = decisions
        self._log, self._arms = log_of(decisions)
        self._foretold = foretell(self._log, seed)
        self._cost = costs_of(decisions, self._arms)
        days = [f"{datetime.fromtimestamp(one.at_ms / 1000, UTC):%Y-%m-%d}" for one in decisions]
        tasks = [int(one.sight.tasks.argmax()) for one in decisions]
        names = [task_names[at] if at < len(task_names) else f"task {at}" for at in tasks]
        self._days, self._tasks = _groups(sorted(set(days)), days), _by_size(names)

    def replayed(self, would: Would) -> Replayed:
        """Return one policy with its parts."""
        target = spread(self._decisions, self._arms, would.chances)
        every = np.ones(len(target), dtype=np.bool_)
        rows = every if would.judged is None else would.judged
        gain = None
        if would.policy != AS_IT_WAS:
            log = self._log.only(rows)
            told = self._foretold[rows]
            gain = compare(log, target[rows], log.propensities, foretold=told)
        same = target[np.arange(len(target)), self._log.arms]
        return Replayed(
            would.policy,
            self._part("all", target, rows),
            gain,
            float(same[rows].mean()) if rows.any() else 0.0,
            self._parts(self._days, target, rows),
            self._parts(self._tasks, target, rows),
            would.note,
        )

    def _parts(
        self, groups: Mapping[str, Rows], target: Matrix, rows: Rows
    ) -> tuple[Part, ...]:
        return tuple(
            self._part(name, target, rows & group)
            for name, group in groups.items()
            if np.any(rows & group)
        )

    def _part(self, name: str, target: Matrix, rows: Rows) -> Part:
        log = self._log.only(rows)
        cost, done = (
            usd(round(float((chances[rows] * self._cost[rows]).sum())))
            for chances in (target, self._log.propensities)
        )
        verdict = assess(log, target[rows], foretold=self._foretold[rows])
        scored = int(np.isfinite(log.rewards).sum())
        return Part(name, int(rows.sum()), scored, cost, done, verdict)


def cross_fitted(
    learn: Callable[[Sequence[Lesson]], Policy],
    decisions: Sequence[Logged],
    seed: int = 0,
    folds: int = FOLDS,
    tell: Callable[[float], None] = lambda share: None,
) -> list[Ratings | None]:
    """Return how each decision's arms are rated by what was learned from the other parts alone.

    Args:
        learn: returns a policy that learned these lessons, and none of the others.
        decisions: in their order.
        seed: of who falls into which part.
        folds: how many parts.
        tell: hears the share that is done.
    """
    place = np.random.default_rng(seed).permutation(len(decisions)) % folds
    ratings: list[Ratings | None] = [None] * len(decisions)
    lessons = [
        (at, Lesson(one.sight, one.word.arm, one.word.score, one.word.weight))
        for at, one in enumerate(decisions)
        if one.word is not None
    ]
    for fold in range(folds):
        policy = learn([lesson for one, lesson in lessons if place[one] != fold])
        for at in np.flatnonzero(place == fold).tolist():
            ratings[at] = policy.rate(decisions[at].sight, decisions[at].arms)
        tell((fold + 1) / folds)
    return ratings


def _billed(ids: Sequence[int], bills: Mapping[int, int]) -> float:
    return usd(sum(bills.get(id, 0) for id in ids))


def _groups(names: Sequence[str], of: Sequence[str]) -> dict[str, Rows]:
    members = np.array(of)
    return {name: members == name for name in names}


def _by_size(of: Sequence[str]) -> dict[str, Rows]:
    return _groups(sorted(set(of), key=lambda name: (-of.count(name), name)), of)
