"""What other policies would have scored and cost on decisions that were really taken."""

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from sophia.core.money import usd
from sophia.learning.forecasts import POLICIES
from sophia.learning.logged import Found, Logged, span
from sophia.learning.missing import inverse_chances
from sophia.learning.off_policy import Assessment, Comparison, Refused, assess, compare
from sophia.learning.support import Log
from sophia.learning.table_sights import projection_of
from sophia.learning.tables import Matrix
from sophia.routing.arms import model_of
from sophia.routing.policies.choose import Options, choose
from sophia.routing.policies.hierarchical import Projection
from sophia.routing.policies.policy import Learner, Lesson, Vector

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
    able, notes = _able(names, earlier)
    targets = {AS_LOGGED: log.propensities}
    for number, name in enumerate(able):
        tell(name, 0.0)
        learner = _learned(name, earlier)
        targets[name] = _spread(later, arms, [_chances(learner, one) for one in later])
        tell(name, (number + 1) / len(able))
    for name in _usual(later):
        targets[ALWAYS + name] = _spread(later, arms, [_always(one, name) for one in later])
    cost = _costs(later, arms)
    judged = []
    for name, target in targets.items():
        tell(f"judging {name}", 1.0)
        gain = compare(log, target, log.propensities, seed=seed) if name != AS_LOGGED else None
        judged.append(
            Target(
                name,
                assess(log, target, seed=seed),
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
    )


def log_of(decisions: Sequence[Logged]) -> tuple[Log, tuple[str, ...]]:
    """Return decisions as a log over all arms that any of them could take, and these arms."""
    arms = tuple(sorted({arm for one in decisions for arm in one.arms}))
    taken = np.array([arms.index(one.arms[one.chosen]) for one in decisions], dtype=np.intp)
    contexts = np.array(
        [np.concatenate([one.sight.tasks, one.sight.features]) for one in decisions]
    )
    rewards = np.array([np.nan if one.word is None else one.word.score for one in decisions])
    spoke = np.isfinite(rewards)
    inverse = None
    if not spoke.all():
        asked = np.zeros(len(decisions), dtype=np.bool_)
        inverse = inverse_chances(contexts, taken, asked, spoke)
    chances = _spread(decisions, arms, [one.chances for one in decisions])
    return Log(contexts, taken, chances, rewards, inverse), arms


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


def _chances(learner: Learner, decision: Logged) -> Vector:
    """Return the chances that a learner gives the arms when it chooses as was chosen then."""
    ratings = learner.rate(decision.sight, decision.arms)
    if ratings is None:
        return decision.chances
    known = decision.options
    options = Options(
        ratings, known.cost, known.explorable, known.late, known.current, known.trial
    )
    return choose(options, decision.taste, decision.exploration, 0.0).propensities


def _always(decision: Logged, model: str) -> Vector:
    """Return certainty of one model; where it could not be taken, what was done then."""
    models = [model_of(one) for one in decision.arms]
    if model not in models:
        return decision.chances
    certain: Vector = np.zeros(len(models))
    certain[models.index(model)] = 1.0
    return certain


def _usual(decisions: Sequence[Logged]) -> list[str]:
    """Return the models with the greatest chances, the greatest first."""
    total: dict[str, float] = {}
    for one in decisions:
        for arm, chance in zip(one.arms, one.chances.tolist(), strict=True):
            model = model_of(arm)
            total[model] = total.get(model, 0.0) + chance
    return sorted(total, key=lambda model: (-total[model], model))[:_FIXED]


def _spread(
    decisions: Sequence[Logged], arms: tuple[str, ...], values: Sequence[Vector]
) -> Matrix:
    """Return each decision's values at the places of all arms, (N, A); zeros elsewhere."""
    place = {arm: number for number, arm in enumerate(arms)}
    spread = np.zeros((len(decisions), len(arms)))
    for row, (one, some) in enumerate(zip(decisions, values, strict=True)):
        spread[row, [place[arm] for arm in one.arms]] = some
    return spread


def _costs(decisions: Sequence[Logged], arms: tuple[str, ...]) -> Matrix:
    return _spread(decisions, arms, [one.options.cost for one in decisions])
