"""What other policies would have scored and cost on decisions that were really taken."""

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from sophia.core.money import usd
from sophia.learning.forecasts import POLICIES
from sophia.learning.logged import Found, Logged, span
from sophia.learning.missing import Means
from sophia.learning.off_policy import (
    Assessment,
    Comparison,
    Refused,
    assess,
    compare,
    foretell,
)
from sophia.learning.table_sights import projection_of
from sophia.learning.targets import costs_of, fixed, log_of, means_of, rechosen, spread
from sophia.routing.arms import model_of
from sophia.routing.policies.hierarchical import Projection
from sophia.routing.policies.policy import Learner, Lesson

AS_LOGGED = "as logged"
ALWAYS = "always "
LEAST_LESSONS = 50
_FIXED = 5
USUAL = ("hierarchical", "task_mean")
"""The policies that learn from one word here and there, and need no optional package."""

TRAINED = frozenset({"boosted", "random_forest"})
"""The policies that need scikit-learn to learn."""

_READS = {"knn": "text", "linucb": "text", "logistic": "text", "random_forest": "features"}
"""What a policy cannot do without, beside the task."""

Tell = Callable[[str, float], None]


class Target(Struct, frozen=True):
    """What one policy would have done.

    Attributes:
        verdict: its score, by four estimators; or why the log cannot tell.
        gain: by how much it beats what was logged, on the same decisions; None for that itself.
        cost_usd: the mean expected cost of a request, in US dollars.
    """

    policy: str
    verdict: Assessment | Refused
    gain: Comparison | Refused | None
    cost_usd: float


class LedgerReport(Struct, frozen=True):
    """The later decisions judged; learners learned from the earlier ones, which judge nothing.

    Attributes:
        decisions: of learned policies, all of them.
        others: not taken by a learned policy, so that nothing can be told from them.
        learned_from, judged: how many decisions were used for what.
        scored: how many of the judged ones somebody said a word on.
        since_ms, until_ms: of the judged ones.
        means: their mean score, as those who speak tell it.
    """

    decisions: int
    others: int
    learned_from: int
    judged: int
    scored: int
    since_ms: int
    until_ms: int
    arms: tuple[str, ...]
    targets: tuple[Target, ...]
    notes: tuple[str, ...] = ()
    means: Means | None = None


class NothingLogged(ValueError):
    """The ledger holds no decisions that a learned policy took and somebody said a word on."""


def report(
    found: Found,
    names: Sequence[str] = USUAL,
    seed: int = 0,
    tell: Tell = lambda step, share: None,
) -> LedgerReport:
    """Return what the policies called `names`, and single arms, would have done.

    Raises:
        NothingLogged: there is nothing to judge by.
        KeyError: a name is not among `POLICIES`.
    """
    half = len(found.decisions) // 2
    earlier, later = found.decisions[:half], found.decisions[half:]
    scored = sum(one.word is not None for one in later)
    if not scored:
        raise NothingLogged(
            f"{len(found.decisions)} decisions were taken by a learned policy and {found.others} "
            "by others; of the later half of the former nobody said how they went."
        )
    log, arms = log_of(later)
    foretold = foretell(log, seed)
    able, notes = _able(names, earlier)
    targets = {AS_LOGGED: log.propensities}
    for number, name in enumerate(able):
        tell(name, 0.0)
        learner = _learned(name, earlier)
        chosen = [rechosen(one, learner.rate(one.sight, one.arms)) for one in later]
        targets[name] = spread(later, arms, chosen)
        tell(name, (number + 1) / len(able))
    for name in _usual(later):
        targets[ALWAYS + name] = spread(later, arms, [fixed(one, name) for one in later])
    cost = costs_of(later, arms)
    judged = []
    for name, target in targets.items():
        tell(f"judging {name}", 1.0)
        gain = None
        if name != AS_LOGGED:
            gain = compare(log, target, log.propensities, foretold=foretold)
        judged.append(
            Target(
                name,
                assess(log, target, foretold=foretold),
                gain,
                usd(round(float((target * cost).sum(axis=1).mean()))),
            )
        )
    return LedgerReport(
        len(found.decisions),
        found.others,
        len(earlier),
        len(later),
        scored,
        *span(later),
        arms,
        tuple(judged),
        tuple(notes),
        means_of(later),
    )


def _able(names: Sequence[str], earlier: Sequence[Logged]) -> tuple[list[str], list[str]]:
    """Return the policies that can learn from these decisions, and why others cannot."""
    spoken = [one for one in earlier if one.word is not None]
    if len(spoken) < LEAST_LESSONS:
        return [], [
            f"Nothing was learned: {len(spoken)} of the earlier decisions have a score, "
            f"{LEAST_LESSONS} are the least."
        ]
    sight = spoken[0].sight
    there = {"text": len(sight.embedding) > 0, "features": len(sight.features) > 0}
    able = [name for name in names if there.get(_READS.get(name, ""), True)]
    left = ", ".join(name for name in names if name not in able)
    notes = [f"Left out, since the ledger keeps too little of a request: {left}."] if left else []
    return able, notes


def _learned(name: str, earlier: Sequence[Logged]) -> Learner:
    sight = earlier[0].sight
    projection = Projection(np.zeros((len(sight.embedding), 0)), np.zeros(0))
    if len(sight.embedding):
        projection = projection_of(np.array([one.sight.embedding for one in earlier]))
    learner = POLICIES[name](sight, projection)
    learner.fit(
        [
            Lesson(one.sight, one.word.arm, one.word.score, one.word.weight)
            for one in earlier
            if one.word is not None
        ]
    )
    return learner


def _usual(decisions: Sequence[Logged]) -> list[str]:
    """Return the models with the greatest chances, the greatest first."""
    total: dict[str, float] = {}
    for one in decisions:
        for arm, chance in zip(one.arms, one.chances.tolist(), strict=True):
            model = model_of(arm)
            total[model] = total.get(model, 0.0) + chance
    return sorted(total, key=lambda model: (-total[model], model))[:_FIXED]
