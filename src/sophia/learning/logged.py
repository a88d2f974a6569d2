"""Learned decisions of the ledger with what came of them, as evaluation reads them."""

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct, convert

from sophia.core.ids import made_ms
from sophia.core.ports import Store
from sophia.core.rows import Intent, LessonRow
from sophia.learning.channels import JUDGE, SIGNS
from sophia.routing.arms import arm_of
from sophia.routing.evidence import corrected_by, unpack
from sophia.routing.nouns import Evidence, Features, Plan
from sophia.routing.policies.choose import Exploration, Mode, Options, Taste
from sophia.routing.policies.policy import Ratings, Sight, Vector

ReadPlan = Callable[[bytes], Plan]

_AT_ONCE = 1000
MOST = 200_000
_Exploring = tuple[Mode, float, float, float, float, float]


class Word(Struct, frozen=True):
    """How a request went: the score from 0 to 1, what it counts for, and which arm answered.

    The arm is another than the one that was chosen where that one failed. `verdict` is what a judge
    said, if one did; `others` whether anybody else spoke.
    """

    score: float
    weight: float
    arm: str
    verdict: float | None = None
    others: bool = True


class Logged(Struct, frozen=True):
    """One decision of a learned policy.

    Attributes:
        at_ms: when, in milliseconds since 1970.
        sight: what was seen of the request.
        arms: the names of the A arms that could be taken: models in the mode they are called in.
        options: what was known of them; costs in nano-dollars.
        taste, exploration: what the choice was made by.
        chances: (A,), the exact probability that each was to be taken with.
        chosen: the position of the arm that was taken.
        word: how it went; None where nobody said.
        id: the decision's own.
        key_id: whose it was.
        features: what the table of the first day goes by.
        listed: (A,), expected costs by list prices alone, in nano-dollars; None: the same costs.
        asked: whether the lot fell on it to be judged.
        rated_by: the correction that its ratings have, see `challenge`; "" for none.
    """

    at_ms: int
    sight: Sight
    arms: tuple[str, ...]
    options: Options
    taste: Taste
    exploration: Exploration
    chances: Vector
    chosen: int
    word: Word | None = None
    id: int = 0
    key_id: str = ""
    features: Features | None = None
    listed: Vector | None = None
    asked: bool = False
    rated_by: str = ""


class Found(Struct, frozen=True):
    """What a ledger holds: learned decisions in their order, and how many others took.

    `other_ids` are those of the latter, whose models were certain.
    """

    decisions: tuple[Logged, ...]
    others: int
    other_ids: tuple[int, ...] = ()


async def decisions_of(store: Store, read: ReadPlan, since_ms: int, *, shared: bool) -> Found:
    """Return the decisions since a moment, with their words; the first 200,000 of them at most.

    With `shared` all keys learn together, so that a request is nobody's in particular.
    """
    words = await words_of(store, since_ms)
    kept = await store.decisions(since_ms, MOST)
    found = [logged_of(one, read, words, shared=shared) for one in kept]
    learned = [one for one in found if one is not None]
    learned.sort(key=lambda one: one.at_ms)
    left = [row.attempt_id for row, one in zip(kept, found, strict=True) if one is None]
    return Found(tuple(learned), len(left), tuple(left))


async def words_of(store: Store, since_ms: int = 0) -> dict[int, Word]:
    """Return what was said of each decision since a moment; several are averaged by their weight.

    Signs that nobody meant as a word are left out.
    """
    said: dict[int, Word] = {}
    after = 0
    while rows := await store.lessons(after, _AT_ONCE):
        after = rows[-1].number
        for row in rows:
            told = row.weight > 0.0 and row.channel not in SIGNS
            if told and made_ms(row.decision_id) >= since_ms:
                said[row.decision_id] = _with(said.get(row.decision_id), row)
    return said


def _with(before: Word | None, row: LessonRow) -> Word:
    judged = row.channel == JUDGE
    if before is None:
        verdict = row.quality if judged else None
        return Word(row.quality, row.weight, row.arm, verdict, not judged)
    weight = before.weight + row.weight
    score = (before.score * before.weight + row.quality * row.weight) / weight
    verdict = row.quality if judged else before.verdict
    return Word(score, weight, row.arm, verdict, before.others or not judged)


def logged_of(
    decision: Intent, read: ReadPlan, words: dict[int, Word], *, shared: bool
) -> Logged | None:
    """Return a decision with its word; None when no learned policy took it."""
    plan = read(decision.plan) if decision.plan else None
    evidence = plan.evidence if plan is not None else None
    if plan is None or evidence is None or not plan.attempts:
        return None
    # Nothing was rated where no learned policy chose.
    models = [one.arm for one in evidence.rated]
    taken = plan.attempts[0].model
    if taken not in models:
        return None
    chances = np.array([one.propensity for one in evidence.rated])
    return Logged(
        decision.at_ms,
        unpack(evidence.sight, "" if shared else decision.key_id),
        tuple(arm_of(model, evidence.mode) for model in models),
        _options(evidence),
        Taste(*evidence.taste),
        Exploration(*convert(evidence.exploration, _Exploring)),
        # What is written as a decimal sums to one only nearly.
        chances / chances.sum(),
        models.index(taken),
        words.get(decision.attempt_id),
        decision.attempt_id,
        decision.key_id,
        plan.features,
        _listed(plan, models),
        evidence.asked,
        corrected_by(evidence.state),
    )


def _listed(plan: Plan, models: Sequence[str]) -> Vector | None:
    known = {one.model: float(one.expected_nano) for one in plan.candidates}
    return np.array([known[model] for model in models]) if known.keys() >= set(models) else None


def _options(evidence: Evidence) -> Options:
    rated = evidence.rated
    return Options(
        Ratings(np.array([one.quality for one in rated]), np.array([one.sd for one in rated])),
        np.array([one.cost_nano for one in rated]),
        np.array([one.explorable for one in rated]),
        np.array([one.late for one in rated]),
        evidence.current,
        evidence.trial,
        np.array([one.fail for one in rated]),
    )


def span(decisions: Sequence[Logged]) -> tuple[int, int]:
    """Return when the first and the last were taken, in milliseconds; zeros for none."""
    return (decisions[0].at_ms, decisions[-1].at_ms) if decisions else (0, 0)
